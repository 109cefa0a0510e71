"""A batch as several requests; the rows that no request can carry get their verdict here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple
from uuid import uuid4

from data_specs import DataSpecError, Sample
from verifiers.iou_rule import ScoreContext
from verifiers.verdict import Verdict
from verifiers.wire import encode_request, encode_row

CHARS_PER_REQUEST_MAX = 4_000_000
"""Most characters of rows and responses in one request; JSON makes up to six bytes of one."""


class BatchRequest(NamedTuple):
    """One request of a batch."""

    request_id: str
    body: bytes
    indices: list[int]
    """Which items of the batch it holds, in order."""


class Split(NamedTuple):
    """A batch, split."""

    requests: list[BatchRequest]
    unsendable: dict[int, Verdict]
    """Index of the item -> bad_reference."""


def split_batch(
    items: Sequence[tuple[Sample, str]], context: ScoreContext, items_max: int
) -> Split:
    """Requests of at most `items_max` items each; samples that repeat are carried once."""
    rows: dict[int, bytes | str] = {}
    unsendable: dict[int, Verdict] = {}
    requests: list[BatchRequest] = []
    chosen: list[int] = []
    num_chars = 0
    for index, (sample, response) in enumerate(items):
        row = rows.get(id(sample))
        if row is None:
            row = rows[id(sample)] = _row_or_problem(sample)
        if isinstance(row, str):
            refused = Verdict.unscored(row, status="bad_reference")
            unsendable[index] = replace(refused, verifier=sample.reward.verifier)
            continue
        size = len(row) + len(response)
        if chosen and (len(chosen) == items_max or num_chars + size > CHARS_PER_REQUEST_MAX):
            requests.append(_request(items, rows, chosen, context))
            chosen, num_chars = [], 0
        chosen.append(index)
        num_chars += size
    if chosen:
        requests.append(_request(items, rows, chosen, context))
    return Split(requests, unsendable)


def _row_or_problem(sample: Sample) -> bytes | str:
    """The row as JSON, or as a text why a server would refuse it."""
    try:
        return encode_row(sample)
    except DataSpecError as error:
        return str(error)


def _request(
    items: Sequence[tuple[Sample, str]],
    rows: dict[int, bytes | str],
    chosen: list[int],
    context: ScoreContext,
) -> BatchRequest:
    places: dict[int, int] = {}
    carried: list[bytes] = []
    pairs: list[tuple[int, str]] = []
    for index in chosen:
        sample, response = items[index]
        place = places.get(id(sample))
        if place is None:
            place = places[id(sample)] = len(carried)
            row = rows[id(sample)]
            assert isinstance(row, bytes)
            carried.append(row)
        pairs.append((place, response))
    request_id = uuid4().hex
    return BatchRequest(request_id, encode_request(carried, pairs, context, request_id), chosen)
