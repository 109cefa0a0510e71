"""The policy's tree of prefixes gives the numbers and gradients of plain rows."""

from dataclasses import replace

import pytest
import torch
from tiny_vl import corpus_of, features_of, pose, questions_of, sample, tiny_policy
from torch.nn import functional as F

from vl.corpus import build_corpus, owners_of
from vl.policy import Question

POLICY = tiny_policy()
ANSWERS = (
    "\\boxed{3}",
    "the cat",
    "<answer>[{'bbox_2d': [0, 125, 250, 375], 'label': 'x'}]</answer>",
)


def rows_of(corpus):
    samples = [sample for picture in corpus.pictures for sample in picture.samples]
    answers = [POLICY.encode_answer(ANSWERS[i % 3]) for i, _ in enumerate(samples)]
    return samples, answers


def plain_logits(corpus, questions, answers):
    """Logits of each answer token from the whole rendered chat, one row at a time."""
    owners = owners_of(corpus.pictures)
    found = []
    for row, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        messages = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        ]
        chat = POLICY.processor.apply_chat_template(messages, add_generation_prompt=True)
        expanded = chat.replace("<image>", "<image>" * 4)
        text = expanded + POLICY.text.tokenizer.decode(answer)
        ids = POLICY.text.tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        assert ids[0, -len(answer) :].tolist() == answer
        shown = [corpus.pictures[owners[row]].images[0].open()]
        pixels = POLICY.processor.image_processor(shown)["pixel_values"]
        logits = POLICY.model(ids, pixel_values=pixels).logits[0, -len(answer) - 1 : -1]
        found.append(logits.masked_fill(POLICY.forbidden, float("-inf")))
    return found


def gradients(loss):
    params = list(POLICY.model.parameters())
    return torch.autograd.grad(loss, params, allow_unused=True, retain_graph=True)


def assert_same_gradients(found, expected):
    norms = [0.0 if g is None else g.norm().item() for g in expected]
    assert sum(norm > 1e-6 for norm in norms) > 40  # the comparison is not one of zeros
    for one, other in zip(found, expected, strict=True):
        if other is not None and one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        else:
            assert (one is None or not one.any()) and (other is None or not other.any())


@pytest.mark.parametrize("rows_per_picture", [(2, 2, 2), (1, 3, 2)], ids=["equal", "unequal"])
def test_the_sft_loss_is_that_of_plain_rows_in_value_and_gradient(rows_per_picture):
    corpus = corpus_of(*rows_per_picture)
    samples, answers = rows_of(corpus)
    features = features_of(POLICY, corpus)
    found = POLICY.negative_log_likelihood(features, questions_of(corpus), answers)
    logits = plain_logits(corpus, [pose(sample) for sample in samples], answers)
    targets = torch.tensor([token for answer in answers for token in answer])
    expected = F.cross_entropy(torch.cat(logits), targets, reduction="sum")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert_same_gradients(gradients(found), gradients(expected))


@pytest.mark.parametrize("rows_per_picture", [(2, 2), (1, 3)], ids=["equal", "unequal"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "alone"])
def test_answers_score_as_in_plain_rows_in_value_and_gradient(
    rows_per_picture, temperature, shared
):
    corpus = corpus_of(*rows_per_picture)
    samples, answers = rows_of(corpus)
    features = features_of(POLICY, corpus)
    twice = [answers[row // 2] if row % 2 == 0 else answers[0] for row in range(8)]
    asked = questions_of(corpus)
    if shared:
        owners = [row // 2 for row in range(8)]
        scores = POLICY.score(POLICY.read(features, asked), owners, twice, temperature=temperature)
    else:
        asked = [asked[row // 2] for row in range(8)]
        scores = POLICY.score_alone(features, asked, twice, temperature=temperature)
    questions = [pose(samples[row // 2]) for row in range(8)]
    doubled = corpus_of(*(2 * n for n in rows_per_picture))
    logits = plain_logits(doubled, questions, twice)
    weights = torch.randn(scores.logprobs.shape, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(())
    for row, (answer, one) in enumerate(zip(twice, logits, strict=True)):
        every = (one / temperature).log_softmax(-1)
        picked = every.gather(-1, torch.tensor(answer)[:, None])[:, 0]
        n = len(answer)
        assert scores.valid[row].sum() == n
        torch.testing.assert_close(scores.logprobs[row, :n], picked, rtol=1e-5, atol=1e-5)
        entropy = torch.distributions.Categorical(logits=one / temperature).probs
        by_hand = -(entropy * entropy.clamp_min(1e-30).log()).sum(-1)
        torch.testing.assert_close(scores.entropy[row, :n], by_hand, rtol=1e-4, atol=1e-5)
        expected = expected + (picked * weights[row, :n]).sum()
    found = (scores.logprobs * weights)[scores.valid].sum()
    assert_same_gradients(gradients(found), gradients(expected))


def two_pictures(text):
    """One row with two pictures and the given text."""
    row = replace(sample(0, 0), images=sample(0, 0).images + sample(1, 0).images)
    corpus = build_corpus([[row]])
    return features_of(POLICY, corpus), [Question(owner=0, text=text)]


def test_markers_say_where_pictures_stand_and_without_them_they_come_first():
    answer = [POLICY.encode_answer("the cat")]

    def scores(text):
        return POLICY.score(POLICY.read(*two_pictures(text)), [0], answer).logprobs

    def by_hand(text):
        shown = [sample(0, 0).images[0].open(), sample(1, 0).images[0].open()]
        marked = text.replace("<image>", "<image>" * 4)
        bos, eos = "<beginning_of_sentence>", "<end_of_sentence>"
        chat = f"{bos}user\n{marked}{eos}{bos}assistant\n"
        ids = POLICY.tokenizer(chat, add_special_tokens=False).input_ids + answer[0]
        pixels = POLICY.processor.image_processor(shown)["pixel_values"]
        logits = POLICY.model(torch.tensor([ids]), pixel_values=pixels).logits[0]
        logits = logits[-len(answer[0]) - 1 : -1].masked_fill(POLICY.forbidden, float("-inf"))
        return logits.log_softmax(-1).gather(-1, torch.tensor(answer[0])[:, None])[:, 0]

    inside = "how many dots<image> are there? <image>read the word"
    torch.testing.assert_close(scores(inside)[0], by_hand(inside), rtol=1e-5, atol=1e-5)
    plain = "read the word"
    first = by_hand(f"<image><image>{plain}")
    torch.testing.assert_close(scores(plain)[0], first, rtol=1e-5, atol=1e-5)
    assert (first - by_hand(inside)).abs().max() > 1e-3


def test_questions_with_and_without_markers_are_read_together():
    features, (inside,) = two_pictures("how many dots<image> are there? <image>read the word")
    questions = [inside, Question(owner=0, text="the cat")]
    answers = [POLICY.encode_answer("the cat"), POLICY.encode_answer("\\boxed{3}")]
    found = POLICY.score(POLICY.read(features, questions), [0, 1], answers).logprobs
    for row, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        alone = POLICY.score(POLICY.read(features, [question]), [0], [answer]).logprobs[0]
        torch.testing.assert_close(found[row, : len(answer)], alone, rtol=1e-5, atol=1e-5)


def test_a_model_of_16_bits_sees_reads_and_scores():
    policy = tiny_policy()
    policy.model.to(torch.bfloat16)
    corpus = corpus_of(1, 1)
    answers = [policy.encode_answer("the cat")] * 2
    memory = policy.read(features_of(policy, corpus), questions_of(corpus))
    found = policy.score(memory, [0, 1], answers)
    expected = POLICY.score(
        POLICY.read(features_of(POLICY, corpus), questions_of(corpus)), [0, 1], answers
    )
    torch.testing.assert_close(found.logprobs, expected.logprobs, rtol=0.02, atol=0.02)


def test_a_text_with_too_few_markers_is_refused():
    with pytest.raises(ValueError, match="1 <image> markers for 2 pictures"):
        POLICY.read(*two_pictures("what is <image> this?"))


def test_padding_of_scores_is_zero_and_not_valid():
    corpus = corpus_of(2)
    memory = POLICY.read(features_of(POLICY, corpus), questions_of(corpus))
    scores = POLICY.score(memory, [0, 1], [[5, 6, 7], [8]])
    assert scores.valid.tolist() == [[True, True, True], [True, False, False]]
    assert scores.logprobs[1, 1:].tolist() == [0.0, 0.0]


def test_the_text_encoder_reads_a_turn_as_the_tokenizer_reads_the_whole_chat():
    text = POLICY.text
    for question in ("how many dots?", " leading", "1, 2", "user\n", "a\n", "[62, 125]"):
        for answer in (*ANSWERS, "", "12", " word"):
            messages = [
                {
                    "role": "user",
                    "content": [{"type": "image"}, {"type": "text", "text": question}],
                },
                {"role": "assistant", "content": answer},
            ]
            chat = text.tokenizer.apply_chat_template(messages, tokenize=False)
            image = [POLICY.model.config.image_token_index]
            parts = [text.opening, image, text.prompt(question), text.header, text.answer(answer)]
            whole = text.tokenizer(chat, add_special_tokens=False).input_ids
            assert [token for part in parts for token in part] == whole
