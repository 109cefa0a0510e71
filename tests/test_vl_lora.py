"""Adapters train alone, are saved small or merged, and come back."""

import pytest
import torch
from tiny_hf import picture, tiny
from transformers import AutoModelForImageTextToText

from vl.lora import LoraConfig, add_lora, load_adapter, save_adapter, save_merged
from vl.models.hf import HfPolicy
from vl.policy import Question

QUESTION = Question(owner=0, text="what?")


def scores(policy):
    features = policy.features([policy.encode([picture(1)])])
    memory = policy.read(features, [QUESTION])
    return policy.score(memory, [0, 0], [[65, 66, 67], [68]])


def trained(policy):
    """Large steps, so that the adapters matter."""
    params = [p for p in policy.model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(params, lr=0.1)
    for _ in range(2):
        scores(policy).logprobs.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return policy


def adapted(family="qwen25", **config):
    policy = tiny(family)
    names = add_lora(policy.model, policy.parts, LoraConfig(rank=4, **config))
    return policy, names


def test_a_new_adapter_changes_nothing_and_alone_trains():
    policy, names = adapted()
    assert len(names) == 3 * 7  # layers x (q, k, v, o, gate, up, down)
    assert all(name.startswith("model.language_model.") for name in names)
    torch.testing.assert_close(scores(policy), scores(tiny("qwen25")))
    live = [name for name, p in policy.model.named_parameters() if p.requires_grad]
    assert len(live) == 2 * len(names) and all(".lora_" in name for name in live)
    assert all(name.startswith(sum(policy.parts.values(), ())) for name in live)


def test_layers_can_be_named_and_other_parts_asked_for():
    _, names = adapted(layers=("q_proj", "v_proj"))
    assert len(names) == 6
    _, names = adapted("llava", layers=None, parts=("connector",))
    assert names == ["model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_2"]


def test_shared_prompts_give_the_plain_gradient_through_adapters():
    policy = trained(adapted()[0])
    features = policy.features([policy.encode([picture(1)])])
    answers = [[65, 66, 67], [68]]
    params = [p for p in policy.model.parameters() if p.requires_grad]
    found = policy.score(policy.read(features, [QUESTION]), [0, 0], answers).logprobs.sum()
    expected = policy.score_alone(features, [QUESTION] * 2, answers).logprobs.sum()
    grads = [torch.autograd.grad(loss, params) for loss in (found, expected)]
    scale = max(g.abs().max() for g in grads[1])
    for one, other in zip(*grads, strict=True):
        assert (one - other).abs().max() <= 1e-5 * scale


def test_a_saved_adapter_comes_back(tmp_path):
    policy = trained(adapted()[0])
    save_adapter(policy.model, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    again = tiny("qwen25")
    before = scores(again)
    load_adapter(again.model, tmp_path)
    assert (scores(again).logprobs - before.logprobs).abs().max() > 1e-2
    torch.testing.assert_close(scores(again), scores(policy))
    assert any(p.requires_grad for p in again.model.parameters())


def test_a_merged_model_loads_without_peft_and_the_trained_one_is_untouched(tmp_path):
    policy = trained(adapted()[0])
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    save_merged(policy.model, tmp_path)
    save_adapter(policy.model, tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()  # still an adapted model
    policy.render.processor.save_pretrained(tmp_path)
    after = policy.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert not any("lora" in name for name, _ in plain.named_parameters())
    again = HfPolicy.load(plain, policy.render.processor)
    torch.testing.assert_close(scores(again), scores(policy), rtol=1e-4, atol=1e-4)


def test_settings_without_meaning_are_refused():
    with pytest.raises(ValueError, match="found rank 0"):
        LoraConfig(rank=0)
    with pytest.raises(ValueError, match=r"lora.parts: found \['head'\]"):
        adapted(parts=("head",))
    with pytest.raises(ValueError, match="'q_proj'"):
        adapted(layers=("query",))
