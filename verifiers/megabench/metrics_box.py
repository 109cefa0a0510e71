"""Metrics on boxes and points, with coordinates that run from 0 to 1 across the image."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from numbers import Number
from typing import Any, cast

from verifiers.megabench.convert import metric
from verifiers.megabench.literals import NOT_LITERAL, python_literal
from verifiers.megabench.metrics_dict import over_all_keys
from verifiers.megabench.registry import Mode, Scored

COORDS_DECAY = 10
"""How fast `sequence_coords_similarity` falls with the distance, in image diagonals."""

_POINT = re.compile(r"<point>(.*?)</point>")
_BOX = re.compile(r"<box>(.*?)</box>")

_UNFIT = (ArithmeticError, LookupError, TypeError, ValueError)


@metric
def nbbox_iou_tuple(prediction: object, reference: object, mode: Mode) -> float:
    """Mean over the predicted boxes of the best IoU with a reference box; without any 0."""
    return _mean_best_iou(_boxes(prediction, mode), _boxes(reference, mode), mode)


@metric
def nbbox_iou_single(prediction: Any, reference: Any, mode: Mode) -> float:
    """IoU of two boxes, each the text of four numbers; 0 for a box that is no text."""
    if mode == "sound" and isinstance(prediction, (list, tuple)):
        prediction = str(cast(object, prediction))
    expected = python_literal(_text(reference))
    return _mean_best_iou([python_literal(_text(prediction))], [expected], mode)


@metric
def nbbox_iou_sequence(prediction: object, reference: object, mode: Mode) -> float:
    """Mean IoU of boxes in order; 0 if their numbers differ, NaN if there are none."""
    is_text = not isinstance(prediction, (list, tuple))
    predicted = _boxes(str(prediction) if is_text else cast(object, prediction), mode)
    expected = _boxes(reference, mode)
    if len(predicted) != len(expected):
        return 0
    if not predicted:
        return math.nan
    pairs = zip(predicted, expected, strict=True)
    return sum(_best_iou(box, [other], mode) for box, other in pairs) / len(predicted)


@metric
def dict_nbbox_iou_tuple_agg_jaccard(prediction: object, reference: object, mode: Mode) -> float:
    """Mean over the keys of either dict of `nbbox_iou_tuple`; a missing key is an empty list."""

    def rule(item: object, other: object) -> float:
        # Unlike nbbox_iou_tuple: text that cannot be read raises, and the whole scores 0.
        return _mean_best_iou(_boxes(item, mode), _boxes(other, mode), mode)

    return over_all_keys(rule, prediction, reference, mode)


@metric
def xml_nbbox_iou_single(prediction: object, reference: object, mode: Mode) -> float:
    """As `nbbox_iou_tuple`, of boxes written `<box>x1, y1, x2, y2</box>`."""
    predicted, expected = _tagged_boxes(prediction), _tagged_boxes(reference)
    if len(predicted) == 4 and isinstance(predicted[0], Number):
        predicted = [predicted]
    ious = [_best_iou(box, expected, mode) for box in predicted]
    return sum(ious) / len(ious) if ious else 0


@metric
def xml_norm_point_distance(prediction: object, reference: object, mode: Mode) -> float:
    """1 - distance of two points `<point>x, y</point>`, at least 0; 0 outside of the image."""
    del mode
    one, other = _tagged_point(prediction), _tagged_point(reference)
    if one is None or other is None:
        return 0
    if any(len(end) != 2 or not all(0 <= part <= 1 for part in end) for end in (one, other)):
        return 0
    (x, y), (other_x, other_y) = one, other
    return max(0, 1 - math.sqrt((x - other_x) ** 2 + (y - other_y) ** 2))


@metric  # pyright: ignore[reportArgumentType]  # a score with what there is to say
def xml_norm_point_in_bbox(
    prediction: object, eval_context: dict[str, Any], mode: Mode
) -> float | Scored:
    """1 if the point `<point>x, y</point>` lies in a box or on its edge; info says in which."""
    texts: list[str] = eval_context["bounding_boxes"]
    inside = dict.fromkeys(texts, False)
    boxes = [tuple(_boxes(text, mode)[0]) for text in texts]
    point = _tagged_point(prediction)
    if not boxes:
        return 0
    if point is None or len(point) != 2:
        return Scored(0, inside)
    x, y = point
    for box in boxes:
        left, top, right, bottom = box
        if left <= x <= right and top <= y <= bottom:
            inside[str(box)] = True
            return Scored(1, inside)
    return Scored(0, inside)


@metric
def sequence_coords_similarity(prediction: object, reference: object, mode: Mode) -> float:
    """Mean over points in order of exp(-10 distance / diagonal); 0 if their numbers differ."""
    del mode
    predicted, expected = _points(prediction), _points(reference)
    if not predicted or len(predicted) != len(expected):
        return 0
    scores = [
        math.exp(-COORDS_DECAY * math.sqrt(dx * dx + dy * dy) / math.sqrt(2))
        for (x, y), (other_x, other_y) in zip(predicted, expected, strict=True)
        for dx, dy in [(float(x - other_x), float(y - other_y))]
    ]
    return sum(scores) / len(scores)


def _mean_best_iou(predicted: Sequence[Any], expected: Sequence[Any], mode: Mode) -> float:
    try:
        ious = [_best_iou(box, expected, mode) for box in predicted]
    except _UNFIT:
        return 0
    return sum(ious) / len(ious) if ious else 0


def _best_iou(box: Any, others: Sequence[Any], mode: Mode) -> float:
    """Largest IoU with one of the others; 0 without any."""
    best = 0
    for other in others:
        best = max(best, _iou(box, other, mode))
    return best


def _iou(box: Any, other: Any, mode: Mode) -> float:
    """Intersection over union of two boxes x1, y1, x2, y2 as they come.

    upstream: a box whose corners are in the wrong order on both axes has a positive area.
    """
    if mode == "sound" and any(one[0] > one[2] or one[1] > one[3] for one in (box, other)):
        return 0
    width = max(0, min(box[2], other[2]) - max(box[0], other[0]))
    height = max(0, min(box[3], other[3]) - max(box[1], other[1]))
    overlap = width * height
    areas = [(one[2] - one[0]) * (one[3] - one[1]) for one in (box, other)]
    union = areas[0] + areas[1] - overlap
    return overlap / union if union > 0 else 0


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"no text: {value!r}")
    return value


def _boxes(value: object, mode: Mode) -> Sequence[Any]:
    """A list as it is; of a text the boxes it holds, four numbers alone being one box."""
    if isinstance(value, (list, tuple)):
        native = cast(Sequence[Any], value)
        is_one = len(native) == 4 and all(isinstance(part, (int, float)) for part in native)
        return [native] if is_one and mode == "sound" else native
    if not isinstance(value, str):
        return []
    found: Any = _literal_or_json(value, NOT_LITERAL)
    if len(found) == 4 and isinstance(found[0], Number):
        found = [found]
    return _rows(found, 4) if isinstance(found, (list, tuple)) else []


def _points(value: object) -> Sequence[Any]:
    """Pairs of numbers; a list that holds anything else has none."""
    if isinstance(value, (list, tuple)):
        native = cast(Sequence[Any], value)
        return native if len(_rows(native, 2)) == len(native) else []
    if not isinstance(value, str):
        return []
    return _rows(_literal_or_json(value, SyntaxError), 2)


def _rows(values: Any, length: int) -> list[Any]:
    """The lists and tuples of so many numbers among the values."""
    return [
        row
        for row in values
        if isinstance(row, (list, tuple))
        and len(cast(Sequence[Any], row)) == length
        and all(isinstance(part, (int, float)) for part in cast(Sequence[Any], row))
    ]


def _literal_or_json(text: str, unread: Any) -> Any:
    """A Python literal; if reading it raises `unread`, JSON; if that fails too, nothing."""
    try:
        return python_literal(text)
    except unread:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return []


def _tagged_boxes(value: object) -> Sequence[Any]:
    if isinstance(value, (list, tuple)):
        return cast(Sequence[Any], value)
    read = (_floats(inside, 4) for inside in _BOX.findall(value)) if isinstance(value, str) else ()
    return [box for box in read if box is not None]


def _tagged_point(value: object) -> Sequence[Any] | None:
    """The coordinates of the only point; of a list its elements. None: none, or several."""
    if isinstance(value, (list, tuple)):
        return cast(Sequence[Any], value)
    found = _POINT.findall(value) if isinstance(value, str) else []
    return _floats(found[0], 2) if len(found) == 1 else None


def _floats(text: str, count: int) -> tuple[float, ...] | None:
    parts = text.split(",")
    if len(parts) != count:
        return None
    try:
        return tuple(float(part.strip()) for part in parts)
    except ValueError:
        return None
