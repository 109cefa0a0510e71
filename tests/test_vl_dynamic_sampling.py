"""Groups without spread are replaced, up to a limit, and counted by source."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vl.dynamic_sampling import DynamicSampling, Judged, SamplingPlan

GOOD, FLAT, LOST = Judged("a", True, 4), Judged("a", False, 4), Judged("b", False, 1)


def play(num_groups, judged, config):
    """The plan after drawing from a fixed stream of judged groups; the groups are its positions."""
    plan, position, asked = SamplingPlan(num_groups, config), 0, []
    while plan.num_to_draw:
        asked.append(plan.num_to_draw)
        groups = list(range(position, position + asked[-1]))
        plan.feed(groups, [judged[group % len(judged)] for group in groups])
        position += asked[-1]
    return plan, asked


def test_as_many_are_drawn_again_as_the_share_kept_lets_hope():
    # 2 of 4 kept: 2 missing, 4 drawn for them; of those 2 are good, so the step is full
    plan, asked = play(4, [GOOD, FLAT], DynamicSampling())
    assert asked == [4, 4] and plan.kept == [0, 2, 4, 6]
    assert plan.metrics()["sampling/no_spread"] == 4.0


def test_good_groups_beyond_the_step_are_surplus():
    plan, asked = play(2, [FLAT, GOOD, GOOD, GOOD], DynamicSampling())
    assert asked == [2, 2] and plan.kept == [1, 2]
    assert plan.counts["a"].surplus == 1 and plan.metrics()["sampling/drawn"] == 4.0


def test_the_limit_ends_a_hopeless_step():
    plan, asked = play(4, [FLAT, LOST], DynamicSampling(max_extra_batches=2))
    assert asked == [4, 4, 4] and plan.kept == []
    assert plan.metrics() == {
        "sampling/missing": 4.0,
        "sampling/drawn": 12.0,
        "sampling/kept": 0.0,
        "sampling/no_spread": 6.0,
        "sampling/unscored": 6.0,
        "sampling/surplus": 0.0,
        "source/a/sampling/drawn": 6.0,
        "source/b/sampling/drawn": 6.0,
        "source/a/sampling/kept": 0.0,
        "source/b/sampling/kept": 0.0,
        "source/a/sampling/no_spread": 6.0,
        "source/b/sampling/no_spread": 0.0,
        "source/a/sampling/unscored": 0.0,
        "source/b/sampling/unscored": 6.0,
        "source/a/sampling/surplus": 0.0,
        "source/b/sampling/surplus": 0.0,
    }


def test_without_dynamic_sampling_the_one_batch_is_kept_whole():
    plan, asked = play(3, [FLAT, LOST, GOOD], None)
    assert asked == [3] and plan.kept == [0, 1, 2] and plan.metrics() == {}


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    num_groups=st.integers(1, 9),
    judged=st.lists(st.sampled_from([GOOD, FLAT, LOST, Judged("b", True, 2)]), min_size=1),
    limit=st.integers(1, 4),
)
def test_a_step_is_filled_in_order_within_its_limit(num_groups, judged, limit):
    plan, asked = play(num_groups, judged, DynamicSampling(max_extra_batches=limit))
    drawn = sum(asked)
    good = [g for g in range(drawn) if judged[g % len(judged)].has_spread]
    assert plan.kept == good[:num_groups]
    assert drawn <= num_groups * (1 + limit) and max(asked) <= num_groups
    assert len(plan.kept) == num_groups or drawn == num_groups * (1 + limit)
    totals = plan.metrics()
    parts = ("kept", "no_spread", "unscored", "surplus")
    assert totals["sampling/drawn"] == sum(totals[f"sampling/{p}"] for p in parts) == drawn
    again, _ = play(num_groups, judged, DynamicSampling(max_extra_batches=limit))
    assert again.kept == plan.kept and again.metrics() == totals


def test_callers_mistakes_are_named():
    with pytest.raises(ValueError, match="found 0; use 1 or more, or None"):
        DynamicSampling(max_extra_batches=0)
    with pytest.raises(ValueError, match="num_groups is 0"):
        SamplingPlan(0, None)
    with pytest.raises(ValueError, match="the data has run out"):
        SamplingPlan(1, None).feed([], [])


def test_the_last_draw_keeps_to_the_limit():
    # 2 of 3 kept: 2 drawn for the missing one, then 3 are hoped for but only 1 is left of 6
    plan, asked = play(
        3, [GOOD, GOOD, FLAT, FLAT, FLAT, FLAT], DynamicSampling(max_extra_batches=1)
    )
    assert asked == [3, 2, 1] and plan.kept == [0, 1]
