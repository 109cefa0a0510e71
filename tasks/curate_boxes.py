"""Rules about boxes: relative coordinates, how many, how large, and what they are called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from data_specs import SPACES, Box, Sample, Space, convert
from data_specs.box_answer import box_items
from tasks.curate_rule import Drop, Params, Seen, image_size
from verifiers import parse_boxes

_CLAUSE = re.compile(r"[,;:]|\b(?:that|which|who|whose|whom|while|without|not|except)\b", re.I)
_SIDE = 1000


def reference_boxes(sample: Sample) -> list[Box] | None:
    """The reference's boxes, per mille; None if the row does not tell how to convert them."""
    given = sample.extra.get("coordinate_space") or "per_mille"
    if given not in SPACES:
        return None
    space = cast("Space", given)
    boxes = parse_boxes(sample.reward.ground_truth, space)
    if space in ("per_mille", "unit"):
        return [convert(box, "per_mille") for box in boxes]
    size = _stated_size(sample, space) or image_size(sample)
    if size is None:
        return None
    frame = {"image_size": size} if space == "pixel" else {"resized_size": size}
    return [convert(box, "per_mille", **frame) for box in boxes]


def make_relative(sample: Sample, params: Params, seen: Seen) -> Sample | Drop:
    """Reference boxes in pixels or shares become per mille."""
    del params, seen
    if sample.reward.verifier != "detection":
        return sample
    if (sample.extra.get("coordinate_space") or "per_mille") == "per_mille":
        return sample
    boxes = reference_boxes(sample)
    if not boxes:
        return Drop("the boxes cannot be read, or the picture's size is not known")
    corners = [_whole(box) for box in boxes]
    if any(x1 >= x2 or y1 >= y2 for x1, y1, x2, y2 in corners):
        return Drop("a box has no area in whole per mille of the picture")
    items = box_items((box.label, whole) for box, whole in zip(boxes, corners, strict=True))
    reward = replace(sample.reward, answer=f"[{items}]", ground_truth=f"<answer>[{items}]</answer>")
    extra = {**sample.extra, "coordinate_space": "per_mille"}
    return replace(sample, reward=reward, extra=extra)


def drop_crowded(sample: Sample, params: Params, seen: Seen) -> Sample | Drop:
    """Rows with more than `max_boxes` boxes of one category."""
    del seen
    counts = Counter(box.label.casefold() for box in reference_boxes(sample) or ())
    for label, count in counts.most_common(1):
        if count > params["max_boxes"]:
            return Drop(f"{count} boxes of {label!r}; most {params['max_boxes']:g}")
    return sample


def drop_large_box(sample: Sample, params: Params, seen: Seen) -> Sample | Drop:
    """Rows with a box over `max_share` of the picture."""
    del seen
    share = max((box.area / _SIDE**2 for box in reference_boxes(sample) or ()), default=0.0)
    if share <= params["max_share"]:
        return sample
    return Drop(f"a box covers {share:.0%} of the picture; most {params['max_share']:.0%}")


def drop_complex_label(sample: Sample, params: Params, seen: Seen) -> Sample | Drop:
    """Labels of more than `max_words` words, or with a clause, a list or a negation."""
    del seen
    for box in reference_boxes(sample) or ():
        num_words = len(box.label.split())
        if num_words > params["max_words"]:
            most = f"most {params['max_words']:g}"
            return Drop(f"the label {box.label[:60]!r} has {num_words} words; {most}")
        found = _CLAUSE.search(box.label)
        if found:
            return Drop(f"the label {box.label[:60]!r} is a phrase with {found.group()!r}")
    return sample


def box_labels(sample: Sample) -> tuple[str, ...]:
    """The different categories of the reference, sorted."""
    return tuple(sorted({box.label.casefold() for box in reference_boxes(sample) or ()}))


def single_or_multi(sample: Sample) -> tuple[str, ...]:
    """`single` if no category has more than one box, else `multi`."""
    counts = Counter(box.label.casefold() for box in reference_boxes(sample) or ())
    if not counts:
        return ()
    return ("single",) if max(counts.values()) == 1 else ("multi",)


def _stated_size(sample: Sample, space: Space) -> tuple[int, int] | None:
    prefix = "image" if space == "pixel" else "resized"
    sides = [sample.extra.get(f"{prefix}_{side}") for side in ("width", "height")]
    width, height = sides
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return width, height
    return None


def _whole(box: Box) -> tuple[int, int, int, int]:
    """Corners in whole per mille within the picture."""
    corners: Sequence[int] = [min(_SIDE, max(0, round(value))) for value in box.corners]
    x1, y1, x2, y2 = corners
    return x1, y1, x2, y2
