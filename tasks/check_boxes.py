"""Whether reference boxes lie within the image and mean the coordinate space that is declared."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import cast

from data_specs import SPACES, Box, ImageHeader, Sample, Space
from tasks.check_fault import FIX, Fault
from verifiers import parse_boxes

_REFERENCE = "reward_model.ground_truth"
_NUMBER = r"\s*([+-]?[0-9]{1,12}(?:\.[0-9]{0,12})?)\s*"
_CORNERS = re.compile(rf"[\[(]{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}[\])]")
_REFERENCE_CHARS_MAX = 65_536  # longer ones are no list of boxes to the verifier either

_OVERSHOOT_MAX = 0.05  # a box that reaches further out, as a share of the side, has other units
_ROWS_MIN = 5
_CHANCE_MAX = 1e-4
_REACH_MIN = 0.7

Size = tuple[int, int]
"""Width and height, px."""


class BoxCheck:
    """Looks at the boxes of the rows of one file, row by row, and then at the file as a whole."""

    def __init__(self) -> None:
        self._objects: tuple[str, object] = ("", None)
        self._num_rows = 0
        self._chance = 0.0  # log10 of how likely it is that random per-mille boxes fit
        self._all_fit_pixels = True
        self._reach = 0.0

    def check(self, sample: Sample, header: ImageHeader | None) -> Iterator[Fault]:
        """What is wrong with the boxes of a row; `header` is that of its first image."""
        given = sample.extra.get("coordinate_space", "per_mille")
        if given not in SPACES:
            field, allowed = "extra_info.coordinate_space", ", ".join(SPACES)
            yield Fault("coordinate_space", field, given, allowed)
            return
        space = cast("Space", given)
        if sample.reward.verifier == "detection":
            yield from self._reference(sample, space, header)
        objects = sample.extra.get("objects")
        if objects is not None:
            problem = self._objects_problem(objects)
            if problem is not None:
                allowed = 'a JSON list of {"bbox_2d": [x1, y1, x2, y2] per mille, "label": text}'
                yield Fault("bad_objects", "extra_info.objects", problem, allowed)

    def file_fault(self) -> Fault | None:
        """Whether boxes that should be per mille look like pixels in the whole file.

        A box drawn at random in 0-1000 ends within a picture of 640 x 480 pixels, measured in
        pixels, with probability 0.31; that all of many rows do is no accident.
        """
        looks_like_pixels = (
            self._num_rows >= _ROWS_MIN
            and self._all_fit_pixels
            and self._chance <= math.log10(_CHANCE_MAX)
            and self._reach >= _REACH_MIN
        )
        if not looks_like_pixels:
            return None
        value = f"numbers within the pixels of the image in all {self._num_rows} box rows"
        remedy = "Set extra_info.coordinate_space to pixel, or convert the boxes to 0-1000"
        allowed = "per mille, 0 to 1000 whatever the size of the image"
        return Fault("box_space", _REFERENCE, value, allowed, remedy)

    def _reference(
        self, sample: Sample, space: Space, header: ImageHeader | None
    ) -> Iterator[Fault]:
        frame = _frame(space, sample.extra, header)
        if frame is None:
            field, side = (
                ("extra_info.resized_width", "resized_width and resized_height")
                if space == "resized"
                else ("extra_info.image_width", "image_width and image_height")
            )
            value = sample.extra.get(field.partition(".")[2])
            allowed = f"{side}, px, because coordinate_space is {space}"
            yield Fault("coordinate_space", field, value, allowed)
            return
        ground_truth = sample.reward.ground_truth
        inverted = _inverted(ground_truth)
        if inverted is not None:
            yield Fault("box_inverted", _REFERENCE, inverted, "x1 <= x2 and y1 <= y2")
            return
        boxes = parse_boxes(ground_truth, space)
        pixels = None if header is None else (header.width_px, header.height_px)
        fault = _box_fault(boxes, space, frame, pixels)
        if fault is not None:
            yield fault
        elif boxes and space == "per_mille" and pixels is not None:
            self._count(boxes, pixels)

    def _count(self, boxes: list[Box], pixels: Size) -> None:
        """Remembers whether the boxes could as well be pixels."""
        width, height = pixels
        reach = max(max(box.x2 / width, box.y2 / height) for box in boxes)
        self._num_rows += 1
        self._chance += math.log10(min(width, 1000) / 1000 * min(height, 1000) / 1000)
        self._reach = max(self._reach, reach)
        self._all_fit_pixels &= reach <= 1.0

    def _objects_problem(self, value: object) -> object:
        """The part of the dense annotation that is wrong, or None."""
        if isinstance(value, str) and value == self._objects[0]:
            return self._objects[1]
        problem = _objects_problem(value)
        if isinstance(value, str):
            self._objects = (value, problem)
        return problem


def _frame(
    space: Space, extra: Mapping[str, object], header: ImageHeader | None
) -> tuple[float, float] | None:
    """Largest x and y that a box may have; None if the row does not tell."""
    if space == "per_mille":
        return 1000.0, 1000.0
    if space == "unit":
        return 1.0, 1.0
    prefix = "resized" if space == "resized" else "image"
    width, height = (extra.get(f"{prefix}_{side}") for side in ("width", "height"))
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return float(width), float(height)
    if space == "pixel" and header is not None:
        return float(header.width_px), float(header.height_px)
    return None


def _inverted(ground_truth: str) -> tuple[float, ...] | None:
    """The first box with swapped corners, which readers of boxes leave out."""
    if len(ground_truth) > _REFERENCE_CHARS_MAX:
        return None
    for found in _CORNERS.finditer(ground_truth):
        x1, y1, x2, y2 = (float(number) for number in found.groups())
        if x1 > x2 or y1 > y2:
            return _plain((x1, y1, x2, y2))
    return None


def _box_fault(
    boxes: list[Box], space: Space, frame: tuple[float, float], pixels: Size | None
) -> Fault | None:
    """What is wrong with the first bad box."""
    largest = max((max(box.x2, box.y2) for box in boxes), default=0.0)
    if space != "unit" and 0 < largest <= 1:
        value = _shown(boxes[0])
        remedy = "Set extra_info.coordinate_space to unit, or convert the boxes"
        allowed = f"{space} numbers; all are at most 1, as in the space unit"
        return Fault("box_space", _REFERENCE, value, allowed, remedy)
    for box in boxes:
        if box.x1 < 0 or box.y1 < 0 or box.x2 > frame[0] or box.y2 > frame[1]:
            return _outside(box, boxes, space, frame, pixels)
        if box.area == 0:
            return Fault("box_empty", _REFERENCE, _shown(box), "a box with an area above 0")
    return None


def _outside(
    box: Box, boxes: list[Box], space: Space, frame: tuple[float, float], pixels: Size | None
) -> Fault:
    """A box beyond the image; if it is far beyond, perhaps all are in another space."""
    allowed = f"boxes within the image ({space}: 0 to {frame[0]:g} and 0 to {frame[1]:g})"
    overshoot = max(box.x2 / frame[0], box.y2 / frame[1]) - 1
    other = _space_that_fits(boxes, space, pixels) if overshoot > _OVERSHOOT_MAX else None
    if other is None:
        return Fault("box_outside", _REFERENCE, _shown(box), allowed, FIX)
    remedy = f"If the numbers are {other}, set extra_info.coordinate_space to {other}; else remove"
    return Fault("box_space", _REFERENCE, _shown(box), allowed, f"{remedy} the row")


def _space_that_fits(boxes: list[Box], space: Space, pixels: Size | None) -> Space | None:
    """Another space in which all boxes lie within the image."""
    frames: list[tuple[Space, Size]] = [("per_mille", (1000, 1000))]
    if pixels is not None:
        frames.insert(0, ("pixel", pixels))
    for name, (width, height) in frames:
        if name != space and all(
            box.x1 >= 0 and box.y1 >= 0 and box.x2 <= width and box.y2 <= height for box in boxes
        ):
            return name
    return None


def _shown(box: Box) -> tuple[object, ...]:
    return (*_plain(box.corners), box.label)


def _plain(numbers: tuple[float, ...]) -> tuple[float, ...]:
    """The numbers, whole ones without a point."""
    return tuple(int(value) if value == int(value) else value for value in numbers)


def _objects_problem(value: object) -> object:
    """The part of a dense annotation that is wrong, or None."""
    try:
        objects: object = json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        objects = None
    if not isinstance(value, str) or not isinstance(objects, list):
        return value
    items = cast("list[object]", objects)
    boxes = parse_boxes(value)
    if len(boxes) == len(items) and all(map(_is_named, boxes)):
        return None
    for item in items:
        boxes = parse_boxes(json.dumps([item]))
        if len(boxes) != 1 or not _is_named(boxes[0]):
            return item
    return None


def _is_named(box: Box) -> bool:
    """Whether the box has a label and lies within the picture."""
    return bool(box.label) and _is_within(box)


def _is_within(box: Box) -> bool:
    return min(box.corners) >= 0 and max(box.corners) <= 1000
