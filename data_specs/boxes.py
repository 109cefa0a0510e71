"""A box with the coordinate space of its numbers, conversions between spaces, and the one `iou`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Space = Literal["pixel", "resized", "per_mille", "unit"]
"""Pixels of the original image, pixels of what the model saw, 0-1000, or 0-1."""

SPACES: tuple[str, ...] = get_args(Space)


@dataclass(frozen=True, slots=True)
class Box:
    """A labelled rectangle, corners (x1, y1) and (x2, y2), in one coordinate space.

    Raises: ValueError if a number is not finite or a corner pair is swapped. Boxes without area
    are legal; their iou with everything is 0.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    label: str
    space: Space

    def __post_init__(self) -> None:
        if not (
            math.isfinite(self.x1)
            and math.isfinite(self.y1)
            and self.x1 <= self.x2 < math.inf
            and self.y1 <= self.y2 < math.inf
        ):
            raise ValueError(
                f"box {self.corners} is not a rectangle: "
                "needs finite numbers with x1 <= x2 and y1 <= y2"
            )
        if self.space not in SPACES:
            raise ValueError(f"box space {self.space!r} is unknown; allowed: {', '.join(SPACES)}")

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """(x1, y1, x2, y2)."""
        return self.x1, self.y1, self.x2, self.y2

    @property
    def area(self) -> float:
        """Area in squared units of the space."""
        return (self.x2 - self.x1) * (self.y2 - self.y1)


def iou(a: Box, b: Box) -> float:
    """Intersection over union, in [0, 1]; 0 if both boxes have no area."""
    if a.space != b.space:
        raise ValueError(f"iou of a {a.space} box and a {b.space} box: convert one first")
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    union = a.area + b.area - intersection
    if not 0.0 < union < math.inf:  # boxes too small or too large for a float's square
        return 0.0
    return min(1.0, intersection / union)


def convert(
    box: Box,
    space: Space,
    *,
    image_size: tuple[int, int] | None = None,
    resized_size: tuple[int, int] | None = None,
) -> Box:
    """The same box in another space.

    Args:
        box: what to convert.
        space: where to.
        image_size: width and height of the original, px; needed from or to `pixel`.
        resized_size: width and height of what the model saw, px; needed from or to `resized`.
    """
    if space == box.space:
        return box
    from_width, from_height = _frame(box.space, image_size, resized_size)
    to_width, to_height = _frame(space, image_size, resized_size)
    return Box(
        box.x1 * to_width / from_width,
        box.y1 * to_height / from_height,
        box.x2 * to_width / from_width,
        box.y2 * to_height / from_height,
        box.label,
        space,
    )


def is_inside(
    box: Box,
    *,
    image_size: tuple[int, int] | None = None,
    resized_size: tuple[int, int] | None = None,
) -> bool:
    """Whether the box lies within its image; sizes as in `convert`."""
    width, height = _frame(box.space, image_size, resized_size)
    return box.x1 >= 0 and box.y1 >= 0 and box.x2 <= width and box.y2 <= height


def _frame(
    space: Space, image_size: tuple[int, int] | None, resized_size: tuple[int, int] | None
) -> tuple[float, float]:
    """Width and height of the whole image, measured in `space`."""
    if space == "unit":
        return 1.0, 1.0
    if space == "per_mille":
        return 1000.0, 1000.0
    name, size = ("image_size", image_size) if space == "pixel" else ("resized_size", resized_size)
    if size is None or size[0] <= 0 or size[1] <= 0:
        raise ValueError(f"boxes in {space} need {name}=(width, height) above 0; found {size!r}")
    return float(size[0]), float(size[1])
