"""Parts of a model: which trains, at which rate, and how large its gradient is."""

import pytest
import torch
from tiny_vl import tiny_policy
from torch import nn

from vl.optim import AdamWConfig, MuonConfig, NonFiniteGradient, Optimizers
from vl.parts import OTHER, PartRates, freeze, part_of, training_table

PARTS = {"vit": ("tower.",), "connector": ("tower.merger",), "llm": ("text.", "lm_head")}


def model_of(extra=False):
    names = {"tower": nn.ModuleDict({"merger_0": nn.Linear(2, 3), "blocks": nn.Linear(2, 2)})}
    names |= {"text": nn.Linear(3, 3), "lm_head": nn.Linear(3, 4)}
    return nn.ModuleDict(names | ({"head": nn.Linear(1, 1)} if extra else {}))


def test_the_longest_prefix_decides_a_part():
    assert part_of("tower.merger_0.weight", PARTS) == "connector"
    assert part_of("tower.blocks.weight", PARTS) == "vit"
    assert part_of("lm_head.bias", PARTS) == "llm" and part_of("head.bias", PARTS) == OTHER


def test_freezing_stops_the_parts_gradients_and_thaws_nothing():
    model = model_of()
    model["lm_head"].bias.requires_grad_(False)
    freeze(model, PARTS, ("vit", "connector"))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == ["text.weight", "text.bias", "lm_head.weight"]
    with pytest.raises(ValueError, match="found 'vision'; the model's parts are vit, connector"):
        freeze(model, PARTS, ("vision",))
    with pytest.raises(ValueError, match=r"head\.weight belongs to none of the parts"):
        freeze(model_of(extra=True), PARTS, ("vit",))


def test_the_table_says_what_trains_at_which_rate():
    model = model_of(extra=True)
    freeze(model["tower"], {"vit": ("",)}, ("vit",))
    model["tower"]["merger_0"].requires_grad_(True)
    rates = PartRates(connector=1e-5)
    found = Optimizers(model, AdamWConfig(lr=1e-6), parts=PARTS, part_rates=rates).rates
    assert found == {"connector": [1e-5], "llm": [1e-6], OTHER: [1e-6]}
    assert [line.split() for line in training_table(model, PARTS, found)] == [
        ["part", "parameters", "trained", "learning", "rate"],
        ["vit", "6", "0", "frozen"],
        ["connector", "9", "9", "1e-05"],
        ["llm", "28", "28", "1e-06"],
        [OTHER, "2", "2", "1e-06"],
        ["all", "45", "39"],
    ]


def test_each_part_moves_at_its_own_rate():
    model = model_of()
    rates = PartRates(vit=0.5, llm=0.25)
    one = Optimizers(model, AdamWConfig(lr=1.0), parts=PARTS, part_rates=rates)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    one.set_factor(0.1)
    one.step(1e9)
    moved = {name: (before[name] - p).max().item() for name, p in model.named_parameters()}
    assert moved["tower.blocks.weight"] == pytest.approx(0.05, rel=1e-4)
    assert moved["tower.merger_0.bias"] == pytest.approx(0.1, rel=1e-4)
    assert moved["text.weight"] == moved["lm_head.bias"] == pytest.approx(0.025, rel=1e-4)


def test_with_muon_a_parts_rate_is_that_of_its_matrices_and_scales_adamw_alike():
    policy = tiny_policy()
    config = MuonConfig(lr=0.02, adamw_lr=0.002)
    rates = PartRates(llm=0.01)
    both = Optimizers(policy.model, config, parts=policy.parts, part_rates=rates)
    assert both.rates["llm"] == pytest.approx([0.01, 0.001])
    assert set(both.rates["vit"]) <= {0.02, 0.002} and "connector" in both.rates
    counts = [p.numel() for part in both.parts for g in part.param_groups for p in g["params"]]
    assert sum(counts) == sum(p.numel() for p in policy.model.parameters())


def test_gradient_norms_come_by_part_and_make_up_the_whole():
    model = model_of()
    one = Optimizers(model, AdamWConfig(), parts=PARTS)
    model["tower"]["blocks"].bias.grad = torch.tensor([3.0, 4.0])
    model["text"].bias.grad = torch.tensor([12.0, 0.0, 0.0])
    assert one.step(1.0) == pytest.approx(13.0)
    assert one.part_norms == pytest.approx({"vit": 5.0, "connector": 0.0, "llm": 12.0})
    model["text"].bias.grad = torch.tensor([float("nan"), 0.0, 0.0])
    with pytest.raises(NonFiniteGradient, match="gradient norm is nan in llm: lower"):
        one.step(1.0)


def test_parts_change_no_number_of_an_update():
    plain, split = model_of(), model_of()
    split.load_state_dict(plain.state_dict())
    optimizers = [Optimizers(plain, AdamWConfig(lr=0.1))]
    optimizers.append(Optimizers(split, AdamWConfig(lr=0.1), parts=PARTS))
    for model, one in zip((plain, split), optimizers, strict=True):
        random = torch.Generator().manual_seed(0)
        for param in model.parameters():
            param.grad = torch.randn(param.shape, generator=random)
        one.step(1.0)
    for found, expected in zip(split.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected)
    assert optimizers[0].part_norms == {}


def test_rates_without_meaning_are_refused():
    with pytest.raises(ValueError, match=r"PartRates\.vit: found 0\.0"):
        PartRates(vit=0.0)
    with pytest.raises(ValueError, match="without `parts`"):
        Optimizers(model_of(), AdamWConfig(), part_rates=PartRates(llm=1e-5))
