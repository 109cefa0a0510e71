"""Sampling: greedy is `generate`, recorded log-probs are the scored ones, seeds repeat."""

import pytest
import torch
from tiny_vl import corpus_of, features_of, pose, questions_of, tiny_policy

from vl.corpus import owners_of
from vl.rollout import SamplingConfig, sample_rollouts
from vl.stops import RepetitionStop, StopConfig

POLICY = tiny_policy()
END = POLICY.text.end_id


@pytest.fixture
def corpus():
    return corpus_of(1, 3, 2)


def draw(corpus, seed=0, policy=POLICY, **options):
    settings = {"num_rollouts": 3, "max_new_tokens": 12} | options
    with torch.no_grad():
        features = features_of(policy, corpus)
    return sample_rollouts(
        policy,
        features,
        questions_of(corpus),
        SamplingConfig(**settings),
        torch.Generator().manual_seed(seed),
    )


def ending_policy(bias, slope=0.0):
    """A policy whose end token's logit is raised by `bias` + `slope` x a feature of the state."""
    policy = tiny_policy()
    original = policy.model.logits
    direction = torch.randn(32, generator=torch.Generator().manual_seed(3))

    def logits(states):
        found = original(states).clone()
        found[..., END] = found[..., END] + bias + slope * (states @ direction)
        return found

    policy.model.logits = logits
    return policy


def test_greedy_rollouts_equal_generate(corpus):
    found = draw(corpus, num_rollouts=1, temperature=0.0)
    processor = POLICY.processor
    owners = owners_of(corpus.pictures)
    samples = [s for p in corpus.pictures for s in p.samples]
    for row, sample in enumerate(samples):
        text = f"<beginning_of_sentence>user\n<image>{pose(sample)}<end_of_sentence>"
        text += "<beginning_of_sentence>assistant\n"
        batch = processor(sample.images[0].open(), text)
        assert owners[row] == corpus.pictures[owners[row]].index
        ids = POLICY.model.generate(
            **batch,
            do_sample=False,
            max_new_tokens=12,
            suppress_tokens=POLICY.forbidden.nonzero()[:, 0].tolist(),
            pad_token_id=POLICY.text.pad_id,
        )
        assert list(found[row][0].token_ids) == ids[0, batch.input_ids.shape[1] :].tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_recorded_logprobs_are_those_of_scoring(corpus, temperature):
    policy = ending_policy(4.0 * temperature)
    groups = draw(corpus, policy=policy, temperature=temperature)
    lengths = {len(r.token_ids) for group in groups for r in group}
    assert len(lengths) > 3  # rows left the batch at different steps
    memory = policy.read(features_of(policy, corpus), questions_of(corpus))
    rollouts = [rollout for group in groups for rollout in group]
    owners = [row for row in range(len(groups)) for _ in range(3)]
    answers = [r.token_ids for r in rollouts]
    scores = policy.score(memory, owners, answers, temperature=temperature)
    for row, rollout in enumerate(rollouts):
        found = scores.logprobs[row, : len(rollout.token_ids)]
        torch.testing.assert_close(found, torch.tensor(rollout.logprobs), rtol=1e-5, atol=1e-5)


def test_an_answer_ends_at_its_first_end_token_or_is_truncated(corpus):
    rollouts = [r for group in draw(corpus, policy=ending_policy(4.0)) for r in group]
    assert {r.truncated for r in rollouts} == {True, False}
    for rollout in rollouts:
        assert len(rollout.token_ids) == len(rollout.logprobs)
        assert END not in rollout.token_ids[:-1]
        assert rollout.truncated == (rollout.token_ids[-1] != END)
        assert not rollout.truncated or len(rollout.token_ids) == 12
        body = [token for token in rollout.token_ids if token != END]
        assert rollout.text == POLICY.text.tokenizer.decode(body)


def test_forbidden_tokens_are_never_drawn_however_likely(corpus):
    policy = tiny_policy()
    original = policy.model.logits
    policy.model.logits = lambda states: original(states) + 50.0 * policy.forbidden
    drawn = {t for group in draw(corpus, policy=policy) for r in group for t in r.token_ids}
    assert not drawn & set(policy.forbidden.nonzero()[:, 0].tolist())


def test_the_generators_seed_decides_the_rollouts(corpus):
    assert draw(corpus, seed=1) == draw(corpus, seed=1)
    assert draw(corpus, seed=1) != draw(corpus, seed=2)


def test_leaving_the_batch_does_not_change_the_others(corpus):
    """Greedy answers of all rows together, of which some end early, equal each row's alone."""
    policy = ending_policy(-1.0, slope=0.5)
    together = draw(corpus, policy=policy, num_rollouts=1, temperature=0.0)
    lengths = [len(group[0].token_ids) for group in together]
    assert len(set(lengths)) > 1, lengths
    features, questions = features_of(policy, corpus), questions_of(corpus)
    for row, group in enumerate(together):
        alone = sample_rollouts(
            policy,
            features,
            [questions[row]],
            SamplingConfig(num_rollouts=1, temperature=0.0, max_new_tokens=12),
            torch.Generator(),
        )
        assert alone[0][0].token_ids == group[0].token_ids


def test_frequencies_follow_the_probabilities():
    """One draw of one token, 4000 times, against the softmax at temperature 2."""
    corpus = corpus_of(1)
    group = draw(corpus, num_rollouts=4000, max_new_tokens=1, temperature=2.0)[0]
    probabilities = {r.token_ids[0]: r.logprobs[0] for r in group}
    token = max(probabilities, key=lambda t: probabilities[t])
    expected = torch.tensor(probabilities[token]).exp().item()
    share = sum(r.token_ids[0] == token for r in group) / 4000
    assert abs(share - expected) < 4 * (expected * (1 - expected) / 4000) ** 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature: found -0.1"),
        ({"num_rollouts": 0}, "num_rollouts 0"),
        ({"max_new_tokens": 0}, "max_new_tokens 0"),
        ({"temperature": 0.0, "num_rollouts": 2}, "2 greedy answers"),
    ],
)
def test_settings_without_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**options)


def test_a_complete_answer_ends_a_rollout_and_is_not_truncated(corpus):
    """A policy that writes `\\boxed{` `}` and then anything stops at the brace."""
    policy = tiny_policy()
    pieces = policy.encode_answer("\\boxed{3}")[:-1]
    original = policy.model.logits
    step = [0]

    def logits(states):
        found = original(states) * 0.0
        if step[0] < len(pieces):
            found[..., pieces[step[0]]] = 100.0
        step[0] += 1
        return found

    policy.model.logits = logits
    stops = StopConfig(complete_answer="boxed")
    groups = draw(corpus, policy=policy, stops=stops)
    for rollout in (r for group in groups for r in group):
        assert rollout.text == "\\boxed{3}" and rollout.stop == "complete"
        assert len(rollout.token_ids) == len(pieces) and not rollout.truncated


def test_a_run_of_certain_tokens_ends_a_rollout_as_truncated(corpus):
    policy = tiny_policy()
    original = policy.model.logits

    def logits(states):
        found = original(states) * 0.0
        found[..., 60] = 100.0
        return found

    policy.model.logits = logits
    stops = StopConfig(repetition=RepetitionStop(num_tokens=4, probability=0.9))
    groups = draw(corpus, policy=policy, stops=stops)
    for rollout in (r for group in groups for r in group):
        assert rollout.token_ids == (60,) * 4 and rollout.stop == "repetition"
        assert rollout.truncated
