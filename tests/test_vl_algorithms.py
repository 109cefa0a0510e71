"""Algorithms by name, margins as bounds, and the overlong penalty."""

import pytest
import torch

from vl.algorithms import ALGORITHM_NAMES, algorithm, describe
from vl.losses import CispoConfig, ConstantLength, GrpoConfig, cispo_config, policy_loss
from vl.overlong import OverlongPenalty, overlong_penalty


def test_each_name_carries_what_its_paper_pairs():
    found = {name: algorithm(name, max_new_tokens=100) for name in ALGORITHM_NAMES}
    assert found["cispo"].loss == CispoConfig(ratio_low=None, ratio_high=5.0)
    assert found["dapo"].loss == GrpoConfig(ratio_low=0.8, ratio_high=1.28)
    assert found["dr_grpo"].loss.aggregation == ConstantLength(divisor_tokens=100)
    assert [name for name, a in found.items() if not a.advantage.divide_by_std] == ["dr_grpo"]
    with_sampling = [name for name, a in found.items() if a.dynamic_sampling]
    assert with_sampling == ["cispo", "dapo"]
    assert [name for name, a in found.items() if a.overlong] == with_sampling
    assert found["dapo"].overlong == OverlongPenalty(max_tokens=100, margin_tokens=20)
    with pytest.raises(ValueError, match="found 'ppo'; known: cispo, grpo"):
        algorithm("ppo", max_new_tokens=100)


def test_an_algorithm_is_described_by_what_it_does():
    assert describe(algorithm("dapo", max_new_tokens=100)) == [
        "clipped: token ratios keep their gradient up to 1.28 (A > 0) and down to 0.8 (A < 0)",
        "loss: mean over all tokens of the step",
        "length: reward falls from 80 tokens, by 1 at 100",
        "sampling: groups without spread are replaced, at most 3 more batches a step",
    ]
    assert describe(algorithm("dr_grpo", max_new_tokens=8))[1:] == [
        "loss: sum over tokens / 8, mean over rollouts",
        "advantages: reward minus the group's mean, not divided by its deviation",
    ]


@pytest.mark.parametrize(
    ("num_tokens", "expected"),
    [(0, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (100, -1.0), (500, -1.0)],
)
def test_the_overlong_penalty_sets_in_softly(num_tokens, expected):
    config = OverlongPenalty(max_tokens=100, margin_tokens=20)
    assert overlong_penalty(num_tokens, config) == pytest.approx(expected)
    half = OverlongPenalty(max_tokens=100, margin_tokens=20, weight=0.5)
    assert overlong_penalty(num_tokens, half) == pytest.approx(expected / 2)


def test_dapos_own_lengths():
    assert overlong_penalty(16_384, OverlongPenalty()) == 0.0
    assert overlong_penalty(18_432, OverlongPenalty()) == -0.5
    assert overlong_penalty(20_480, OverlongPenalty()) == -1.0


@pytest.mark.parametrize(
    "wrong", [{"margin_tokens": 0}, {"margin_tokens": 30_000}, {"weight": 0.0}]
)
def test_penalties_without_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match="OverlongPenalty: found max_tokens"):
        OverlongPenalty(**wrong)


def test_margins_are_another_way_to_name_a_bound():
    assert cispo_config() == CispoConfig()
    assert cispo_config(eps_high=4.0) == CispoConfig(ratio_high=5.0)
    assert cispo_config(eps_low=0.25, eps_high=0.5) == CispoConfig(ratio_low=0.75, ratio_high=1.5)
    assert cispo_config(eps_low=10.0).ratio_low is None  # "a large value": no floor
    assert cispo_config(ratio_low=0.5).ratio_low == 0.5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ratio_high": 5.0, "eps_high": 4.0}, "ratio_high 5.0 and eps_high 4.0; they are one"),
        ({"ratio_low": 0.5, "eps_low": 0.5}, "ratio_low = 1 - eps_low"),
        ({"ratio_high": 0.2}, "ratio_high: found 0.2; bounds are ratios"),
        ({"eps_high": -0.8}, "eps_high -0.8; a margin is at least 0"),
    ],
)
def test_a_bound_named_twice_or_a_cap_below_one_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        cispo_config(**wrong)


def test_cispo_has_neither_dual_clip_nor_penalty_to_set():
    for field in ("dual_clip", "kl"):
        with pytest.raises(TypeError, match=field):
            CispoConfig(**{field: 3.0})


@pytest.mark.parametrize("config", [CispoConfig(mask_high=1.4, mask_low=0.6), GrpoConfig()])
def test_advantages_of_tokens_agree_with_those_of_rollouts(config):
    random = torch.Generator().manual_seed(0)
    new = torch.randn(3, 5, dtype=torch.float64, generator=random) * 0.5
    old = torch.randn(3, 5, dtype=torch.float64, generator=random) * 0.5
    trained = torch.rand(3, 5, generator=random) > 0.3
    advantages = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    one = policy_loss(new, old, advantages, trained, config)
    many = policy_loss(new, old, advantages[:, None].repeat(1, 5), trained, config)
    assert one == many
    signs = torch.tensor([[1.0, -1.0, 1.0, -1.0, 0.0]], dtype=torch.float64)
    mixed = policy_loss(new[:1], old[:1], signs, trained[:1] | True, CispoConfig(ratio_high=1.0))
    assert mixed.clip_fraction_positive + mixed.clip_fraction_negative <= mixed.clip_fraction
