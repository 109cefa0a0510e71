"""Boxes of other formats as reference boxes: checked, cut to the image, in whole numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from data_specs.box_answer import Corners, box_items
from data_specs.boxes import Box, Space, convert
from data_specs.convert_images import LoadedImage
from data_specs.convert_log import Fault
from data_specs.sample import RewardSpec

BoxLayout = Literal["xywh", "xyxy"]
"""Corner and size, as COCO writes boxes, or two opposite corners."""

INSIDE_MIN = 0.9
"""Share of a box's area that must lie in the image for the rest to be cut off."""

_ACCURACY_RATIO, _FORMAT_RATIO = 0.9, 0.1  # as rows of `tasks` have them


@dataclass(frozen=True, kw_only=True)
class BoxRules:
    """How boxes are written, and which categories are left out for theirs.

    Source: arXiv 2505.18129, data curation, rules for detection; the paper has 10 and 0.5.
    """

    space: Literal["per_mille", "pixel"] = "per_mille"
    """Coordinate space of the rows."""
    boxes_max: int | None = None
    """Most boxes of one category or phrase in an image; None = any number."""
    box_frac_max: float | None = None
    """Largest area of a box, as a share of the image's, in (0, 1]; None = any."""

    def __post_init__(self) -> None:
        if self.boxes_max is not None and self.boxes_max < 1:
            raise ValueError(f"most boxes is {self.boxes_max}; allowed: 1 or more")
        if self.box_frac_max is not None and not 0.0 < self.box_frac_max <= 1.0:
            raise ValueError(f"largest box is {self.box_frac_max}; allowed: above 0, up to 1")


def read_corners(value: object, layout: BoxLayout) -> tuple[float, float, float, float]:
    """(x1, y1, x2, y2) of a box field.

    Raises: Fault if it is not four finite numbers, or has no area.
    """
    numbers = [_number(item) for item in cast("list[object]", value)] if _is_list(value) else []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise Fault("not a box", "bbox", value, f"four finite numbers, {layout}")
    x1, y1, x2, y2 = numbers
    if layout == "xywh":
        x2, y2 = x1 + x2, y1 + y2
    if x2 <= x1 or y2 <= y1:
        allowed = "width and height above 0" if layout == "xywh" else "x1 < x2 and y1 < y2"
        raise Fault("degenerate box", "bbox", value, allowed)
    return x1, y1, x2, y2


def place_box(
    corners: tuple[float, float, float, float],
    label: str,
    image: LoadedImage,
    *,
    rules: BoxRules,
    frame: tuple[float, float],
    given: Space = "pixel",
) -> tuple[Box, bool]:
    """The box in whole numbers of the rows' space, and whether a part was cut off.

    Args:
        corners: x1, y1, x2, y2 in the space `given`.
        label: what is in the box.
        image: where it is.
        rules: the space to write.
        frame: width and height that pixels refer to, px; the image's, or those it was annotated at.
        given: space of the corners.

    Raises: Fault if it lies outside the image, or is nothing after rounding.
    """
    width, height = {"unit": (1.0, 1.0), "per_mille": (1000.0, 1000.0)}.get(given, frame)
    x1, y1, x2, y2 = corners
    cut = (max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height))
    inside = max(0.0, cut[2] - cut[0]) * max(0.0, cut[3] - cut[1])
    if inside < INSIDE_MIN * (x2 - x1) * (y2 - y1):
        raise Fault(
            "box outside the image",
            "bbox",
            corners,
            f"at least {INSIDE_MIN:.0%} of it within {width:g} x {height:g} ({given})",
        )
    scaled = Box(cut[0] / width, cut[1] / height, cut[2] / width, cut[3] / height, label, "unit")
    exact = convert(scaled, rules.space, image_size=(image.width, image.height))
    x1, y1, x2, y2 = (float(round(value)) for value in exact.corners)
    whole = Box(x1, y1, x2, y2, label, rules.space)
    if whole.area == 0:
        raise Fault(
            "box too small", "bbox", corners, f"at least one whole {rules.space} wide and high"
        )
    return whole, cut != corners


def area_frac(box: Box, image: LoadedImage) -> float:
    """The box's share of the image, in [0, 1]."""
    return convert(box, "unit", image_size=(image.width, image.height)).area


def check_rules(boxes: Sequence[Box], image: LoadedImage, rules: BoxRules) -> None:
    """Raise Fault, by rule, if a category or phrase with these boxes is to be left out."""
    if rules.boxes_max is not None and len(boxes) > rules.boxes_max:
        raise Fault("too many boxes", "bbox", len(boxes), f"up to {rules.boxes_max}", by_rule=True)
    if rules.box_frac_max is not None:
        largest = max((area_frac(box, image) for box in boxes), default=0.0)
        if largest > rules.box_frac_max:
            allowed = f"up to {rules.box_frac_max:g} of the image"
            raise Fault("box too large", "bbox", f"{largest:.3f}", allowed, by_rule=True)


def box_reward(boxes: Sequence[Box]) -> RewardSpec:
    """The reference: all boxes in reading order, top first, then left; none is an empty list."""
    ordered = sorted(boxes, key=lambda box: (box.y1, box.x1, box.y2, box.x2, box.label))
    answer = f"[{box_items((box.label, _whole(box)) for box in ordered)}]"
    return RewardSpec(
        verifier="detection",
        answer=answer,
        ground_truth=f"<answer>{answer}</answer>",
        accuracy_ratio=_ACCURACY_RATIO,
        format_ratio=_FORMAT_RATIO,
        params={"det_verifier_normalized": False},
    )


def _whole(box: Box) -> Corners:
    x1, y1, x2, y2 = map(int, box.corners)
    return x1, y1, x2, y2


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _number(value: object) -> float:
    """The number, also if it is written as text; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan
