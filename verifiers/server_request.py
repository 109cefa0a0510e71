"""The reading of a request: the batch it holds, or a list of what is wrong with it.

A body is read whole before anything is judged, and if any of it is malformed, nothing is: a
malformed item is never scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import orjson
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from data_specs import DataSpecError, Sample, sample_from_row, shorten
from verifiers.iou_rule import ScoreContext
from verifiers.server_schema import PROBLEMS_SHOWN_MAX, Problem, Refusal, ScoreRequest


class RefusedRequest(ValueError):
    """A request of which nothing is judged."""

    def __init__(self, code: int, error: str, problems: list[Problem] | None = None) -> None:
        super().__init__(error)
        self.code = code
        """HTTP status."""
        self.refusal = Refusal(
            error=error,
            num_problems=len(problems or ()),
            problems=(problems or [])[:PROBLEMS_SHOWN_MAX],
        )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A request, read."""

    items: list[tuple[Sample, str]]
    context: ScoreContext
    request_id: str | None


def read_request(body: bytes, *, items_max: int) -> Batch:
    """The batch that a body holds.

    Raises: RefusedRequest if any of it cannot be used: 400 no JSON, 413 too many items, 422
    anything else.
    """
    try:
        content: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusedRequest(400, f"the body is no JSON: {error}") from error
    if isinstance(content, dict):
        given: object = cast("dict[str, object]", content).get("items")
        if isinstance(given, list) and len(cast("list[object]", given)) > items_max:
            raise RefusedRequest(
                413,
                f"{len(cast('list[object]', given))} items in one request; "
                f"allowed: up to {items_max}. Send them in several",
            )
    try:
        request = ScoreRequest.model_validate(content)
    except ValidationError as error:
        raise _refused([_problem(detail) for detail in error.errors(include_url=False)]) from error
    rule = request.iou_rule
    context = ScoreContext(progress=request.progress)
    if rule is not None:
        context = ScoreContext(progress=request.progress, iou_rule=rule.rule())
    return Batch(items=_items(request), context=context, request_id=request.request_id)


def _items(request: ScoreRequest) -> list[tuple[Sample, str]]:
    """(sample, response) of every item."""
    problems: list[Problem] = []
    shared = [
        _sample(row, index, None, f"rows[{index}]", problems)
        for index, row in enumerate(request.rows)
    ]
    items: list[tuple[Sample, str]] = []
    for index, item in enumerate(request.items):
        if isinstance(item.row, int):
            if item.row >= len(shared):
                allowed = f"the index of one of {len(shared)} rows, from 0"
                problems.append(
                    Problem(item=index, field="row", value=str(item.row), allowed=allowed)
                )
                continue
            sample = shared[item.row]
        else:
            sample = _sample(item.row, index, index, "row", problems)
        if sample is not None:
            items.append((sample, item.response))
    if problems:
        raise _refused(problems)
    return items


def _sample(
    row: dict[str, object], number: int, item: int | None, field: str, problems: list[Problem]
) -> Sample | None:
    """The row as a sample; None, and one problem more, if it cannot be used."""
    found, allowed = "", ""
    if row.get("images"):
        field, found = f"{field}.images", "pictures"
        allowed = "none: rewards are judged by text alone, leave them out"
    else:
        try:
            sample = None if _is_deep(row) else sample_from_row(row, "request", number)
            if sample is not None and not _is_deep(sample.reward.params):
                return sample
            found, allowed = "nested too deeply", "up to 254 levels"
        except DataSpecError as error:
            if error.problem is not None:
                field = f"{field}.{error.problem.field}"
                found, allowed = error.problem.value, error.problem.allowed
        except RecursionError:
            found, allowed = "nested too deeply", "up to 254 levels"
    problems.append(Problem(item=item, field=field, value=found, allowed=allowed))
    return None


def _is_deep(record: Mapping[str, object]) -> bool:
    """Whether the record is nested deeper than 254 times, where pickling it might fail."""
    try:
        orjson.dumps(record)
    except TypeError as error:
        return "recursion" in str(error).lower()
    return False


def _problem(detail: ErrorDetails) -> Problem:
    """One finding of pydantic's in our words."""
    path, item = list(detail["loc"]), None
    if len(path) > 1 and path[0] == "items" and isinstance(path[1], int):
        item, path = path[1], path[2:]
        if path[:1] == ["row"]:
            path = ["row"]  # what follows is the alternative that pydantic tried
    return Problem(
        item=item,
        field=".".join(map(str, path)),
        value="missing" if detail["type"] == "missing" else shorten(detail["input"]),
        allowed="a row as an object, or its index in rows" if path == ["row"] else _allowed(detail),
    )


def _allowed(detail: ErrorDetails) -> str:
    kind, limits = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        return "a value"
    if kind == "extra_forbidden":
        return "no field of this name"
    if kind in ("model_type", "dict_type"):
        return "an object"
    if kind.endswith("too_short"):
        return f"a length of at least {limits.get('min_length')}"
    if kind.endswith("too_long"):
        return f"a length of at most {limits.get('max_length')}"
    return detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")


def _refused(problems: list[Problem]) -> RefusedRequest:
    """The refusal that lists the problems, each once."""
    listed = list({(problem.item, problem.field): problem for problem in problems}.values())
    first = listed[0]
    place = first.field
    if first.item is not None:
        place = f"items[{first.item}].{first.field}" if first.field else f"items[{first.item}]"
    more = f" (and {len(listed) - 1} more)" if len(listed) > 1 else ""
    error = (
        f"{place or 'the body'} is {first.value}; allowed: {first.allowed}{more}. "
        "Nothing of the request was judged"
    )
    return RefusedRequest(422, error, listed)
