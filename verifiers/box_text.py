"""Boxes out of a model's text: JSON or Python style, fenced or cut off, never evaluated."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import NamedTuple, cast

from data_specs import Box, Space
from verifiers.answer import ANSWER_CHARS_MAX, extract_tag, without_fence

BOXES_MAX = 512
"""Answers with more boxes are not scored box by box."""

COORDINATE_MAX = 1e6
"""Largest coordinate that is taken for one."""

_DEPTH_MAX = 12
_BOX_KEYS = ("bbox_2d", "bbox", "box_2d", "box")
_OBJECT = re.compile(r"\{[^{}]{1,2000}\}")
_NUMBER = r"[+-]?(?:[0-9]{1,12}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:[eE][+-]?[0-9]{1,3})?"
_CORNERS = re.compile(
    rf"['\"](?:{'|'.join(_BOX_KEYS)})['\"]\s*:\s*"
    rf"[\[(]\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*[\])]"
)
_LABEL = re.compile(r"['\"]label['\"]\s*:\s*(['\"])(.{0,300}?)\1\s*(?=[,}])", re.DOTALL)
# The form our own rows have; found without the general parsers because it is so common.
_CANONICAL = re.compile(
    r"\{'bbox_2d': \[(\d{1,6}), (\d{1,6}), (\d{1,6}), (\d{1,6})\], 'label': '([^'\\{}]{0,300})'\}"
)


class ReadBoxes(NamedTuple):
    """What a text says about boxes."""

    boxes: tuple[Box, ...]
    """Well-formed boxes, each (box, label) once, in the order written."""
    num_malformed: int
    """Entries that are no boxes: wrong shape, swapped corners, infinite, no label."""
    is_list: bool
    """Whether the text was a list or an object at all; an empty list is."""
    is_too_many: bool = False
    """Whether there were more than BOXES_MAX entries; then `boxes` is empty."""


def parse_boxes(text: str, space: Space = "per_mille") -> list[Box]:
    """The boxes of a response, or of a bare list, for drawing; empty if there are none."""
    answer = extract_tag(text)
    return list(read_boxes(text if answer.text is None else answer.text, space).boxes)


def read_boxes(text: str, space: Space) -> ReadBoxes:
    """The boxes that a final answer lists; its numbers are taken to be in `space`."""
    text = without_fence(text)
    if len(text) > ANSWER_CHARS_MAX or text.count("{") > 4 * BOXES_MAX:
        return ReadBoxes((), 0, False, is_too_many=True)
    entries = _entries(text)
    if entries is None:
        return ReadBoxes((), 0, False)
    if len(entries) > BOXES_MAX:
        return ReadBoxes((), 0, True, is_too_many=True)
    boxes: dict[tuple[float, float, float, float, str], Box] = {}
    num_malformed = 0
    for entry in entries:
        box = _box(entry, space)
        if box is None:
            num_malformed += 1
        else:
            boxes.setdefault((*box.corners, " ".join(box.label.casefold().split())), box)
    return ReadBoxes(tuple(boxes.values()), num_malformed, True)


def _entries(text: str) -> list[object] | None:
    """The items of the list in the text; None if there is no list and no object."""
    canonical = _canonical(text)
    if canonical is not None:
        return canonical
    if not any(char in text for char in "[{"):
        return None
    value = _parsed(text) if _depth(text) <= _DEPTH_MAX else None
    if isinstance(value, dict):
        return [cast("object", value)]
    if isinstance(value, list | tuple):
        items = list(cast("list[object]", value))
        inner = items[0] if len(items) == 1 else None
        if isinstance(inner, list) and not _is_corner_list(cast("object", inner)):
            return cast("list[object]", inner)
        return items
    # Cut off, or with text around it: whole objects count.
    found = list(_salvaged(text))
    return found or None


def _canonical(text: str) -> list[object] | None:
    """The entries of `[{'bbox_2d': [..], 'label': '..'}, ...]` in exactly that spelling."""
    if text == "[]":
        return []
    if not (text.startswith("[{'bbox_2d'") and text.endswith("'}]")):
        return None
    entries: list[object] = []
    position = 1
    for found in _CANONICAL.finditer(text):
        if found.start() != position:
            return None
        x1, y1, x2, y2, label = found.groups()
        entries.append({"bbox_2d": [int(x1), int(y1), int(x2), int(y2)], "label": label})
        position = found.end()
        if text.startswith(", ", position):
            position += 2
    return entries if position == len(text) - 1 else None


def _parsed(text: str) -> object:
    """The text as JSON or else as a Python literal; None if it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _depth(text: str) -> int:
    """Deepest nesting of brackets, those within strings included."""
    depth = deepest = 0
    for char in re.findall(r"[\[\](){}]", text):
        depth += 1 if char in "[({" else -1
        deepest = max(deepest, depth)
    return deepest


def _salvaged(text: str) -> Iterator[object]:
    """Every whole `{...}` in the text that is an object, or looks like a box."""
    for found in _OBJECT.finditer(text):
        value = _parsed(found.group())
        if isinstance(value, dict):
            yield cast("object", value)
            continue
        corners, label = _CORNERS.search(found.group()), _LABEL.search(found.group())
        if corners and label:
            numbers = [float(number) for number in corners.groups()]
            yield {"bbox_2d": numbers, "label": label.group(2)}


def _box(entry: object, space: Space) -> Box | None:
    """One entry as a box, or None if it is none."""
    if not isinstance(entry, dict):
        return None
    record = cast("dict[object, object]", entry)
    label = record.get("label")
    corners = next((record[key] for key in _BOX_KEYS if key in record), None)
    if not isinstance(label, str) or not _is_corner_list(corners):
        return None
    x1, y1, x2, y2 = (float(value) for value in cast("list[int | float]", corners))
    if x1 > x2 or y1 > y2:
        return None
    return Box(x1, y1, x2, y2, label.strip(), space)


def _is_corner_list(value: object) -> bool:
    """Whether the value is four finite numbers."""
    if not isinstance(value, list | tuple):
        return False
    items = cast("list[object]", value)
    return len(items) == 4 and all(
        isinstance(item, int | float)
        and not isinstance(item, bool)
        and -COORDINATE_MAX <= item <= COORDINATE_MAX
        for item in items
    )
