"""How sure a mean is: 95 % bootstrap intervals, and two models compared on the same queries.

The tasks are the benchmark and stay as they are; the queries of each task are drawn anew. Of n
queries n - 1 are drawn, which gives the mean of a task the variance that the usual unbiased
estimate gives it (Rao and Wu 1988); drawing n makes intervals of small tasks too narrow.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from verifiers.megabench.aggregate import (
    DIMENSIONS,
    EvalType,
    compensated_sum,
    mean_of_task,
    official_dimensions,
    sum_in_order,
)
from verifiers.megabench.files import TaskRecord, query_score

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean over tasks of their means over queries, with its 95 % interval."""

    mean: float
    low: float
    high: float
    num_tasks: int
    num_queries: int


class TaskScores(NamedTuple):
    """A task whose queries are all scored."""

    eval_type: EvalType
    queries: Mapping[int, float]
    """`query_idx` -> score in [0, 1]; a query to which no field applies has 0."""

    @property
    def mean(self) -> float:
        """As the official code has it."""
        return mean_of_task(list(self.queries.values())) or 0.0


class Difference(NamedTuple):
    """What the second model has more than the first, on the same queries."""

    interval: Interval
    """Of the difference of the macro means, in [-1, 1]."""
    num_better: int
    """Queries on which the second model scores higher."""
    num_worse: int

    @property
    def is_clear(self) -> bool:
        """Whether 0 lies outside of the interval."""
        return self.interval.low > 0 or self.interval.high < 0


class Comparison(NamedTuple):
    """Two models, group by group."""

    differences: dict[str, Difference]
    """Group -> difference: `core`, `open`, `overall`, then `app/Knowledge` and so on."""
    tasks: dict[str, Difference]
    left_out: dict[str, str]
    """Task -> why it is not compared."""


def scores_by_task(tasks: Iterable[TaskRecord]) -> dict[str, TaskScores]:
    """The tasks all of whose queries are scored, by name."""
    found: dict[str, TaskScores] = {}
    for task in tasks:
        queries: dict[int, float] = {}
        for query in task["query_response"]:
            score = query_score(query)
            if score is None:
                break
            queries[query["query_idx"]] = max(score, 0.0)
        else:
            if queries:
                found[task["task_name"]] = TaskScores(task.get("eval_type", "rule"), queries)
    return found


def groups_of(
    tasks: Mapping[str, TaskScores], task_meta: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, list[str]]:
    """Names of the tasks of each group that has some: the sets first, then every keyword."""
    meta: Mapping[str, Mapping[str, Any]] = (
        official_dimensions() if task_meta is None else task_meta
    )
    groups: dict[str, list[str]] = {"core": [], "open": [], "overall": []}
    keywords: dict[str, list[str]] = {}
    for name, task in tasks.items():
        groups["open" if task.eval_type == "llm" else "core"].append(name)
        groups["overall"].append(name)
        for dimension, key in DIMENSIONS.items():
            found: Any = meta[name].get(key) or [] if name in meta else []
            for keyword in cast("list[str]", [found] if isinstance(found, str) else found):
                keywords.setdefault(f"{dimension}/{keyword}", []).append(name)
    if not groups["core"] or not groups["open"]:
        del groups["overall"]  # as the official summary, which then has none
    return {label: names for label, names in (groups | keywords).items() if names}


def intervals(
    tasks: Mapping[str, TaskScores],
    groups: Mapping[str, Sequence[str]],
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """The macro mean of every group with its 95 % interval."""
    values = {name: list(task.queries.values()) for name, task in tasks.items()}
    draws = {name: _draw(name, scores, num_resamples, seed) for name, scores in values.items()}
    return {label: _interval(names, values, draws) for label, names in groups.items()}


def compare(
    first: Mapping[str, TaskScores],
    second: Mapping[str, TaskScores],
    task_meta: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """`second - first` on the tasks of which both have all the same queries scored.

    What makes a query hard is the same for both models and leaves the difference, so that this
    interval is narrower than those of the two means suggest.
    """
    values: dict[str, list[float]] = {}
    left_out: dict[str, str] = {}
    for name in [*first, *(name for name in second if name not in first)]:
        if name not in first or name not in second:
            left_out[name] = f"not scored in the {'first' if name in second else 'second'}"
        elif first[name].queries.keys() != second[name].queries.keys():
            left_out[name] = "other queries"
        else:
            later = second[name].queries
            values[name] = [later[index] - old for index, old in first[name].queries.items()]
    draws = {name: _draw(name, diffs, num_resamples, seed) for name, diffs in values.items()}

    def difference(names: Sequence[str]) -> Difference:
        return Difference(
            interval=_interval(names, values, draws),
            num_better=sum(diff > 0 for name in names for diff in values[name]),
            num_worse=sum(diff < 0 for name in names for diff in values[name]),
        )

    groups = groups_of({name: first[name] for name in values}, task_meta)
    return Comparison(
        differences={label: difference(names) for label, names in groups.items()},
        tasks={name: difference([name]) for name in values},
        left_out=left_out,
    )


def _draw(name: str, scores: Sequence[float], num_resamples: int, seed: int) -> NDArray[Any]:
    """Means of resamples of a task's queries; they depend on its name, not on its place."""
    import numpy as np

    values = np.asarray(scores, dtype=np.float64)
    if len(values) == 1 or values.min() == values.max():
        return np.full(num_resamples, values[0])
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    num_drawn = len(values) - 1
    drawn = random.integers(0, len(values), (num_resamples, num_drawn))
    return values[drawn].mean(axis=1)


def _interval(
    names: Sequence[str], values: Mapping[str, Sequence[float]], draws: Mapping[str, NDArray[Any]]
) -> Interval:
    import numpy as np

    resampled = np.mean([draws[name] for name in names], axis=0)
    low, high = np.quantile(resampled, (0.025, 0.975))
    means = [sum_in_order(values[name]) / len(values[name]) for name in names]
    num_queries = sum(len(values[name]) for name in names)
    mean = compensated_sum(means) / len(means)
    return Interval(mean, float(low), float(high), len(names), num_queries)
