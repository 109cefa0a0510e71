"""Mixed precision: layers in bfloat16, weights and head in float32; sampling as the update."""

from dataclasses import replace

import pytest
import torch
from tiny_hf import picture, tiny
from tiny_vl import corpus_of, features_of, questions_of, tiny_policy

from vl.policy import Question
from vl.rollout import SamplingConfig, sample_rollouts


def minimax():
    policy, corpus = tiny_policy(), corpus_of(1, 2)
    return policy, lambda one: features_of(one, corpus), questions_of(corpus)


def qwen():
    policy = tiny("qwen25")
    asked = [Question(owner=0, text="how many?"), Question(owner=1, text="what is it?")]
    return policy, lambda one: one.features([one.encode([picture(n)]) for n in (0, 1)]), asked


@pytest.mark.parametrize("make", [minimax, qwen])
def test_layers_compute_in_bfloat16_and_the_head_in_float32(make):
    policy, features_of, asked = make()
    mixed = replace(policy, autocast=True)
    answers = [[5, 6, 7], [8], [9, 10]][: len(asked)]
    exact = policy.score(policy.read(features_of(policy), asked), range(len(asked)), answers)
    found = mixed.score(mixed.read(features_of(mixed), asked), range(len(asked)), answers)
    assert found.logprobs.dtype == torch.float32
    gap = (found.logprobs - exact.logprobs).detach().abs().max().item()
    assert 1e-6 < gap < 0.2  # bfloat16 has eight bits, and was used
    found.logprobs.sum().backward()
    trained = [param for param in policy.model.parameters() if param.grad is not None]
    assert len(trained) > 20
    assert all(param.dtype == param.grad.dtype == torch.float32 for param in trained)
    assert all(torch.isfinite(param.grad).all() for param in trained)


@pytest.mark.parametrize("make", [minimax, qwen])
def test_sampling_records_what_the_update_computes_to_bfloat16(make):
    policy, features_of, asked = make()
    mixed = replace(policy, autocast=True)
    config = SamplingConfig(num_rollouts=2, max_new_tokens=6)
    with torch.no_grad():
        features = features_of(mixed)
    groups = sample_rollouts(mixed, features, asked, config, torch.Generator().manual_seed(0))
    rollouts = [rollout for group in groups for rollout in group]
    owners = [row // 2 for row in range(len(rollouts))]
    scores = mixed.score(
        mixed.read(features_of(mixed), asked), owners, [r.token_ids for r in rollouts]
    )
    for row, rollout in enumerate(rollouts):
        told = torch.tensor(rollout.logprobs)
        gap = scores.logprobs[row, : len(told)].exp() - told.exp()
        assert gap.abs().max() < 0.05
