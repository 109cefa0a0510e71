"""The official files: responses (`all_query_responses.json`), scored responses, task results.

A file written here can be handed to upstream's evaluation, and one of theirs read here. An unscored
query is written as upstream writes one that it has not evaluated (query -1 and no fields), and its
task with a mean of -1, which upstream's tools leave out; what is known of it stands under
`unscored`, a key that upstream does not read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from verifiers.megabench.aggregate import (
    EvalType,
    Summary,
    TaskResult,
    compensated_sum,
    mean_of_task,
    total_of_task,
)

NOT_EVALUATED = -1
"""Query and task score of what has not been judged."""

_TASK_KEYS = ("task_name", "query_response")
_QUERY_KEYS = ("response", "correct_answer", "query_idx")


class UnscoredFields(TypedDict):
    """Why a query is unscored, and what is known of it."""

    reasons: dict[str, str]
    """Field -> why it could not be judged."""
    field: dict[str, float]
    """Scores of the other fields."""


class Scores(TypedDict):
    """What the evaluation adds to a query."""

    field: dict[str, float]
    """Field -> score, in [0, 1], or -1: not applicable."""
    info: dict[str, Any]
    """Field -> remarks of the metric."""
    query: float
    """In [0, 1], or -1: no field applies, or not evaluated."""
    unscored: NotRequired[UnscoredFields]


class QueryRecord(TypedDict):
    """A query with its response."""

    response: str
    correct_answer: dict[str, Any]
    global_idx: str
    query_idx: int
    images: list[str]
    query_text: str
    scores: NotRequired[Scores]


class ExampleInfo(TypedDict):
    """The one-shot example that was shown."""

    image_paths: list[str]
    example_text: str


class TaskRecord(TypedDict):
    """A task with its responses, and with its scores once they are there."""

    task_name: str
    global_description: str
    global_images: list[str]
    example_info: ExampleInfo
    query_response: list[QueryRecord]
    task_score: NotRequired[float]
    mean_task_score: NotRequired[float]
    eval_type: NotRequired[EvalType]


class ResultFileError(ValueError):
    """A file that is not in the official layout; the message says where, what and the remedy."""


def read_responses(path: str | Path) -> list[TaskRecord]:
    """The tasks of a response file, or of a scored one.

    Raises: ResultFileError if it is neither.
    """
    content: Any = read_json(path)
    tasks: Any = content["data"] if _has_data(content) else content
    if not isinstance(tasks, list):
        raise ResultFileError(
            f"{path}: found {_kind(content)}; allowed: a list of tasks, or a dict whose "
            "`data` is one. Give all_query_responses.json or data_with_scores.json"
        )
    for position, task in enumerate(cast("list[Any]", tasks)):
        _check_task(path, position, task)
    return cast("list[TaskRecord]", tasks)


def write_responses(path: str | Path, tasks: Sequence[TaskRecord]) -> None:
    """Writes a response file, whole or not at all; scores that the records hold are left out."""
    bare = [
        {key: value for key, value in task.items() if key not in _TASK_SCORES}
        | {
            "query_response": [
                {key: value for key, value in query.items() if key != "scores"}
                for query in task["query_response"]
            ]
        }
        for task in tasks
    ]
    write_json(path, bare)


def write_scored(path: str | Path, tasks: Sequence[TaskRecord]) -> None:
    """Writes `data_with_scores.json`: the scored tasks and the evaluator's own summary."""
    write_json(path, {"data": tasks, "summary": evaluator_summary(tasks)})


def finish_task(task: TaskRecord, eval_type: EvalType) -> None:
    """Sets the task's scores from those of its queries; -1 where one of them is unscored."""
    scores = [query_score(query) for query in task["query_response"]]
    mean = mean_of_task(scores)
    task["task_score"] = NOT_EVALUATED if mean is None else total_of_task(scores)
    task["mean_task_score"] = NOT_EVALUATED if mean is None else mean
    task["eval_type"] = eval_type


def query_score(query: QueryRecord) -> float | None:
    """The query's score, -1 where no field applies, None where it is unscored."""
    scores = query.get("scores")
    if scores is None or "query" not in scores or "unscored" in scores:
        return None
    if scores["query"] == NOT_EVALUATED and not scores["field"]:
        return None
    return scores["query"]


def task_results(tasks: Iterable[TaskRecord]) -> list[TaskResult]:
    """The evaluated tasks as `task_results.json` lists them."""
    return [
        TaskResult(
            name=task["task_name"],
            score=task["mean_task_score"],
            eval_type=task["eval_type"],
            num_demo=num_demo(task),
            num_query=len(task["query_response"]),
        )
        for task in tasks
        if "mean_task_score" in task
        and "eval_type" in task
        and task["mean_task_score"] != NOT_EVALUATED
    ]


def merge_results(files: Iterable[Sequence[TaskResult]]) -> list[TaskResult]:
    """The results of several files; of two with one name a judged one wins, else the first."""
    merged: dict[str, TaskResult] = {}
    for results in files:
        for result in results:
            before = merged.get(result["name"])
            is_judged = result["eval_type"] == "llm"
            if before is None or (is_judged and before["eval_type"] != "llm"):
                merged[result["name"]] = result
    return list(merged.values())


def read_results(path: str | Path) -> list[TaskResult]:
    """The task results of a scored file, of a `task_results.json`, or of a folder of scored files.

    Raises: ResultFileError if there are none.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("data_with_scores*.json"))
        if not files:
            raise ResultFileError(
                f"{path}: found no data_with_scores*.json; score the responses first: "
                "vl megabench score"
            )
        return merge_results(read_results(file) for file in files)
    content = read_json(path)
    if isinstance(content, list) and content and _is_result(cast("list[Any]", content)[0]):
        return cast("list[TaskResult]", content)
    results = task_results(read_responses(path))
    if not results:
        raise ResultFileError(
            f"{path}: found no task with a score; score the responses first: vl megabench score"
        )
    return results


def write_analysis(folder: Path, results: Sequence[TaskResult], summary: Summary) -> None:
    """Writes `task_results.json` and `summary_and_keyword_stats.json`, as upstream's tool does."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "task_results.json", results)
    write_json(folder / "summary_and_keyword_stats.json", summary)


def evaluator_summary(tasks: Sequence[TaskRecord]) -> dict[str, Any]:
    """Macro and micro means of rule and judged tasks, as the official evaluation appends them.

    Tasks that are not scored are counted as unevaluated; the official code has none.
    """
    kinds = ("rule", "llm")
    done = [task for task in tasks if task.get("mean_task_score", NOT_EVALUATED) != NOT_EVALUATED]
    names = {task["task_name"] for task in done}
    left = [task for task in tasks if task["task_name"] not in names]
    sums = {kind: {"task": 0.0, "query": 0.0, "samples": 0} for kind in kinds}
    for task in done:
        entry = sums[task.get("eval_type", "rule")]
        entry["task"] += task.get("mean_task_score", 0.0)
        entry["query"] += task.get("task_score", 0.0)
        entry["samples"] += num_demo(task) + len(task["query_response"])
    tasks_of = {kind: [task for task in done if task.get("eval_type") == kind] for kind in kinds}
    left_of = {kind: [task for task in left if task.get("eval_type") == kind] for kind in kinds}
    queries = {kind: _num_queries(tasks_of[kind]) for kind in kinds}
    macro = {k: sums[k]["task"] / len(tasks_of[k]) if tasks_of[k] else 0 for k in kinds}
    micro = {k: sums[k]["query"] / queries[k] if queries[k] else 0 for k in kinds}
    num_queries = sum(queries.values())
    total_task = compensated_sum(sums[kind]["task"] for kind in kinds)
    total_query = compensated_sum(sums[kind]["query"] for kind in kinds)
    return {
        "num_tasks_evaluated": {kind: len(tasks_of[kind]) for kind in kinds},
        "num_tasks_unevaluated": {kind: len(left_of[kind]) for kind in kinds},
        "num_queries_evaluated": queries,
        "num_queries_unevaluated": {kind: _num_queries(left_of[kind]) for kind in kinds},
        "num_samples_all": {kind: int(sums[kind]["samples"]) for kind in kinds},
        "macro_mean_score": macro,
        "micro_mean_score": micro,
        "overall_macro_mean_score": total_task / len(done) if done else 0,
        "overall_micro_mean_score": total_query / num_queries if num_queries else 0,
    }


def num_demo(task: TaskRecord) -> int:
    """1 if the task shows an example, else 0."""
    example = task["example_info"]
    return int(bool(example["example_text"] or example["image_paths"]))


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises: ResultFileError if it is none.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise ResultFileError(f"{path}: not JSON ({error}); allowed: an official file") from error


def write_json(path: str | Path, content: object) -> None:
    """Writes a JSON file as upstream does (UTF-8, indented by 4), whole or not at all."""
    path = Path(path)
    try:
        encoded = json.dumps(content, ensure_ascii=False, indent=4).encode()
    except UnicodeEncodeError:  # half a surrogate pair in a response: only escapes can say that
        encoded = json.dumps(content, indent=4).encode()
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(encoded)
    os.replace(part, path)


_TASK_SCORES = ("task_score", "mean_task_score", "eval_type")


def _check_task(path: str | Path, position: int, task: object) -> None:
    if not isinstance(task, dict) or any(key not in task for key in _TASK_KEYS):
        raise ResultFileError(
            f"{path} task {position}: found {_kind(cast('Any', task))}; "
            f"needed: {', '.join(_TASK_KEYS)}"
        )
    record = cast("dict[str, Any]", task)
    record.setdefault("global_description", "")
    record.setdefault("global_images", [])
    record.setdefault("example_info", {"image_paths": [], "example_text": ""})
    for number, query in enumerate(record["query_response"]):
        if not isinstance(query, dict) or any(key not in query for key in _QUERY_KEYS):
            raise ResultFileError(
                f"{path} task {record['task_name']!r} query {number}: "
                f"found {_kind(cast('Any', query))}; needed: {', '.join(_QUERY_KEYS)}"
            )


def _is_result(entry: object) -> bool:
    return isinstance(entry, Mapping) and {"name", "score", "eval_type"} <= set(
        cast("Mapping[str, Any]", entry)
    )


def _has_data(content: object) -> bool:
    return isinstance(content, dict) and "data" in content


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dict with {', '.join(map(str, cast('dict[Any, Any]', value))) or 'nothing'}"
    return f"a {type(value).__name__}"


def _num_queries(tasks: Iterable[TaskRecord]) -> int:
    return sum(len(task["query_response"]) for task in tasks)
