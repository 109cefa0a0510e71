"""A transformers model in the RL stage: shared and plain updates, frozen parts, adapters."""

import pytest
import torch
from tiny_hf import tiny
from tiny_vl import corpus_of, judge_by_length, pose, stream_of

from vl import groups as groups_module
from vl.lora import LoraConfig, add_lora
from vl.optim import AdamWConfig
from vl.parallel import Shards
from vl.rl import RlConfig, RlStage
from vl.rollout import SamplingConfig


@pytest.fixture(autouse=True)
def judge(monkeypatch):
    monkeypatch.setattr(groups_module, "score_with", judge_by_length)


def stage_of(policy, **options):
    corpus = corpus_of(1, 2, 1)
    config = RlConfig(
        num_steps=4,
        pictures_per_step=3,
        sampling=SamplingConfig(num_rollouts=4, max_new_tokens=6),
        optimizer=AdamWConfig(lr=1e-3),
        **options,
    )
    return RlStage(policy, corpus, stream_of(corpus), pose, config, Shards(2), seed=1)


def captured_gradients(stage):
    """The gradients that reach the optimizer in the first step."""
    seen = {}

    def take(max_grad_norm):
        params = stage.policy.model.named_parameters()
        seen.update({n: p.grad.clone() for n, p in params if p.grad is not None})
        return 0.0

    stage.optimizers.step = take
    values = stage.run_step(0)
    assert values["rollout_match/max_difference"] < 1e-5  # sampling and update see one model
    return seen


@pytest.mark.parametrize("family", ["qwen25", "idefics3"])
@pytest.mark.parametrize("frozen", [("vit", "connector"), ()])
def test_a_step_with_shared_prompts_has_the_gradient_of_one_without(family, frozen):
    found, expected = (
        captured_gradients(stage_of(tiny(family), frozen_parts=frozen, prefix_sharing=shared))
        for shared in (True, False)
    )
    assert set(found) == set(expected)
    assert any("vision" in name or "visual" in name for name in found) == (not frozen)
    scale = max(gradient.abs().max() for gradient in expected.values())
    assert scale > 1e-3
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= 2e-5 * scale, name


def test_gradient_checkpointing_does_not_change_what_is_sampled_nor_the_gradient():
    expected = captured_gradients(stage_of(tiny("qwen25")))
    policy = tiny("qwen25")
    policy.model.activation_checkpointing_enable()
    policy.model.train()
    found = captured_gradients(stage_of(policy))
    assert policy.model.training
    scale = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= 2e-5 * scale, name


def test_a_step_with_adapters_moves_the_adapters_only():
    policy = tiny("qwen25")
    add_lora(policy.model, policy.parts, LoraConfig(rank=2))
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    stage = stage_of(policy)
    stage.run_step(0)
    moved = {n for n, v in policy.model.state_dict().items() if not torch.equal(v, before[n])}
    assert moved and all(".lora_B." in name or ".lora_A." in name for name in moved)
