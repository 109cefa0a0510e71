"""Muon, its split from AdamW, schedules, and states that continue bit for bit."""

import pytest
import torch
from tiny_vl import tiny_policy
from torch import nn

from vl.optim import (
    AdamWConfig,
    Muon,
    MuonConfig,
    NonFiniteGradient,
    Optimizers,
    Schedule,
    is_block_matrix,
    orthogonalise,
)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 20), (2, 20, 6)])
def test_orthogonalising_keeps_the_singular_vectors_and_makes_the_values_near_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalise(matrices)
    assert found.shape == matrices.shape
    u, values, vh = torch.linalg.svd(matrices, full_matrices=False)
    aligned = u.transpose(-1, -2) @ found @ vh.transpose(-1, -2)
    diagonal = aligned.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(aligned, torch.diag_embed(diagonal), rtol=0, atol=1e-3)
    large = values > 0.1 * values[:, :1]
    assert bool(((diagonal > 0.6) & (diagonal < 1.25))[large].all())


def quintic(value):
    """Newton-Schulz on one singular value, five times."""
    for _ in range(5):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    return value


def test_a_muon_step_on_a_known_matrix():
    param = nn.Parameter(torch.zeros(4, 2))
    param.grad = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    Muon([param], MuonConfig(lr=0.1)).step()
    # singular values 3/5 and 4/5 after normalising; tall matrices move sqrt(rows / cols) as far
    expected = torch.zeros(4, 2)
    expected[0, 0], expected[1, 1] = quintic(0.6), quintic(0.8)
    torch.testing.assert_close(param.detach(), -0.1 * 2**0.5 * expected, rtol=1e-4, atol=1e-5)


def test_muon_remembers_the_gradients_direction():
    param = nn.Parameter(torch.zeros(2, 2))
    muon = Muon([param], MuonConfig(lr=1.0, momentum=0.5))
    param.grad = torch.diag(torch.tensor([1.0, 1.0]))
    muon.step()
    param.grad = torch.diag(torch.tensor([0.0, 1.0]))
    before = param.detach().clone()
    muon.step()
    # momentum: 0.5 * 0.5 + 0.5 * 0 = 0.25 and 0.75; Nesterov: halfway to the gradient 0 and 1
    values = torch.tensor([0.125, 0.875])
    values = values / values.norm()
    expected = torch.diag(torch.stack([quintic(value) for value in values]))
    torch.testing.assert_close(before - param.detach(), expected, rtol=1e-4, atol=1e-5)


def test_experts_are_separate_matrices():
    torch.manual_seed(0)
    gradient = torch.randn(3, 4, 6)
    fused, apart = nn.Parameter(torch.zeros(3, 4, 6)), nn.Parameter(torch.zeros(4, 6))
    fused.grad, apart.grad = gradient.clone(), gradient[1].clone()
    Muon([fused], MuonConfig()).step()
    Muon([apart], MuonConfig()).step()
    torch.testing.assert_close(fused.detach()[1], apart.detach(), rtol=1e-4, atol=1e-6)


def test_muon_takes_the_matrices_of_blocks_and_the_projector():
    model = tiny_policy().model
    chosen = {name for name, param in model.named_parameters() if is_block_matrix(name, param)}
    text, vision = "language_model.model.layers.1.", "vision_tower.vision_model.encoder.layers.0."
    assert {
        text + "self_attn.q_proj.weight",
        text + "block_sparse_moe.experts.gate_up_proj",
        vision + "mlp.fc1.weight",
        "multi_modal_projector.linear_1.weight",
    } <= chosen
    assert (
        not {
            text + "block_sparse_moe.gate.weight",
            text + "input_layernorm.weight",
            vision + "mlp.fc1.bias",
            "vision_tower.vision_model.embeddings.patch_embedding.weight",
            "language_model.model.embed_tokens.weight",
            "language_model.lm_head.weight",
        }
        & chosen
    )
    both = Optimizers(model, MuonConfig())
    counts = [sum(p.numel() for p in part.param_groups[0]["params"]) for part in both.parts]
    assert sum(counts) == sum(param.numel() for param in model.parameters())


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.25), (1, 0.5), (3, 1.0), (10, 1.0), (11, 0.9 / 1.0), (15, 0.5), (19, 0.1)],
)
def test_the_rate_warms_up_holds_and_falls(step, expected):
    schedule = Schedule(warmup_steps=4, decay_frac=0.5)
    assert schedule.factor(step / 20, step) == pytest.approx(expected)


def test_a_schedule_without_warm_up_or_decay_is_constant():
    schedule = Schedule(warmup_steps=0, decay_frac=0.0)
    assert [schedule.factor(step / 3, step) for step in range(4)] == [1.0] * 4


def test_the_usual_schedules_are_settings_of_one():
    linear = Schedule(warmup_steps=0, decay_frac=1.0)
    cosine = Schedule(warmup_steps=0, decay_frac=1.0, shape="cosine")
    floor = Schedule(warmup_steps=0, decay_frac=1.0, shape="cosine", min_factor=0.1)
    points = (0.0, 0.25, 0.5, 1.0)
    assert [linear.factor(p, 9) for p in points] == pytest.approx([1.0, 0.75, 0.5, 0.0])
    assert [cosine.factor(p, 9) for p in points] == pytest.approx([1.0, 0.8535534, 0.5, 0.0])
    assert [floor.factor(p, 9) for p in points] == pytest.approx([1.0, 0.8681981, 0.55, 0.1])
    late = Schedule(warmup_steps=0, decay_frac=0.5, shape="cosine")
    assert [late.factor(p, 9) for p in (0.4, 0.5, 0.75)] == pytest.approx([1.0, 1.0, 0.5])


@pytest.mark.parametrize(
    "wrong", [{"warmup_steps": -1}, {"decay_frac": 1.5}, {"decay_frac": -0.1}, {"min_factor": 2.0}]
)
def test_schedules_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="Schedule"):
        Schedule(**wrong)


def test_factors_scale_the_base_rates_and_do_not_pile_up():
    both = Optimizers(tiny_policy().model, MuonConfig(lr=0.02, adamw_lr=0.004))
    assert both.set_factor(0.5) == pytest.approx(0.01)
    assert both.set_factor(0.5) == pytest.approx(0.01)
    assert both.parts[1].param_groups[0]["lr"] == pytest.approx(0.002)


def test_the_norm_before_clipping_is_returned_and_the_clipped_gradient_used():
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.zero_()
    one = Optimizers(model, AdamWConfig(lr=0.1))
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    assert one.step(1.0) == pytest.approx(5.0)
    momentum = one.parts[0].state[model.weight]["exp_avg"]
    torch.testing.assert_close(momentum, 0.1 * torch.tensor([[0.6, 0.8]]), rtol=1e-4, atol=1e-6)
    assert model.weight.grad is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_stops_the_run_and_changes_nothing(value):
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()
    one = Optimizers(model, AdamWConfig())
    model.weight.grad = torch.tensor([[value, 1.0]])
    with pytest.raises(NonFiniteGradient, match=r"gradient norm is (nan|inf): lower the learning"):
        one.step(1.0)
    assert torch.equal(model.weight.detach(), before) and model.weight.grad is None


def test_weights_of_16_bits_move_by_updates_below_their_last_digit():
    """40 steps of 1e-4 move a weight of 1 by 0.004; one alone rounds to nothing (1 / 256)."""

    def run(model, optimizers, num_steps):
        for _ in range(num_steps):
            model.weight.grad = torch.ones_like(model.weight)
            optimizers.step(10.0)
        return model.weight.detach().clone()

    def new():
        model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
        with torch.no_grad():
            model.weight.fill_(1.0)
        return model, Optimizers(model, AdamWConfig(lr=1e-4))

    model, optimizers = new()
    run(model, optimizers, 15)
    again, other = new()
    again.load_state_dict(model.state_dict())
    other.load_state_dict(optimizers.state_dict())
    found = run(model, optimizers, 25)
    assert found.item() == pytest.approx(0.996, abs=1e-3) and found.dtype == torch.bfloat16
    assert torch.equal(run(again, other, 25), found)


def test_a_model_that_is_frozen_throughout_is_refused():
    model = nn.Linear(2, 1).requires_grad_(False)
    with pytest.raises(ValueError, match="every part of the model is frozen"):
        Optimizers(model, AdamWConfig())


@pytest.mark.parametrize("config", [AdamWConfig(weight_decay=0.1), MuonConfig()])
def test_a_restored_state_continues_bit_for_bit(config, tmp_path):
    def steps(model, optimizers, first, last):
        for step in range(first, last):
            random = torch.Generator().manual_seed(step)
            for param in model.parameters():
                param.grad = torch.randn(param.shape, generator=random)
            optimizers.set_factor(1.0 / (step + 1))
            optimizers.step(1.0)

    def new():
        torch.manual_seed(0)
        model = nn.ModuleDict({"a": nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(3, 5)])})})
        return model, Optimizers(model, AdamWConfig(lr=1e-4))

    straight, whole = new()
    steps(straight, whole, 0, 6)
    model, part = new()
    steps(model, part, 0, 3)
    torch.save([model.state_dict(), part.state_dict()], tmp_path / "state.pt")
    again, rest = new()
    weights, states = torch.load(tmp_path / "state.pt", weights_only=True)
    again.load_state_dict(weights)
    rest.load_state_dict(states)
    steps(again, rest, 3, 6)
    for found, expected in zip(again.parameters(), straight.parameters(), strict=True):
        assert torch.equal(found, expected)
