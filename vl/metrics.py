"""Numbers of one RL step, overall, by source and by task; what was not measured is absent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .rundir import CORRECT_FROM

if TYPE_CHECKING:
    from .groups import Group

_BOX_PARTS = ("iou", "iou_50", "iou_75", "iou_95", "iou_99", "map")


def step_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """`reward`, `score`, ... and the same under `source/<source>/` and `task/<task>/`."""
    by_key: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        by_key[""].append(group)
        by_key[f"source/{group.sample.source}/"].append(group)
        by_key[f"task/{group.sample.task}/"].append(group)
    values: dict[str, float] = {}
    for prefix, members in sorted(by_key.items()):
        values |= {prefix + name: value for name, value in _numbers(members).items()}
    return values


def _numbers(groups: Sequence[Group]) -> dict[str, float]:
    pairs = [pair for g in groups for pair in zip(g.rollouts, g.verdicts, strict=True)]
    scored = [(rollout, verdict) for rollout, verdict in pairs if verdict.score is not None]
    right = [
        rollout for rollout, verdict in scored if verdict.score and verdict.score >= CORRECT_FROM
    ]
    wrong = [
        rollout for rollout, verdict in scored if not verdict.score or verdict.score < CORRECT_FROM
    ]
    values: dict[str, float | None] = {
        "reward": _mean(v.reward for _, v in scored),
        "score": _mean(v.score for _, v in scored),
        "format": _mean(v.format for _, v in scored),
        "unscored": float(len(pairs) - len(scored)),
        "no_spread": _mean(float(not group.has_spread) for group in groups),
        "no_answer": _mean(float(v.status == "no_answer") for _, v in scored),
        "truncated": _mean(float(rollout.truncated) for rollout, _ in pairs),
        "response_length": _mean(float(len(rollout.token_ids)) for rollout, _ in pairs),
        "response_length_right": _mean(float(len(rollout.token_ids)) for rollout in right),
        "response_length_wrong": _mean(float(len(rollout.token_ids)) for rollout in wrong),
        "pass_at_g": _mean(
            float(max(scores) >= CORRECT_FROM)
            for scores in ([v.score for v in g.verdicts if v.score is not None] for g in groups)
            if scores
        ),
    }
    for part in _BOX_PARTS:
        values[part] = _mean(verdict.parts.get(part) for _, verdict in scored)
    return {name: value for name, value in values.items() if value is not None}


def _mean(numbers: Iterable[float | None]) -> float | None:
    """Mean of what was measured; None if nothing was."""
    measured = [number for number in numbers if number is not None]
    return sum(measured) / len(measured) if measured else None
