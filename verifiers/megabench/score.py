"""One reply scored: parsed, each field by its metric, the fields' scores aggregated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from data_specs.megabench import MegaQuery, MegaTask
from verifiers.megabench.aggregate import aggregate_fields
from verifiers.megabench.kinds import is_dict
from verifiers.megabench.literals import unquoted
from verifiers.megabench.parse import parse_reply
from verifiers.megabench.registry import (
    METRICS,
    Judge,
    JudgedReply,
    Mode,
    Scored,
    Unscored,
    find_metric,
)


@dataclass(frozen=True, kw_only=True)
class QueryScore:
    """What a reply to one query is worth."""

    score: float | None
    """In [0, 1]; -1 if no field counts; None if a field that counts is unscored."""
    fields: Mapping[str, float | None]
    """Field, global auxiliary ones too -> score; -1: not applicable; None: unscored."""
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What some metrics say beside the score."""
    unscored: Mapping[str, str] = field(default_factory=dict[str, str])
    """Field without a score -> why: no judge, no table, a limit of ours, a faulty row."""
    parsed: object = None
    """What the parser made of the reply."""


class _Asked(NamedTuple):
    """What the metrics of one query look at."""

    task: MegaTask
    query: MegaQuery
    response: str
    parsed: object
    judge: Judge | None
    mode: Mode


def score_response(
    task: MegaTask | Mapping[str, Any],
    query: MegaQuery | Mapping[str, Any],
    response: str | None,
    judge: Judge | None = None,
    mode: Mode = "compat",
) -> QueryScore:
    """The score of one reply, field by field.

    Args:
        task: a task of the dataset, or its `metric_info`.
        query: a query of the dataset, or a mapping with `correct_answer` (field -> reference) and,
            where the metrics need them, `eval_context`, `query_text` and `images`.
        response: the whole reply; None is an empty one.
        judge: asks a judge; without one judged fields are unscored.
    """
    task, query = _as_task(task), _as_query(query)
    response = response or ""
    fields = list(query.answer)
    parsed = parse_reply(
        task.parser, response, fields, is_single_line=_is_single_line(query.answer), mode=mode
    )
    asked = _Asked(task, query, response, parsed, judge, mode)
    scores: dict[str, float | None] = {}
    info: dict[str, Any] = {}
    unscored: dict[str, str] = {}
    for name, metric, prediction, reference in _fields_to_score(asked):
        try:
            result = _call(asked, metric, prediction, reference)
        except Unscored as error:
            scores[name], unscored[name] = None, str(error)
            continue
        if isinstance(result, Scored):
            if result.info is not None:
                info[name] = result.info
            result = result.score
        scores[name] = result
    return QueryScore(
        score=aggregate_fields(task.aggregation, scores, task.field_weights),
        fields=scores,
        info=info,
        unscored=unscored,
        parsed=parsed,
    )


def _fields_to_score(asked: _Asked) -> list[tuple[str, str, object, object]]:
    """Field, metric, prediction and reference of each score; the auxiliary ones see all."""
    parsed, answer = asked.parsed, asked.query.answer
    todo: list[tuple[str, str, object, object]] = []
    for name, reference in answer.items():
        metric = asked.task.field_metrics.get(name)
        if metric is None or metric.lower() == "unsupported":
            continue
        prediction = parsed.get(name) if is_dict(parsed) else parsed
        todo.append((name, metric.lower(), prediction, unquoted(reference)))
    for name, metric in asked.task.aux_metrics.items():
        todo.append((name, metric.lower(), parsed, answer))
    return todo


def _call(asked: _Asked, name: str, prediction: object, reference: object) -> float | Scored:
    function = find_metric(name)
    if function is None:
        known = ", ".join(sorted(METRICS))
        raise Unscored(f"task {asked.task.name!r}: metric {name!r} is not known; known: {known}")
    context = asked.query.eval_context
    match METRICS[name].form:
        case "reference":
            return function(prediction, reference, mode=asked.mode)
        case "context":
            return function(prediction, context, mode=asked.mode)
        case "reply_and_context":
            return function(asked.parsed, context, mode=asked.mode)
        case "judged":
            reply = JudgedReply(
                prediction=prediction,
                response=asked.response,
                reference=reference,
                references=asked.query.answer,
                query_text=asked.query.text,
                images=asked.query.media,
                eval_context=context,
                config=asked.task.judge_config,
            )
            return function(reply, asked.judge, mode=asked.mode)


def _is_single_line(answer: Mapping[str, Any]) -> bool:
    """Whether the first answer field's reference has no line break."""
    references = [value for name, value in answer.items() if not name.startswith("##")]
    return bool(references) and "\n" not in str(references[0])


def _as_task(task: MegaTask | Mapping[str, Any]) -> MegaTask:
    if isinstance(task, MegaTask):
        return task
    info = dict(task.get("metric_info", task))
    info.setdefault("response_parse_function", info.get("parser"))
    return MegaTask(name=str(task.get("task_name", "")), metric_info=info)


def _as_query(query: MegaQuery | Mapping[str, Any]) -> MegaQuery:
    if isinstance(query, MegaQuery):
        return query
    return MegaQuery(
        id=str(query.get("global_idx", "")),
        index=int(query.get("query_idx", 0)),
        text=str(query.get("query_text", "")),
        media=tuple(query.get("images", ())),
        answer=query["correct_answer"],
        eval_context=query.get("eval_context", {}),
    )
