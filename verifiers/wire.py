"""What a reward server and its clients say to each other: one batch as JSON, its verdicts back.

A request holds `items`, each a row and a response. A row stands in its item, or once in `rows`
with its index in the items, so that the rollouts of a group carry it once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, get_args

import orjson

from data_specs import DataSpecError, Sample, sample_from_row, sample_to_row, shorten
from verifiers.iou_rule import AveragedIou, FixedIou, IouRule, ScoreContext
from verifiers.verdict import UNSCORED, Status, Verdict

_STATUSES: frozenset[str] = frozenset(get_args(Status))
_SURROGATES = re.compile("[\ud800-\udfff]")


class WireError(ValueError):
    """An answer that is no list of verdicts on the request."""


def encode_row(sample: Sample) -> bytes:
    """The sample as a server reads it: V-Triune's columns as JSON, without the pictures.

    Raises: DataSpecError if a server would refuse the row.
    """
    try:
        row = sample_to_row(sample)
        sample_from_row(row, sample.where or "sample")
        return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)
    except (TypeError, RecursionError) as error:
        where = sample.where or "sample"
        raise DataSpecError(f"{where} (id {sample.id}): not to be said in JSON: {error}") from error


def encode_request(
    rows: Sequence[bytes],
    items: Sequence[tuple[int, str]],
    context: ScoreContext,
    request_id: str,
) -> bytes:
    """The body of one request.

    Args:
        rows: what `encode_row` gave.
        items: (index into rows, response); half a surrogate pair, which JSON cannot say, becomes
            the replacement character.
        context: progress and IoU rule.
        request_id: the same again whenever the same request is sent again.
    """
    content = {
        "request_id": request_id,
        "progress": context.progress,
        "iou_rule": rule_to_json(context.iou_rule),
        "rows": [orjson.Fragment(row) for row in rows],
        "items": [{"row": row, "response": response} for row, response in items],
    }
    try:
        return orjson.dumps(content)
    except TypeError:
        content["items"] = [
            {"row": row, "response": _SURROGATES.sub("\ufffd", response)} for row, response in items
        ]
        return orjson.dumps(content)


def encode_answer(verdicts: Sequence[Verdict], request_id: str | None, version: str) -> bytes:
    """The body of a server's answer; `version` is the package's."""
    return orjson.dumps(
        {
            "request_id": request_id,
            "server": "vl-triune",
            "version": version,
            "verdicts": [verdict.to_json() for verdict in verdicts],
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def checked(verdict: Verdict) -> Verdict:
    """The verdict, or a fault if it says what no verdict can: JSON knows no NaN."""
    problem = _impossible(verdict)
    if not problem:
        return verdict
    return replace(
        Verdict.unscored(f"verifier failed: {problem}"),
        verifier=verdict.verifier,
        version=verdict.version,
    )


def decode_answer(body: bytes, request_id: str, num_items: int) -> list[Verdict]:
    """The verdicts of an answer, in the order of the items.

    Raises: WireError if it is not the answer to this request or a verdict cannot be true.
    """
    try:
        content: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise WireError(f"an answer of {len(body)} bytes that is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise WireError(f"an answer {shorten(content)}; needed: an object with verdicts")
    answer = cast("dict[str, object]", content)
    if answer.get("request_id") != request_id:
        raise WireError(f"the answer to {shorten(answer.get('request_id'))}, not to {request_id!r}")
    verdicts = answer.get("verdicts")
    if not isinstance(verdicts, list):
        raise WireError(f"an answer whose verdicts are {shorten(verdicts)}; needed: a list")
    entries = cast("list[object]", verdicts)
    if len(entries) != num_items:
        raise WireError(f"{len(entries)} verdicts on {num_items} items")
    return [_read_verdict(index, entry) for index, entry in enumerate(entries)]


def rule_to_json(rule: IouRule) -> dict[str, Any]:
    """The rule as a request says it: its kind as `type`, and its numbers."""
    if isinstance(rule, FixedIou):
        return {"type": "fixed", "threshold": rule.threshold}
    if isinstance(rule, AveragedIou):
        return {"type": "averaged", "values": list(rule.values)}
    return {"type": "staged", "stages": [list(stage) for stage in rule.stages]}


def _read_verdict(index: int, entry: object) -> Verdict:
    if not isinstance(entry, dict):
        raise WireError(f"verdict {index} is {shorten(entry)}; needed: an object")
    try:
        verdict = Verdict.from_json(cast("Mapping[str, Any]", entry))
    except ValueError as error:
        raise WireError(f"verdict {index}: {error}") from error
    problem = _impossible(verdict)
    if problem:
        raise WireError(f"verdict {index}: {problem}")
    return verdict


def _impossible(verdict: Verdict) -> str:
    """What no verdict can say, but this one does; empty if nothing."""
    texts = (verdict.status, verdict.reason, verdict.verifier, verdict.version)
    parts = cast("object", verdict.parts)
    if not all(isinstance(cast("object", text), str) for text in texts):
        return "status, reason, verifier and version must be texts"
    if verdict.status not in _STATUSES:
        return f"status {verdict.status!r}; allowed: {', '.join(sorted(_STATUSES))}"
    if (verdict.status in UNSCORED) != (verdict.score is None):
        return f"status {verdict.status} with score {verdict.score!r}"
    if (verdict.score is None) != (verdict.reward is None):
        return f"score {verdict.score!r} with reward {verdict.reward!r}"
    for name in ("score", "format", "reward"):
        value: object = getattr(verdict, name)
        if value is not None and not (_is_number(value) and 0.0 <= cast("float", value) <= 1.0):
            return f"{name} {value!r}; allowed: 0 to 1, or null"
    if not isinstance(parts, Mapping) or not all(map(_is_number, verdict.parts.values())):
        return f"parts {shorten(cast('object', parts))}; allowed: names with numbers"
    if not _is_number(verdict.seconds) or verdict.seconds < 0:
        return f"seconds {verdict.seconds!r}; allowed: a number of at least 0"
    return ""


def _is_number(value: object) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
