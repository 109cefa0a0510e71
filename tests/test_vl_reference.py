"""The reference stays where the policy was, whether it is a copy or the model without adapters."""

import pytest
import torch
from tiny_hf import picture, tiny
from tiny_vl import corpus_of, judge_by_length, pose, stream_of, tiny_policy

from vl import groups
from vl.kl import KlConfig
from vl.lora import LoraConfig, add_lora
from vl.losses import GrpoConfig
from vl.optim import AdamWConfig
from vl.parallel import Shards
from vl.policy import Question
from vl.reference import reference_of
from vl.rl import RlConfig, RlStage
from vl.rollout import SamplingConfig

ANSWERS = [[65, 66, 67], [68]]


def scores(policy, encode=None):
    features = policy.features([(encode or policy.encode)([picture(1, 32, 32)])])
    memory = policy.read(features, [Question(owner=0, text="what?")])
    found = policy.score(memory, [0, 0], [[token % 40 + 8 for token in ids] for ids in ANSWERS])
    return found.logprobs


def move(policy):
    with torch.no_grad():
        for name, param in policy.model.named_parameters():
            if param.requires_grad:
                noise = torch.Generator().manual_seed(len(name))
                param += 0.3 * torch.randn(param.shape, generator=noise)


@pytest.mark.parametrize("make", [tiny_policy, lambda: tiny("qwen25")], ids=["minimax", "qwen25"])
def test_a_copy_keeps_the_starts_log_probs_and_has_no_gradient(make):
    policy = make()
    policy.model.requires_grad_(True)
    before = scores(policy).detach()
    reference = reference_of(policy)
    move(policy)
    assert reference.model is not policy.model
    found = scores(reference)
    assert torch.equal(found, before) and not found.requires_grad
    now = scores(policy)
    assert now.requires_grad and (now - before).abs().max() > 1e-2
    assert all(param.requires_grad for param in policy.model.parameters())


def test_new_adapters_are_switched_off_instead_and_on_again():
    policy = tiny("qwen25")
    add_lora(policy.model, policy.parts, LoraConfig(rank=4))
    before = scores(policy).detach()
    reference = reference_of(policy)
    assert not hasattr(reference, "model")  # no second one
    trained = [name for name, p in policy.model.named_parameters() if p.requires_grad]
    move(policy)
    moved = scores(policy)
    found = scores(reference, policy.encode)
    torch.testing.assert_close(found, before)
    assert not found.requires_grad and (moved - before).abs().max() > 1e-2
    assert torch.equal(scores(policy), moved)
    assert trained == [name for name, p in policy.model.named_parameters() if p.requires_grad]


def test_adapters_that_already_add_something_are_copied():
    policy = tiny("qwen25")
    add_lora(policy.model, policy.parts, LoraConfig(rank=4))
    move(policy)
    before = scores(policy).detach()
    reference = reference_of(policy)
    move(policy)
    assert reference.model is not policy.model and torch.equal(scores(reference), before)


def test_the_penalty_of_a_run_starts_at_zero_and_grows_as_the_policy_leaves(monkeypatch):
    monkeypatch.setattr(groups, "score_with", judge_by_length)
    policy, corpus = tiny_policy(), corpus_of(1, 2)
    config = RlConfig(
        num_steps=3,
        pictures_per_step=2,
        sampling=SamplingConfig(num_rollouts=4, max_new_tokens=6),
        optimizer=AdamWConfig(lr=1e-2),
        loss=GrpoConfig(kl=KlConfig(coefficient=0.1)),
    )
    stage = RlStage(policy, corpus, stream_of(corpus), pose, config, Shards(1), seed=1)
    found = [stage.run_step(step)["kl"] for step in range(3)]
    assert abs(found[0]) < 1e-6 and found[1] > 1e-5 and found[2] > 1e-5
