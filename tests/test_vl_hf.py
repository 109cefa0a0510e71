"""Any transformers model as a policy: shared prompts give the numbers of plain transformers."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_hf import FAMILIES, picture, tiny
from tokenizers import processors

from vl.models.hf import HfPolicy
from vl.models.hf_head import token_scores
from vl.policy import Question

POLICIES = {family: tiny(family) for family in FAMILIES}
QWEN = POLICIES["qwen25"]
every_family = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())


def entries_of(policy):
    """One picture; two pictures of other shapes."""
    return [policy.encode([picture(1)]), policy.encode([picture(2, 56, 84), picture(3, 84, 56)])]


QUESTIONS = (
    Question(owner=0, text="what?"),
    Question(owner=1, text="is <image> like <image> or not?"),
    Question(owner=1, text="both"),
)


def random_answers(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (n,), generator=generator).tolist() for n in lengths]


def gradients(policy, loss):
    params = list(policy.model.parameters())
    found = torch.autograd.grad(loss, params, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(params, found, strict=True)]


def assert_scores_agree(policy, owners, lengths, *, temperature=1.0, num_live=50):
    features = policy.features(entries_of(policy))
    answers = random_answers(lengths)
    memory = policy.read(features, QUESTIONS)
    found = policy.score(memory, owners, answers, temperature=temperature)
    asked = [QUESTIONS[owner] for owner in owners]
    expected = policy.score_alone(features, asked, answers, temperature=temperature)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(found.logprobs.shape, generator=torch.Generator().manual_seed(1))
    grads = [gradients(policy, (each.logprobs * weights).sum()) for each in (found, expected)]
    assert sum(bool(g.norm() > 1e-6) for g in grads[1]) >= num_live  # not a comparison of zeros
    scale = max(g.abs().max() for g in grads[1])
    for one, other in zip(*grads, strict=True):
        assert (one - other).abs().max() <= 1e-5 * scale


@every_family
def test_answers_of_shared_prompts_score_as_whole_sequences_in_value_and_gradient(policy):
    assert policy.shares_prefix
    owners, lengths = [0, 1, 0, 2, 2, 1, 0], [3, 1, 5, 4, 4, 7, 1]
    assert_scores_agree(policy, owners, lengths, temperature=0.7)


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), min_size=1, max_size=9))
def test_any_shape_of_answers_scores_alike(rows):
    owners, lengths = zip(*rows, strict=True)
    assert_scores_agree(QWEN, owners, lengths, num_live=1)


def test_an_empty_answer_has_no_scores_and_leaves_the_others_alone():
    assert_scores_agree(QWEN, [0, 1, 2, 0, 1], [3, 0, 0, 1, 2])
    memory = QWEN.read(QWEN.features(entries_of(QWEN)), QUESTIONS)
    assert not QWEN.score(memory, [0, 1], [[], []]).valid.any()


def test_equal_lengths_score_alike():
    assert_scores_agree(QWEN, [0, 0, 1, 1, 2, 2], [6] * 6)


def test_without_the_cpu_kernel_answers_score_alike(monkeypatch):
    monkeypatch.setattr("vl.models.hf_attention._has_kernel", lambda query: False)
    assert_scores_agree(QWEN, [0, 1, 0, 2, 2, 1, 0], [3, 1, 5, 4, 4, 7, 1])
    assert_scores_agree(QWEN, [0, 0, 1, 1], [4, 4, 4, 4])


def chat_of(question, images):
    """The conversation as a user of transformers would write it."""
    pieces = question.text.split("<image>")
    if len(pieces) == 1:
        pieces = [""] * len(images) + [question.text]
    content = []
    for index, piece in enumerate(pieces):
        content += [{"type": "image", "image": images[index - 1]}] if index else []
        content += [{"type": "text", "text": piece}] if piece else []
    return [{"role": "user", "content": content}]


IMAGES = ([picture(1)], [picture(2, 56, 84), picture(3, 84, 56)])


def plain_inputs(policy, question):
    return policy.render.processor.apply_chat_template(
        [chat_of(question, IMAGES[question.owner])],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


@every_family
def test_log_probs_are_those_of_the_plain_model_on_the_processors_own_input(policy):
    features = policy.features(entries_of(policy))
    answer = [72, 101, 108, 250]
    for question in QUESTIONS:
        inputs = plain_inputs(policy, question)
        prompt = inputs["input_ids"][0].tolist()
        entry = features[question.owner]
        assert policy.render.prompt(entry.expansions, question.text) == prompt
        assert policy.num_prompt_tokens(entry, question.text) == len(prompt)
        ids = torch.tensor([prompt + answer])
        inputs["input_ids"], inputs["attention_mask"] = ids, torch.ones_like(ids)
        if "mm_token_type_ids" in inputs:
            inputs["mm_token_type_ids"] = torch.cat(
                [inputs["mm_token_type_ids"], torch.zeros(1, 4, dtype=torch.long)], 1
            )
        with torch.no_grad():
            logits = policy.model(**inputs).logits[0, -5:-1]
        logits[:, list(policy.forbidden)] = float("-inf")
        expected = (logits / 0.5).log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0]
        memory = policy.read(features, [question])
        found = policy.score(memory, [0], [answer], temperature=0.5).logprobs[0]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def greedy(policy, features, questions, steps):
    with torch.no_grad():
        branches = policy.branch(policy.read(features, questions), 1)
        rows = []
        for _ in range(steps):
            rows.append(branches.logits().argmax(-1))
            branches.extend(rows[-1])
    return torch.stack(rows, 1).tolist()


@every_family
def test_greedy_tokens_are_those_of_generate(policy):
    with torch.no_grad():
        found = greedy(policy, policy.features(entries_of(policy)), QUESTIONS, 12)
        for question, tokens in zip(QUESTIONS, found, strict=True):
            inputs = plain_inputs(policy, question)
            out = policy.model.generate(
                **inputs,
                do_sample=False,
                suppress_tokens=list(policy.forbidden),
                min_new_tokens=12,
                max_new_tokens=12,
                eos_token_id=319,
            )
            assert out[0, inputs["input_ids"].shape[1] :].tolist() == tokens


def score_of_branches(policy, copies, kept_after_two, steps=5):
    """(answers, log-probs) as a sampler sees them when rows leave after two tokens."""
    features = policy.features(entries_of(policy))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        memory = policy.read(features, QUESTIONS)
        branches = policy.branch(memory, copies)
        owners = [row for row in range(3) for _ in range(copies)]
        answers = [[] for _ in owners]
        logprobs = [[] for _ in owners]
        rows = list(range(len(owners)))
        for step in range(steps):
            if step == 2:
                branches.keep(torch.tensor(kept_after_two))
                rows = kept_after_two
            if step == 3 and len(rows) > 1:  # groups may differ in size by now
                branches.keep(torch.arange(1, len(rows)))
                rows = rows[1:]
            every = branches.logits().log_softmax(-1)
            tokens = torch.multinomial(every.exp(), 1, generator=generator)
            for row, token, one in zip(rows, tokens[:, 0].tolist(), every, strict=True):
                answers[row].append(token)
                logprobs[row].append(one[token].item())
            branches.extend(tokens[:, 0])
        scores = policy.score(memory, owners, answers)
    return scores, logprobs


@every_family
@pytest.mark.parametrize("kept", [[0, 1, 2, 3, 4, 5], [0, 2, 3, 5], [1, 4], [5]])
def test_sampling_and_update_see_the_same_probabilities_also_when_rows_leave(policy, kept):
    scores, logprobs = score_of_branches(policy, 2, kept)
    for row, values in enumerate(logprobs):
        left_at_3 = len(kept) > 1 and row == kept[0]
        assert len(values) == (2 if row not in kept else 3 if left_at_3 else 5)
        torch.testing.assert_close(
            scores.logprobs[row, : len(values)], torch.tensor(values), rtol=1e-4, atol=1e-5
        )


def test_decoding_goes_on_beyond_the_first_buffer():
    features = QWEN.features(entries_of(QWEN))
    answers = greedy(QWEN, features, QUESTIONS[:1], 70)
    with torch.no_grad():
        scores = QWEN.score(QWEN.read(features, QUESTIONS[:1]), [0], answers)
    best = QWEN.score_alone(features, QUESTIONS[:1], answers)
    torch.testing.assert_close(scores.logprobs, best.logprobs, rtol=1e-4, atol=1e-5)


@every_family
def test_picture_marks_are_never_drawn_and_have_no_probability(policy):
    tokenizer = policy.render.tokenizer
    marks = {
        token for token in tokenizer.get_added_vocab() if "image" in token or "vision" in token
    }
    marks |= {
        token for token in tokenizer.get_added_vocab() if "_col_" in token or "video" in token
    }
    assert {tokenizer.convert_tokens_to_ids(mark) for mark in marks} <= set(policy.forbidden)
    assert not policy.end_ids & set(policy.forbidden)
    features = policy.features(entries_of(policy)[:1])
    logits = policy.branch(policy.read(features, QUESTIONS[:1]), 1).logits()
    assert logits[0, list(policy.forbidden)].tolist() == [float("-inf")] * len(policy.forbidden)
    assert torch.isfinite(logits).sum() == 320 - len(policy.forbidden)


def test_boxes_are_no_picture_marks():
    box = QWEN.render.tokenizer.convert_tokens_to_ids("<|box_start|>")
    assert box not in QWEN.forbidden


@every_family
def test_reading_uses_the_given_features_and_runs_no_tower(policy):
    with torch.no_grad():
        features = policy.features(entries_of(policy))
        called = []
        inner = policy.model.base_model
        tower = next(
            getattr(inner, name)
            for name in ("visual", "vision_tower", "vision_model")
            if hasattr(inner, name)
        )
        hook = tower.register_forward_hook(lambda *_: called.append(1))
        before = policy.score(policy.read(features, QUESTIONS), [1], [[65, 66]]).logprobs
        other = features[1]._replace(tokens=tuple(-one for one in features[1].tokens))
        after = policy.score(policy.read([features[0], other], QUESTIONS), [1], [[65, 66]]).logprobs
        hook.remove()
    assert called == []
    assert (before - after).abs().max() > 1e-3


def test_deepstack_features_are_read_too():
    policy = POLICIES["qwen3"]
    with torch.no_grad():
        features = policy.features(entries_of(policy))
        assert len(features[1].deep) == 2
        deep = tuple(tuple(-one for one in layer) for layer in features[1].deep)
        found = [
            policy.score_alone([each], [replace(QUESTIONS[1], owner=0)], [[65, 66]]).logprobs
            for each in (features[1], features[1]._replace(deep=deep))
        ]
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_features_come_back_in_order_when_entries_differ_in_shape():
    policy = POLICIES["llava"]
    shapes = [(56, 56), (56, 28), (56, 56)]
    entries = [policy.encode([picture(i, *shape)]) for i, shape in enumerate(shapes)]
    tiles = [entry.inputs["pixel_values"].shape[1] for entry in entries]
    assert tiles == [5, 3, 5]
    together = policy.features(entries)
    for one, entry in zip(together, entries, strict=True):
        torch.testing.assert_close(one.tokens, policy.features([entry])[0].tokens)


def test_prompts_beyond_the_budget_are_read_in_parts_with_the_same_result(monkeypatch):
    features = QWEN.features(entries_of(QWEN))
    owners, answers = [2, 0, 1, 2], random_answers([3, 4, 5, 2])
    with torch.no_grad():
        whole = QWEN.score(QWEN.read(features, QUESTIONS), owners, answers)
        tokens = greedy(QWEN, features, QUESTIONS, 4)
        monkeypatch.setattr("vl.models.hf._CHUNK_TOKENS", 60)
        memory = QWEN.read(features, QUESTIONS)
        assert len(memory.chunks) > 1
        torch.testing.assert_close(QWEN.score(memory, owners, answers), whole)
        assert greedy(QWEN, features, QUESTIONS, 4) == tokens


def test_logits_in_pieces_give_the_same_scores_and_gradients(monkeypatch):
    monkeypatch.setattr("vl.models.hf_head._LOGITS_AT_ONCE", 320 * 3)
    assert_scores_agree(QWEN, [0, 1, 2], [4, 7, 2])
    in_pieces = QWEN.score_alone(QWEN.features(entries_of(QWEN)), QUESTIONS, [[65] * 9] * 3)
    monkeypatch.undo()
    at_once = QWEN.score_alone(QWEN.features(entries_of(QWEN)), QUESTIONS, [[65] * 9] * 3)
    torch.testing.assert_close(in_pieces, at_once)


def test_scores_of_the_head_have_the_gradient_of_log_softmax():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(6, 4, generator=generator).requires_grad_()
    weight = torch.randn(9, 4, generator=generator).requires_grad_()
    bias = torch.zeros(9).index_fill(0, torch.tensor([2, 5]), float("-inf"))
    targets = torch.tensor([0, 1, 3, 4, 8, 8])
    scale = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0, 1.0])
    found, entropy = token_scores(states, weight, bias, targets)
    allowed = torch.tensor([0, 1, 3, 4, 6, 7, 8])
    every = (states @ weight[allowed].T).log_softmax(-1)
    expected = every.gather(-1, torch.tensor([0, 1, 2, 3, 6, 6])[:, None])[:, 0]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(entropy, -(every.exp() * every).sum(-1).detach())
    assert not entropy.requires_grad
    grads = [
        torch.autograd.grad((each * scale).sum(), (states, weight)) for each in (found, expected)
    ]
    torch.testing.assert_close(grads[0], grads[1])


def test_the_tokenizers_own_start_mark_is_added_once():
    model, processor = FAMILIES["llava"]()
    tokenizer = processor.tokenizer
    start = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", start)]
    )
    render = HfPolicy.load(model, processor).render
    assert render.tokenize("<s>a")[:2] == render.tokenize("a") == [start, ord("a") - 33]
    assert render.prompt((), "a").count(start) == 1


def test_a_model_with_windows_is_read_plainly_and_says_why():
    policy = tiny(
        "qwen25",
        use_sliding_window=True,
        sliding_window=8,
        max_window_layers=1,
        layer_types=["full_attention", "sliding_attention", "sliding_attention"],
    )
    assert not policy.shares_prefix
    assert "DynamicSlidingWindowLayer" in policy.shares_prefix.reason
    assert_scores_agree(policy, [0, 1, 1], [3, 4, 1])
    scores, logprobs = score_of_branches(policy, 2, [0, 3, 4])
    for row, values in enumerate(logprobs):
        torch.testing.assert_close(
            scores.logprobs[row, : len(values)], torch.tensor(values), rtol=1e-4, atol=1e-5
        )


def test_other_attention_than_sdpa_is_read_plainly_and_says_why():
    model, processor = FAMILIES["llava"]()
    model.set_attn_implementation("eager")
    policy = HfPolicy.load(model, processor)
    assert policy.shares_prefix.reason == "its attention is 'eager'; load it with 'sdpa'"


def test_gradient_checkpointing_reads_plainly():
    policy = tiny("llava")
    policy.model.activation_checkpointing_enable()
    policy.model.train()
    features = policy.features(entries_of(policy))
    assert policy.read(features, QUESTIONS).chunks is None
    policy.model.eval()
    assert policy.read(features, QUESTIONS).chunks is not None


@pytest.mark.parametrize("fp32_head", [True, False])
def test_a_bf16_model_has_logits_of_float32_products_if_asked(fp32_head):
    model, processor = FAMILIES["llava"]()
    policy = HfPolicy.load(model.to(torch.bfloat16), processor, fp32_head=fp32_head)
    features = policy.features(entries_of(policy))
    memory = policy.read(features, QUESTIONS)
    found = policy.branch(memory, 1).logits()
    weight = policy.model.lm_head.weight
    hidden = memory.chunks[0].hidden
    by_hand = hidden.float() @ weight.float().T if fp32_head else (hidden @ weight.T).float()
    allowed = [index for index in range(320) if index not in policy.forbidden]
    torch.testing.assert_close(found[:, allowed], by_hand[:, allowed])
    scores = policy.score(memory, [0, 1], [[65, 66], [67]])
    assert scores.logprobs.dtype == torch.float32
    scores.logprobs.sum().backward()
    assert policy.model.lm_head.weight.grad.dtype == torch.bfloat16


def test_supervised_loss_is_the_sum_over_answer_tokens():
    features = QWEN.features(entries_of(QWEN))
    answers = random_answers([3, 5, 2])
    found = QWEN.negative_log_likelihood(features, QUESTIONS, answers)
    expected = -QWEN.score_alone(features, QUESTIONS, answers).logprobs.sum()
    torch.testing.assert_close(found, expected)


@every_family
def test_an_answer_ends_with_the_token_that_ends_a_turn_and_decodes_to_its_text(policy):
    ids = policy.encode_answer(" 12 dogs")
    assert ids[-1] in policy.end_ids and not policy.end_ids & set(ids[:-1])
    assert policy.decode([ids, ids[:3]]) == [" 12 dogs", " 12"]


def test_a_wrong_number_of_markers_is_refused():
    features = QWEN.features(entries_of(QWEN))
    with pytest.raises(ValueError, match="1 <image> markers for 2 pictures"):
        QWEN.read(features, [Question(owner=1, text="<image> only")])
    with pytest.raises(ValueError, match="2 picture placeholders"):
        QWEN.read(features, [Question(owner=0, text="a <|image_pad|> in the text")])


@pytest.mark.parametrize("family", ["qwen3", "idefics3"])
def test_a_saved_policy_loads_with_the_same_scores(family, tmp_path):
    policy = POLICIES[family]
    policy.save(tmp_path)
    assert "vl_shared_prefix" not in (tmp_path / "config.json").read_text()
    assert json.loads((tmp_path / "config.json").read_text())["architectures"]
    again = HfPolicy.load(tmp_path)
    again.model.eval()
    assert again.end_ids == policy.end_ids and again.forbidden == policy.forbidden
    found = [
        each.score_alone(each.features(entries_of(each)), QUESTIONS, [[65, 66]] * 3)
        for each in (policy, again)
    ]
    torch.testing.assert_close(found[0], found[1])


def test_a_model_without_processor_is_refused():
    with pytest.raises(ValueError, match="without processor; give both"):
        HfPolicy.load(QWEN.model)
