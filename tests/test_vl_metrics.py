"""Numbers of one step, by hand."""

from dataclasses import replace

import pytest
from tiny_vl import sample

from verifiers import Verdict
from vl.groups import Group
from vl.metrics import step_metrics
from vl.rollout import Rollout


def rollout(length, truncated=False):
    stop = "length" if truncated else "end"
    return Rollout(token_ids=(7,) * length, logprobs=(0.0,) * length, text="", stop=stop)


def scored(score, **parts):
    return replace(Verdict.scored(score, format=1.0, parts=parts), reward=0.5 * score + 0.5)


def group(source, *pairs, has_spread=True):
    rollouts, verdicts = zip(*pairs, strict=True)
    advantages = [0.0 if v.score is not None else None for v in verdicts]
    row = sample(0, 0, source=source)
    return Group(row, 0, "", list(rollouts), list(verdicts), advantages, has_spread)


def test_means_by_source_and_overall():
    fault = Verdict.unscored("late", status="timeout")
    groups = [
        group("a", (rollout(2), scored(1.0, iou=0.9)), (rollout(4, True), scored(0.0, iou=0.1))),
        group("b", (rollout(6), scored(0.25)), (rollout(8), fault), has_spread=False),
    ]
    found = step_metrics(groups)
    expected = {
        "score": 1.25 / 3,
        "reward": (1.0 + 0.5 + 0.625) / 3,
        "format": 1.0,
        "unscored": 1.0,
        "no_spread": 0.5,
        "no_answer": 0.0,
        "truncated": 0.25,
        "response_length": 5.0,
        "response_length_right": 2.0,
        "response_length_wrong": 5.0,
        "pass_at_g": 0.5,
        "iou": 0.5,
        "source/a/score": 0.5,
        "source/a/pass_at_g": 1.0,
        "source/b/score": 0.25,
        "source/b/pass_at_g": 0.0,
        "source/b/unscored": 1.0,
        "task/counting/score": 1.25 / 3,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert "source/b/iou" not in found and "source/b/response_length_right" not in found


def test_a_source_that_could_not_be_judged_has_no_scores_and_is_no_failure():
    fault = Verdict.unscored("late", status="timeout")
    found = step_metrics(
        [
            group("a", (rollout(2), scored(1.0)), (rollout(2), scored(1.0))),
            group("b", (rollout(2), fault), (rollout(2), fault), has_spread=False),
        ]
    )
    assert found["pass_at_g"] == 1.0 and found["source/b/unscored"] == 2.0
    assert not {"source/b/score", "source/b/reward", "source/b/pass_at_g"} & set(found)
