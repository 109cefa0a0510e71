"""Probabilities of update and sampling: their agreement, in parts and as a whole."""

import numpy as np
import pytest
import torch

from vl.rollout_match import MatchLimits, RolloutMatch, alarm_text, match_of


def batch(p, q):
    p, q = torch.tensor([p]).log(), torch.tensor([q]).log()
    return match_of(p, q, torch.ones_like(p, dtype=torch.bool))


def test_by_hand():
    # p 0.2 0.4 0.6, q 0.2 0.6 0.4: both vary by 0.08 in sum of squares, together by 0.04
    found = batch([0.2, 0.4, 0.6], [0.2, 0.6, 0.4])
    assert found.correlation == pytest.approx(0.5, abs=1e-6)
    assert found.max_difference == pytest.approx(0.2, abs=1e-6)
    assert found.mean_difference == pytest.approx(0.4 / 3, abs=1e-6)
    assert set(found.metrics()) == {
        "rollout_match/correlation",
        "rollout_match/max_difference",
        "rollout_match/mean_difference",
    }


def test_shards_add_up_to_the_whole_and_agree_with_numpy():
    random = torch.Generator().manual_seed(0)
    q = -torch.rand(6, 40, generator=random)
    p = q + 0.02 * torch.randn(6, 40, generator=random)
    trained = torch.rand(6, 40, generator=random) > 0.2
    whole = match_of(p, q, trained)
    parts = [match_of(p[i : i + 2], q[i : i + 2], trained[i : i + 2]) for i in (0, 2, 4)]
    added = sum(parts, RolloutMatch())
    assert added.as_sums() == pytest.approx(whole.as_sums(), rel=1e-12)
    assert added.max_difference == whole.max_difference
    assert RolloutMatch.from_sums(added.as_sums(), added.max_difference) == added
    expected = np.corrcoef(p[trained].double().exp(), q[trained].double().exp())[0, 1]
    assert whole.correlation == pytest.approx(expected, abs=1e-12) and expected < 1.0
    same = match_of(q, q, trained)
    assert (same.correlation, same.max_difference) == (pytest.approx(1.0), 0.0)


def test_what_is_padded_or_does_not_vary_has_no_correlation():
    assert match_of(torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(2, 3).bool()) == RolloutMatch()
    assert RolloutMatch().metrics() == {} and alarm_text(RolloutMatch(), MatchLimits()) is None
    sure = batch([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    assert sure.correlation is None and "rollout_match/correlation" not in sure.metrics()
    assert batch([0.5], [0.4]).correlation is None
    assert batch([0.3] * 100, [0.3] * 100).correlation is None


def test_the_alarm_says_what_was_found_and_what_to_do():
    good, bad = batch([0.2, 0.4, 0.6], [0.2, 0.4, 0.6]), batch([0.2, 0.4, 0.6], [0.2, 0.6, 0.4])
    assert alarm_text(good, MatchLimits(max_difference=0.1)) is None
    assert "correlation 0.5000, at least 0.99 is expected" in str(alarm_text(bad, MatchLimits()))
    assert "float32" in str(alarm_text(bad, MatchLimits()))
    assert alarm_text(bad, MatchLimits(correlation_min=None)) is None
    only = MatchLimits(correlation_min=None, max_difference=0.1)
    assert "differs by 0.2000, at most 0.1 is allowed" in str(alarm_text(bad, only))
    broken = match_of(torch.tensor([[float("nan")]]), torch.zeros(1, 1), torch.ones(1, 1).bool())
    assert "no number" in str(alarm_text(broken, MatchLimits()))


def test_limits_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"correlation_min: found 1\.0"):
        MatchLimits(correlation_min=1.0)
    with pytest.raises(ValueError, match=r"max_difference: found 0\.0"):
        MatchLimits(max_difference=0.0)
