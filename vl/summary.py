"""From held-out answers to `eval.json`: means with 95 % intervals, and differences of phases.

Rows that share a picture are not independent, so intervals are computed over pictures (cluster-
robust normal intervals); differences of two phases are taken row by row, which removes what both
share. The macro average weighs the eight task kinds alike.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypedDict

from .rundir import CORRECT_FROM, MACRO_TASKS, EvalLine

_Z95 = 1.959964


class Interval(TypedDict):
    """A mean with its 95 % interval over `n` rows."""

    mean: float
    low: float
    high: float
    n: int


class _Estimate(NamedTuple):
    mean: float
    variance: float
    n: int

    def interval(self) -> Interval:
        half = _Z95 * math.sqrt(self.variance)
        return Interval(mean=self.mean, low=self.mean - half, high=self.mean + half, n=self.n)


Measure = Callable[[EvalLine], float | None]


def greedy_score(line: EvalLine) -> float | None:
    """Score of the greedy answer; None if unscored."""
    return line["greedy"]["score"]


def average_score(line: EvalLine) -> float | None:
    """Mean score of the scored samples; None if there is none."""
    scores = [answer["score"] for answer in line["samples"] if answer["score"] is not None]
    return sum(scores) / len(scores) if scores else None


def best_score(line: EvalLine) -> float | None:
    """1 if one of the samples is correct, else 0; None if none is scored."""
    scores = [answer["score"] for answer in line["samples"] if answer["score"] is not None]
    return float(max(scores) >= CORRECT_FROM) if scores else None


def measures_of(lines: Sequence[EvalLine]) -> dict[str, Measure]:
    """greedy, avg@k and pass@k with the k of these lines."""
    k = max((len(line["samples"]) for line in lines), default=0)
    measures: dict[str, Measure] = {"greedy": greedy_score}
    return measures | ({f"avg@{k}": average_score, f"pass@{k}": best_score} if k else {})


def summarise_phase(lines: Sequence[EvalLine]) -> dict[str, object]:
    """`macro`, `task` and `source` of one phase, as `eval.json` holds them."""
    measures = measures_of(lines)
    summary: dict[str, object] = {"macro": _macro(lines, measures)}
    for field in ("task", "source"):
        groups = _group(lines, field)
        summary[field] = {
            name: {
                **_intervals(rows, measures),
                "unscored": sum(_num_unscored(line) for line in rows),
            }
            for name, rows in groups.items()
        }
    return summary


def summarise_difference(
    later: Sequence[EvalLine], earlier: Sequence[EvalLine]
) -> dict[str, object]:
    """Paired differences `later - earlier`, macro, by task and by source.

    Raises:
        ValueError: the two phases did not answer the same rows.
    """
    if [_row_key(line) for line in later] != [_row_key(line) for line in earlier]:
        raise ValueError(
            f"phases {later[0]['phase'] if later else '-'} and "
            f"{earlier[0]['phase'] if earlier else '-'} answered different rows; evaluate both on "
            "the same held-out files"
        )
    before = {_row_key(line): line for line in earlier}

    def paired(measure: Measure) -> Measure:
        def difference(line: EvalLine) -> float | None:
            new, old = measure(line), measure(before[_row_key(line)])
            return None if new is None or old is None else new - old

        return difference

    measures = {name: paired(measure) for name, measure in measures_of(later).items()}
    summary: dict[str, object] = {"macro": _macro(later, measures)}
    for field in ("task", "source"):
        groups = _group(later, field)
        summary[field] = {name: _intervals(rows, measures) for name, rows in groups.items()}
    return summary


def _row_key(line: EvalLine) -> tuple[str, str]:
    """An id is only unique within its source."""
    return line["source"], line["id"]


def _group(lines: Sequence[EvalLine], field: str) -> dict[str, list[EvalLine]]:
    groups: dict[str, list[EvalLine]] = defaultdict(list)
    for line in lines:
        groups[line["task"] if field == "task" else line["source"]].append(line)
    return dict(sorted(groups.items()))


def _num_unscored(line: EvalLine) -> int:
    return sum(answer["score"] is None for answer in (line["greedy"], *line["samples"]))


def _intervals(
    lines: Sequence[EvalLine], measures: Mapping[str, Measure]
) -> dict[str, Interval | int]:
    estimates = {name: _estimate(lines, measure) for name, measure in measures.items()}
    return {name: found.interval() for name, found in estimates.items() if found is not None}


def _macro(lines: Sequence[EvalLine], measures: Mapping[str, Measure]) -> dict[str, Interval]:
    """Unweighted mean over the tasks of `MACRO_TASKS` that have rows."""
    groups = _group(lines, "task")
    macro: dict[str, Interval] = {}
    for name, measure in measures.items():
        found = [_estimate(groups[task], measure) for task in MACRO_TASKS if task in groups]
        parts = [estimate for estimate in found if estimate is not None]
        if parts:
            mean = sum(part.mean for part in parts) / len(parts)
            variance = sum(part.variance for part in parts) / len(parts) ** 2
            macro[name] = _Estimate(mean, variance, sum(part.n for part in parts)).interval()
    return macro


def _estimate(lines: Sequence[EvalLine], measure: Measure) -> _Estimate | None:
    """Mean over rows, and its variance with pictures as clusters (sandwich estimate)."""
    clusters: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        value = measure(line)
        if value is not None:
            clusters[f"{line['source']}/{line['image_id'] or line['id']}"].append(value)
    values = [value for cluster in clusters.values() for value in cluster]
    if not values:
        return None
    n, count = len(values), len(clusters)
    mean = sum(values) / n
    residuals = (sum(value - mean for value in cluster) ** 2 for cluster in clusters.values())
    correction = count / (count - 1) if count > 1 else 1.0
    return _Estimate(mean, correction * sum(residuals) / n**2, n)
