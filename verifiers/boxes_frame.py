"""What the numbers of a row's boxes refer to: the coordinate space, and the way between two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

from data_specs import SPACES, Sample, Space
from verifiers.box_text import ANYWHERE, Corners, Limits
from verifiers.params import ParamError, flag, one_of

FRAME_PARAMS = ("predicted_space", "det_verifier_normalized", "image_grid_thw")
"""Parameters of a row that say what the answer's numbers refer to."""

# departs from V-Triune: upstream takes any numbers for boxes, however far outside.
TOLERANCE = 0.01
"""How far beyond the picture's edge, as a share of its side, a number still makes a box."""

Size = tuple[float, float]


class Frame(NamedTuple):
    """How to bring a row's reference and an answer to it into one space."""

    space: Space
    """What the reference's numbers refer to; answers are brought there."""
    is_declared: bool
    """False if the row does not say so and per mille is taken."""
    size: Size | None
    """Width and height of the picture in that space; None if the row does not tell."""
    predicted: Limits
    """Where the answer's numbers must lie, as they are written."""
    predicted_size: Size | None = None
    """Width and height of the picture in the answer's space; None if that is the reference's."""
    to_whole: bool = False
    """Whether the answer's numbers, once converted, are cut to whole ones."""

    @property
    def limits(self) -> Limits:
        """Where the reference's numbers must lie."""
        return _limits(self.size)

    def bring(self, corners: list[Corners]) -> list[Corners]:
        """An answer's boxes in the reference's space."""
        if self.size is None or self.predicted_size is None:
            return corners
        (w, h), (of_w, of_h) = self.size, self.predicted_size
        brought = [
            (x1 * w / of_w, y1 * h / of_h, x2 * w / of_w, y2 * h / of_h)
            for x1, y1, x2, y2 in corners
        ]
        if not self.to_whole:
            return brought
        return [(int(x1), int(y1), int(x2), int(y2)) for x1, y1, x2, y2 in brought]


def check_frame_params(params: Mapping[str, object]) -> Space | None:
    """The space that the parameters declare for the answer; None if they leave it to the row.

    Raises: ParamError if one is wrong or two contradict each other.
    """
    space = None
    if params.get("predicted_space") is not None:
        space = cast("Space", one_of(params, "predicted_space", SPACES, "per_mille"))
    if not flag(params, "det_verifier_normalized", False):
        return space
    if space not in (None, "resized"):
        raise ParamError(
            f"parameter predicted_space is {space!r} while det_verifier_normalized says resized; "
            "allowed: one of the two, or 'resized'"
        )
    return "resized"


def read_frame(sample: Sample) -> Frame | str:
    """The row's frame, or what the row lacks.

    Raises: ParamError if a parameter is wrong.
    """
    params, extra = sample.reward.params, sample.extra
    declared = extra.get("coordinate_space") or None
    if declared is not None and declared not in SPACES:
        return f"extra coordinate_space is {declared!r}; allowed: {', '.join(SPACES)}"
    space = cast("Space", declared or "per_mille")
    predicted = check_frame_params(params) or space
    size = _size(space, params, extra)
    if predicted == space:
        return Frame(space, declared is not None, size, _limits(size))
    seen = _size(predicted, params, extra)
    if size is None or seen is None:
        missing = space if size is None else predicted
        prefix = "image" if missing == "pixel" else "resized"
        return (
            f"answers in {predicted} against a reference in {space} need the picture's size in "
            f"{missing}: give extra {prefix}_width and {prefix}_height"
        )
    return Frame(
        space,
        declared is not None,
        size,
        _limits(seen),
        seen,
        # Upstream's references are whole per mille, so its answers are cut to them as well.
        params.get("det_verifier_normalized") is True and space == "per_mille",
    )


def _limits(size: Size | None) -> Limits:
    """The picture and TOLERANCE around it."""
    if size is None:
        return ANYWHERE
    x, y = size[0] * TOLERANCE, size[1] * TOLERANCE
    return Limits(-x, -y, size[0] + x, size[1] + y)


def _size(space: Space, params: Mapping[str, object], extra: Mapping[str, object]) -> Size | None:
    """Width and height of the picture in a space; None if the row does not tell."""
    if space == "unit":
        return 1.0, 1.0
    if space == "per_mille":
        return 1000.0, 1000.0
    if space == "resized":
        grid = params.get("image_grid_thw")  # upstream's name; holds pixels, [[1, height, width]]
        if isinstance(grid, list | tuple) and grid:
            first = cast("list[object]", grid)[0]
            if isinstance(first, list | tuple) and len(cast("list[object]", first)) == 3:
                _, height, width = cast("list[object]", first)
                if _is_length(width) and _is_length(height):
                    return float(cast("int", width)), float(cast("int", height))
    # A row that says nothing of resizing shows its picture as it is.
    for prefix in ("resized", "image")[space == "pixel" :]:
        width, height = extra.get(f"{prefix}_width"), extra.get(f"{prefix}_height")
        if _is_length(width) and _is_length(height):
            return float(cast("int", width)), float(cast("int", height))
    return None


def _is_length(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9
