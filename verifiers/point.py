"""Judges a click: 1 if the point, or the centre of the box, lies within a reference box.

Source: the accuracy of arXiv 2401.10935 (ScreenSpot).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from data_specs import Sample
from verifiers.answer import extract_answer
from verifiers.box_text import (
    BOXES_MAX,
    Corners,
    Limits,
    four_numbers,
    label_and_numbers,
    plain_numbers,
    read_entries,
)
from verifiers.boxes_frame import FRAME_PARAMS, check_frame_params, read_frame
from verifiers.boxes_row import References, answer_limits, fold_label, read_references
from verifiers.iou_rule import ScoreContext
from verifiers.params import ParamError, reject_unknown
from verifiers.verdict import Status, Verdict

VERSION = "1"

_KEYS = ("point_2d", "point", "bbox_2d", "bbox", "box_2d", "box")


class Point(NamedTuple):
    """A point, as corners that coincide, and the label that was given with it."""

    corners: Corners
    label: str
    """Folded; empty if there was none."""


def check_params(params: Mapping[str, object]) -> None:
    """Raise ParamError if a parameter is wrong."""
    reject_unknown(params, FRAME_PARAMS)
    check_frame_params(params)


def judge(sample: Sample, response: str, context: ScoreContext) -> Verdict:
    """1 if every point of the answer lies within a reference box, edges included, else 0."""
    try:
        frame = read_frame(sample)
    except ParamError as error:
        frame = str(error)
    if isinstance(frame, str):
        return Verdict.unscored(frame, status="bad_reference")
    references = read_references(sample.reward.ground_truth, frame)
    if isinstance(references, str):
        return Verdict.unscored(references, status="bad_reference")
    answer = extract_answer(response)
    if answer.text is None:
        return _verdict(references, [], answer.reason, answer.status)
    points = read_points(answer.text, answer_limits(frame, references))
    if points is None:
        return _verdict(references, [], f"{answer.text[:80]!r} is no point", "unparseable")
    brought = frame.bring([point.corners for point in points])
    return _verdict(
        references,
        [point._replace(corners=corners) for point, corners in zip(points, brought, strict=True)],
        "",
    )


def read_points(text: str, limits: Limits) -> list[Point] | None:
    """The points that an answer lists; None if it is no list, or no entry is a point.

    Args:
        text: the answer, without its tag.
        limits: numbers beyond them make no point.
    """
    entries = read_entries(text, _is_point)
    if entries is None or len(entries) > BOXES_MAX:
        return None
    points: list[Point] = []
    for entry in entries:
        label, numbers = label_and_numbers(entry, _KEYS)
        corners = _corners(numbers, limits)
        if corners is not None and isinstance(label, str | None):
            points.append(Point(corners, fold_label(label or "")))
    return None if entries and not points else points


def _corners(value: object, limits: Limits) -> Corners | None:
    """A point or a box as corners."""
    numbers = plain_numbers(value)
    return four_numbers([*numbers, *numbers] if len(numbers) == 2 else numbers, limits)


def _is_point(value: object) -> bool:
    """Whether a value has the shape of one point or one box."""
    return len(plain_numbers(value)) in (2, 4)


def _verdict(
    references: References, points: list[Point], problem: str, status: Status = "ok"
) -> Verdict:
    """The verdict on the points that an answer lists, or on an answer without any."""
    num_right = sum(_is_inside(point, references) for point in points)
    right = num_right == len(points) and bool(points) == bool(references.corners) and not problem
    parts = {
        "inside": num_right / len(points) if points else float(right),
        "num_pred": float(len(points)),
        "num_ref": float(len(references.corners)),
    }
    reason = problem
    if not right and not problem:
        reason = f"{num_right} of {len(points)} points within a box of the reference"
    # An empty list is the right form only where nothing is to be found.
    form = float(bool(points) or right)
    return Verdict.scored(float(right), format=form, reason=reason, status=status, parts=parts)


def _is_inside(point: Point, references: References) -> bool:
    """Whether the middle of the corners lies in a box that it may name."""
    x1, y1, x2, y2 = point.corners
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return any(
        left <= x <= right and top <= y <= bottom
        for (left, top, right, bottom), label in zip(
            references.corners, references.labels, strict=True
        )
        if not (label and point.label) or label == point.label
    )
