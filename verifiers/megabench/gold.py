"""Gold answers as replies: what a perfect model says, to find tasks that do not give it 1.

Program tasks and fields whose reference is empty have no gold answer: they are passed over, as in
upstream's own check. So are open tasks, which only a judge can score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from data_specs.megabench import MegaQuery, MegaTask
from verifiers.megabench.aggregate import eval_type_of
from verifiers.megabench.convert import to_list
from verifiers.megabench.crew import SCORE_LIMIT_S, Done, Group, run_all
from verifiers.megabench.literals import unquoted
from verifiers.megabench.registry import NOT_APPLICABLE, Mode
from verifiers.megabench.score import score_response


class Imperfect(NamedTuple):
    """A query whose gold answer does not score 1."""

    task: str
    query_idx: int
    response: str
    fields: Mapping[str, float | str]
    """Field that lacks something -> its score, or why it is unscored."""


class _Shared(NamedTuple):
    task: MegaTask
    mode: Mode


def gold_response(task: MegaTask, query: MegaQuery) -> str:
    """The references as a model would give them; of several allowed phrases the first."""
    values = {
        name: _first_phrase(value) if task.field_metrics.get(name) == "multi_ref_phrase" else value
        for name, value in query.answer.items()
    }
    answer: Any = next(iter(values.values())) if len(values) == 1 else values
    if task.parser == "dummy":
        return str(answer)
    return f"I know the answer.\n\nAnswer: {answer}"


def check_gold(
    tasks: Iterable[MegaTask],
    *,
    mode: Mode = "compat",
    workers: int = 1,
    limit_s: float = SCORE_LIMIT_S,
    on_query: Callable[[int], None] = lambda done: None,
) -> list[Imperfect]:
    """Every query of a core task whose gold answer does not score 1, in the order of the dataset.

    Args:
        on_query: called with the number of queries done so far.
    """
    checked = [task for task in tasks if eval_type_of(task.field_metrics.values()) == "rule"]
    groups = [Group(_Shared(replace(task, queries=()), mode), task.queries) for task in checked]
    found: dict[tuple[int, int], Imperfect] = {}
    for number, done in enumerate(run_all(_lacking, groups, workers=workers, limit_s=limit_s)):
        imperfect = _imperfect(checked[done.group], done)
        if imperfect is not None:
            found[done.group, done.item] = imperfect
        on_query(number + 1)
    return [found[place] for place in sorted(found)]


def _lacking(shared: _Shared, query: MegaQuery) -> dict[str, float | str]:
    """Fields that the gold answer does not score 1 in."""
    task = shared.task
    scored = score_response(task, query, gold_response(task, query), mode=shared.mode)
    lacking: dict[str, float | str] = {}
    for name, score in scored.fields.items():
        has_gold = task.field_metrics.get(name) != "program_judge"
        if name in query.answer and unquoted(query.answer[name]) == "":
            has_gold = False
        if score is None:
            lacking[name] = scored.unscored[name]
        elif has_gold and score not in (1, NOT_APPLICABLE):
            lacking[name] = score
    return lacking


def _imperfect(task: MegaTask, done: Done) -> Imperfect | None:
    query = task.queries[done.item]
    fields = {"": done.failure} if done.failure else done.result
    if not fields:
        return None
    return Imperfect(task.name, query.index, gold_response(task, query), fields)


def _first_phrase(value: object) -> object:
    if not isinstance(value, str):
        return value
    phrases = to_list(value.replace("，", ","))
    return str(phrases[0]) if phrases else value
