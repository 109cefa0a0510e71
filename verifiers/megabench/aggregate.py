"""From field scores to the summary: query, task, keyword dimensions, application tree, overall.

Field scores become a query's score, these a task's mean, and the means of tasks the summary that
the official tools write. What could not be judged is None all the way up: a query with an unscored
field is unscored, a task with an unscored query has no mean and enters no average.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any, Literal, TypedDict, cast

EvalType = Literal["rule", "llm"]
"""Core tasks are judged by rules; a task with one judged field is an open one."""

JUDGED_METRICS = frozenset({"gpt_4o_as_judge", "ascii_art_gpt4o_judge"})

DIMENSIONS = {
    "skills": "skills",
    "input_format": "input_format",
    "output_format": "output_format",
    "input_num": "num_input",
    "app": "app",
}
"""Dimension in the summary -> its key in the file of dimensions."""

_FEW = 8
"""From so many numbers on, numpy adds in another order than from left to right."""


class TaskResult(TypedDict):
    """A task in `task_results.json`."""

    name: str
    score: float
    """Mean over the task's queries, in [0, 1]."""
    eval_type: EvalType
    num_demo: int
    """1 if the task shows an example, else 0."""
    num_query: int


class SetSummary(TypedDict):
    """The core or the open tasks."""

    num_eval_tasks: int
    num_eval_samples: int
    macro_mean_score: float


class Keyword(TypedDict):
    """The tasks of one keyword."""

    count: int
    num_samples: int
    """Queries, and one for a task's example."""
    tasks: list[str]
    """Empty, as upstream leaves it."""
    average_score: float
    """Mean of the tasks' means."""


class ModelSummary(TypedDict):
    """Core, open and both together; None where there are no tasks of the kind."""

    core: SetSummary | None
    open: SetSummary | None
    overall_score: float | None


class Summary(TypedDict):
    """What `summary_and_keyword_stats.json` holds."""

    model_summary: ModelSummary
    keyword_stats: dict[str, dict[str, Keyword]]


class Branch(TypedDict):
    """A node of the application tree."""

    path: tuple[str, ...]
    count: int
    average_score: float


class TaskDimensions(TypedDict):
    """What a task is reported under."""

    app: str
    skills: list[str]
    input_format: str
    output_format: str
    num_input: str
    taxonomy_tree_path: str
    """Names from the application down, joined by semicolons."""


def aggregate_fields(
    function: str | None, scores: Mapping[str, float | None], weights: Mapping[str, float]
) -> float | None:
    """A query's score: in [0, 1], -1 if no field counts, None if one that counts is unscored.

    Fields below 0 and NaN do not count.
    """
    if function == "mean":
        # departs from upstream, whose run stops at a missing weight and where all weights are 0
        scores = {field: score for field, score in scores.items() if weights.get(field)}
    elif function != "min":
        return -1
    kept: dict[str, float] = {}
    for field, score in scores.items():
        if score is None:
            return None
        if score >= 0:
            kept[field] = score
    if function == "min" or not kept:
        return min(kept.values(), default=-1)
    products = [float(score * weights[field]) for field, score in kept.items()]
    return _numpy_sum(products) / _numpy_sum([float(weights[field]) for field in kept])


def mean_of_task(query_scores: Sequence[float | None]) -> float | None:
    """Sum of the scores that are not below 0, by the number of all queries; 0 without queries.

    None if a query is unscored: the task's mean is then not known.
    """
    if None in query_scores:
        return None
    return total_of_task(query_scores) / len(query_scores) if query_scores else 0.0


def total_of_task(query_scores: Sequence[float | None]) -> float:
    """Sum of the scores that are not below 0."""
    return sum_in_order(score for score in query_scores if score is not None and score >= 0)


def eval_type_of(metrics: Iterable[str]) -> EvalType:
    """`llm` if a field's metric needs a judge, else `rule`."""
    return "llm" if JUDGED_METRICS.intersection(metrics) else "rule"


def aggregate(
    task_results: Iterable[Mapping[str, Any]],
    task_meta: Mapping[str, Mapping[str, Any]] | None = None,
) -> Summary:
    """The official summary of tasks' results: `model_summary` and `keyword_stats`.

    Args:
        task_results: as `task_results.json` lists them; a later one of a name replaces an earlier.
        task_meta: dimensions by task name (default: those of MEGA-Bench). Tasks that it does not
            name are left out.
    """
    results = with_dimensions(task_results, task_meta)
    return Summary(
        model_summary=summarise_sets(list(results.values())),
        keyword_stats=keyword_stats(results.values()),
    )


def with_dimensions(
    task_results: Iterable[Mapping[str, Any]],
    task_meta: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Results joined with their dimensions, by name; tasks without dimensions are left out."""
    meta = official_dimensions() if task_meta is None else task_meta
    return {
        str(result["name"]): {**meta[result["name"]], **result}
        for result in task_results
        if result["name"] in meta
    }


def single_image(
    task_results: Iterable[Mapping[str, Any]],
    task_meta: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Mapping[str, Any]]:
    """The results of tasks with one image, core ones first: the single-image part of a full run."""
    meta = official_dimensions() if task_meta is None else task_meta
    kept = [
        result
        for result in task_results
        if result["name"] in meta and meta[result["name"]]["num_input"] == "1-image"
    ]
    return [result for kind in ("rule", "llm") for result in kept if result["eval_type"] == kind]


def summarise_sets(results: Sequence[Mapping[str, Any]]) -> ModelSummary:
    """Tasks, queries and macro mean of core and open, and the mean over all tasks."""
    core = _set_summary([result for result in results if result["eval_type"] != "llm"])
    open_ = _set_summary([result for result in results if result["eval_type"] == "llm"])
    overall = None
    if core is not None and open_ is not None:
        weighted = (
            core["macro_mean_score"] * core["num_eval_tasks"]
            + open_["macro_mean_score"] * open_["num_eval_tasks"]
        )
        overall = weighted / (core["num_eval_tasks"] + open_["num_eval_tasks"])
    return ModelSummary(core=core, open=open_, overall_score=overall)


def keyword_stats(results: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Keyword]]:
    """Mean score by keyword of each dimension; a task counts once for each of its skills."""
    stats: dict[str, dict[str, Keyword]] = {dimension: {} for dimension in DIMENSIONS}
    for result in results:
        if result["score"] == -1:
            continue
        num_samples = result["num_query"] + result["num_demo"]
        for dimension, key in DIMENSIONS.items():
            found: Any = result.get(key) or []
            for keyword in cast("list[str]", found if isinstance(found, list) else [found]):
                entry = stats[dimension].setdefault(
                    keyword, Keyword(count=0, num_samples=0, tasks=[], average_score=0.0)
                )
                entry["count"] += 1
                entry["num_samples"] += num_samples
                entry["average_score"] += result["score"]  # the sum, until it is divided below
    for keywords in stats.values():
        for entry in keywords.values():
            entry["average_score"] /= entry["count"]
    return stats


def application_tree(results: Iterable[Mapping[str, Any]]) -> list[Branch]:
    """Number of tasks and mean of their means at every node, each node before its branches."""
    sums: dict[tuple[str, ...], list[float]] = {}
    for result in results:
        path = tuple(result["taxonomy_tree_path"].split(";"))
        for depth in range(1, len(path) + 1):
            sums.setdefault(path[:depth], []).append(result["score"])
    return [
        Branch(path=path, count=len(scores), average_score=compensated_sum(scores) / len(scores))
        for path, scores in sorted(sums.items())
    ]


def sum_in_order(values: Iterable[float]) -> float:
    """The sum of the running totals, which Python's own `sum` gives before 3.12 only."""
    total = 0.0
    for value in values:
        total += value
    return total


def compensated_sum(values: Iterable[float]) -> float:
    """The sum as Python 3.12's `sum` gives it (Neumaier), on every version.

    The official figures were made with it; the plain sum of 440 scores differs in the last digit.
    """
    total, lost = 0.0, 0.0
    for value in values:
        new = total + value
        if abs(total) >= abs(value):
            lost += (total - new) + value
        else:
            lost += (value - new) + total
        total = new
    return total + lost if lost and math.isfinite(lost) else total


@lru_cache(maxsize=1)
def official_dimensions() -> dict[str, TaskDimensions]:
    """The dimensions of the 505 tasks.

    Source: TIGER-AI-Lab/MEGA-Bench, megabench/all_task_meta.json (Apache-2.0), less its counts of
    media, which nothing reads.
    """
    text = (
        resources.files("verifiers.megabench")
        .joinpath("task_meta.json")
        .read_text(encoding="utf-8")
    )
    return json.loads(text)


def _set_summary(results: Sequence[Mapping[str, Any]]) -> SetSummary | None:
    if not results:
        return None
    return SetSummary(
        num_eval_tasks=len(results),
        num_eval_samples=sum(result["num_query"] for result in results),
        macro_mean_score=compensated_sum(r["score"] for r in results) / len(results),
    )


def _numpy_sum(values: Sequence[float]) -> float:
    """The sum as numpy adds: from left to right while there are few."""
    if len(values) < _FEW:
        return sum_in_order(values)
    import numpy as np

    return float(np.sum(np.asarray(values, dtype=np.float64)))
