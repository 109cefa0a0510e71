"""A whole response file scored: rules in killable processes, judged tasks in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from data_specs.megabench import MegaQuery, MegaTask
from verifiers.megabench.aggregate import eval_type_of
from verifiers.megabench.crew import SCORE_LIMIT_S, Done, Group, run_all
from verifiers.megabench.files import (
    NOT_EVALUATED,
    QueryRecord,
    ResultFileError,
    Scores,
    TaskRecord,
    finish_task,
)
from verifiers.megabench.registry import Judge, Mode
from verifiers.megabench.score import score_response

JUDGE_THREADS = 8
"""Queries at the judge at a time."""


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """How a file is scored."""

    mode: Mode = "compat"
    workers: int = 1
    """Processes; 0 scores in this one, where nothing limits the time a query takes."""
    limit_s: float = SCORE_LIMIT_S
    """Longest time for one query, judged ones apart; beyond it the query is unscored."""
    judge_threads: int = JUDGE_THREADS
    media: Path = Path()
    """The folder that holds `data/`, for a judge that is shown the query's images."""


class _Shared(NamedTuple):
    task: MegaTask
    mode: Mode


class _Item(NamedTuple):
    query: MegaQuery
    response: str


def score_responses(
    tasks: Iterable[MegaTask],
    records: Sequence[TaskRecord],
    *,
    judge: Judge | None = None,
    options: ScoreOptions = ScoreOptions(),
    on_query: Callable[[int], None] = lambda done: None,
) -> None:
    """Sets the scores of every query and task of `records`, in place.

    As upstream does it, the reference is the one in the record; what the metric needs beside it
    comes from the dataset's query of the same index.

    Args:
        tasks: those of the dataset, at least the ones in the records.
        judge: for open tasks; without one their judged fields are unscored.
        on_query: called with the number of queries done so far.

    Raises: ResultFileError for a record that the dataset does not have.
    """
    known = {task.name: task for task in tasks}
    groups = [_group(known, record, options) for record in records]
    judged = [
        judge is not None and eval_type_of(_metrics(group.shared.task)) == "llm" for group in groups
    ]
    by_rule = [_kept(group, not is_judged) for group, is_judged in zip(groups, judged, strict=True)]
    by_judge = [_kept(group, is_judged) for group, is_judged in zip(groups, judged, strict=True)]
    done = 0
    for batch in (_run_rules(by_rule, options), _run_judge(by_judge, judge, options)):
        for result in batch:
            record = records[result.group]
            query = record["query_response"][result.item]
            query["scores"] = result.result or _unscored(known[record["task_name"]], result.failure)
            done += 1
            on_query(done)
    for record in records:
        finish_task(record, eval_type_of(_metrics(known[record["task_name"]])))


def unscored_reasons(records: Iterable[TaskRecord]) -> dict[str, dict[str, int]]:
    """Task -> reason -> number of its queries that are unscored for it."""
    found: dict[str, dict[str, int]] = {}
    for record in records:
        for query in record["query_response"]:
            unscored = query.get("scores", {}).get("unscored")
            for reason in set(unscored["reasons"].values()) if unscored else ():
                reasons = found.setdefault(record["task_name"], {})
                reasons[reason] = reasons.get(reason, 0) + 1
    return found


def missing_queries(tasks: Iterable[MegaTask], records: Iterable[TaskRecord]) -> dict[str, int]:
    """Task of the records -> number of its queries that have no response, where there are some."""
    answered = {record["task_name"]: len(record["query_response"]) for record in records}
    return {
        task.name: len(task.queries) - answered[task.name]
        for task in tasks
        if task.name in answered and len(task.queries) > answered[task.name]
    }


def _metrics(task: MegaTask) -> Iterable[str]:
    return task.field_metrics.values()


def _group(known: Mapping[str, MegaTask], record: TaskRecord, options: ScoreOptions) -> Group:
    task = known.get(record["task_name"])
    if task is None:
        raise ResultFileError(
            f"task {record['task_name']!r} of the responses is not in the dataset, which has "
            f"{len(known)} tasks; give the configuration that was asked"
        )
    by_index = {query.index: query for query in task.queries}
    items: list[_Item] = []
    for query in record["query_response"]:
        if query["query_idx"] not in by_index:
            raise ResultFileError(
                f"task {task.name!r}: the responses have query {query['query_idx']}, the dataset "
                f"{len(task.queries)} queries; give the dataset that was asked"
            )
        asked = _as_asked(by_index[query["query_idx"]], query, options.media)
        items.append(_Item(asked, query["response"]))
    return Group(_Shared(replace(task, queries=()), options.mode), items)


def _kept(group: Group, is_kept: bool) -> Group:
    return group if is_kept else Group(group.shared, ())


def _as_asked(query: MegaQuery, record: QueryRecord, media: Path) -> MegaQuery:
    images = record.get("images", query.media)
    return replace(
        query,
        answer=record["correct_answer"],
        text=record.get("query_text", query.text),
        media=tuple(str(media / path) for path in images),
    )


def _run_rules(groups: Sequence[Group], options: ScoreOptions) -> Iterator[Done]:
    if options.workers:
        yield from run_all(_score_by_rule, groups, workers=options.workers, limit_s=options.limit_s)
        return
    for number, group in enumerate(groups):
        for position, item in enumerate(group.items):
            yield Done(number, position, _score_by_rule(group.shared, item))


def _run_judge(
    groups: Sequence[Group], judge: Judge | None, options: ScoreOptions
) -> Iterator[Done]:
    places = [(n, p) for n, group in enumerate(groups) for p in range(len(group.items))]

    def work(place: tuple[int, int]) -> Done:
        group = groups[place[0]]
        return Done(*place, _score(group.shared, group.items[place[1]], judge))

    with ThreadPoolExecutor(options.judge_threads) as threads:
        yield from threads.map(work, places)


def _score_by_rule(shared: _Shared, item: _Item) -> Scores:
    return _score(shared, item, None)


def _score(shared: _Shared, item: _Item, judge: Judge | None) -> Scores:
    found = score_response(shared.task, item.query, item.response, judge, shared.mode)
    known = {name: score for name, score in found.fields.items() if score is not None}
    if found.score is None:
        return Scores(
            field={},
            info=dict(found.info),
            query=NOT_EVALUATED,
            unscored={"reasons": dict(found.unscored), "field": known},
        )
    return Scores(field=known, info=dict(found.info), query=found.score)


def _unscored(task: MegaTask, reason: str) -> Scores:
    return Scores(
        field={},
        info={},
        query=NOT_EVALUATED,
        unscored={"reasons": dict.fromkeys(task.field_metrics, reason), "field": {}},
    )
