"""Group-relative advantages, by hand."""

import pytest

from vl.advantages import AdvantageConfig, group_advantages

EXACT = AdvantageConfig(std_epsilon=0.0)


def test_one_right_of_four():
    # mean 1/4, sample variance (9 + 1 + 1 + 1) / 16 / 3 = 1/4, deviation 1/2
    found = group_advantages([1.0, 0.0, 0.0, 0.0], EXACT)
    assert found.advantages == pytest.approx([1.5, -0.5, -0.5, -0.5])
    assert found.has_spread


def test_epsilon_is_added_to_the_deviation():
    found = group_advantages([1.0, 0.0, 0.0, 0.0], AdvantageConfig(std_epsilon=0.25))
    assert found.advantages == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3])


def test_unscored_rollouts_are_left_out_of_mean_and_deviation():
    found = group_advantages([1.0, None, 0.0, 0.0, None, 0.0], EXACT)
    assert found.advantages[1] is None and found.advantages[4] is None
    rest = [a for a in found.advantages if a is not None]
    assert rest == pytest.approx([1.5, -0.5, -0.5, -0.5])


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([0.7, 0.7, 0.7], [0.0, 0.0, 0.0]),
        ([0.1] * 7, [0.0] * 7),
        ([1.0, None], [0.0, None]),
        ([None, None], [None, None]),
    ],
)
def test_without_spread_there_is_nothing_to_learn(rewards, expected):
    assert group_advantages(rewards) == (expected, False)


def test_float_noise_is_not_blown_up():
    found = group_advantages([0.5, 0.5000001, 0.5, 0.5]).advantages
    # spread 1e-7: 0.75e-7 / (0.5e-7 + 1e-6)
    assert found == pytest.approx([-0.0238095, 0.0714286, -0.0238095, -0.0238095], abs=1e-6)


def test_a_tolerance_can_call_small_differences_equal():
    config = AdvantageConfig(spread_tolerance=0.01)
    assert group_advantages([0.5, 0.505], config) == ([0.0, 0.0], False)
    assert group_advantages([0.5, 0.52], config).has_spread


def test_rounding_is_no_spread_but_a_difference_of_single_precision_is():
    rewards = [0.1 + 0.2, 0.3, 0.3]  # 5.6e-17 apart
    assert group_advantages(rewards, EXACT) == ([0.0, 0.0, 0.0], False)
    assert group_advantages(rewards, AdvantageConfig(spread_tolerance=0.0)).has_spread
    assert group_advantages([0.3, 0.3 + 1e-7]).has_spread


def test_the_deviation_can_be_that_of_a_population():
    # deviation 1/2 over n, sqrt(1/3) over n - 1
    assert group_advantages([1.0, 0.0, 0.0, 1.0], EXACT).advantages[0] == pytest.approx(0.8660254)
    config = AdvantageConfig(std_epsilon=0.0, ddof=0)
    assert group_advantages([1.0, 0.0, 0.0, 1.0], config).advantages == [1.0, -1.0, -1.0, 1.0]


@pytest.mark.parametrize("wrong", [{"spread_tolerance": -1.0}, {"std_epsilon": -1.0}, {"ddof": 2}])
def test_settings_that_would_divide_by_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="AdvantageConfig"):
        AdvantageConfig(**wrong)


def test_dr_grpo_only_subtracts_the_mean():
    found = group_advantages([1.0, 0.5, 0.0], AdvantageConfig(divide_by_std=False))
    assert found.advantages == pytest.approx([0.5, 0.0, -0.5])


@pytest.mark.parametrize("rewards", [[], [1.0], [None]])
def test_a_rollout_without_siblings_is_refused(rewards):
    with pytest.raises(ValueError, match=f"a group of {len(rewards)} rollout"):
        group_advantages(rewards)
