"""Boxes and points out of a model's text: JSON, Python's or Qwen's spelling, never evaluated."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

from data_specs import Box, Space
from verifiers.answer import ANSWER_CHARS_MAX, extract_tag, without_fence

# departs from V-Triune: upstream reads any number of boxes, and takes 37 s for 300.
BOXES_MAX = 512
"""Answers with more boxes are not scored box by box."""

Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2 with x1 <= x2 and y1 <= y2, all finite."""


class Limits(NamedTuple):
    """Where numbers must lie to be taken for coordinates."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


ANYWHERE = Limits(-1e6, -1e6, 1e6, 1e6)
"""The limits where the size of the picture is not known."""

# What Python's parser is given: it is slow on long lists, and recurses for brackets and signs.
_DEPTH_MAX = 12
_SIGNS_MAX = 4 * BOXES_MAX
_COMMAS_MAX = 16 * BOXES_MAX
_BOX_KEYS = ("bbox_2d", "bbox", "box_2d", "box")  # in all of them x1, y1, x2, y2
_NUMBER = r"[+-]?(?:[0-9]{1,12}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:[eE][+-]?[0-9]{1,3})?"
_FOUR = r"\s*,\s*".join([f"({_NUMBER})"] * 4)
_OBJECT = re.compile(r"\{[^{}]{1,2000}\}")
_BOX_IN_OBJECT = re.compile(rf"['\"](?:{'|'.join(_BOX_KEYS)})['\"]\s*:\s*[\[(]\s*{_FOUR}\s*[\])]")
_LABEL = re.compile(r"['\"]label['\"]\s*:\s*(['\"])(.{0,300}?)\1\s*(?=[,}])", re.DOTALL)
_BARE = re.compile(rf"[\[(]\s*{_FOUR}\s*[\])]")
# <|object_ref_start|>dog<|object_ref_end|><|box_start|>(10,20),(30,40)<|box_end|>; a label holds
# for the boxes up to the next label, and a box of one pair is a point.
_QWEN = re.compile(
    r"<\|object_ref_start\|>([^<]{0,300})<\|object_ref_end\|>|<\|box_start\|>([^<]{0,300})"
)
_PAIR = rf"\(\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\)"
_PAIRS = re.compile(rf"\s*{_PAIR}(?:\s*,\s*{_PAIR})?\s*")


class ReadBoxes(NamedTuple):
    """What a text says about boxes."""

    corners: list[Corners]
    """Of the well-formed boxes, in the order written; the same box may come twice."""
    labels: list[str | None]
    """As written; empty if the entry has none, None for bare numbers without an entry."""
    space: Space
    num_malformed: int = 0
    """Entries that are no boxes: wrong shape, swapped corners, outside the limits, ..."""
    is_list: bool = True
    """Whether the text was a list or an object at all; an empty list is."""
    is_too_many: bool = False
    """Whether there were more than BOXES_MAX entries; then there are no boxes."""

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The boxes, each (box, label) once."""
        both = dict.fromkeys(zip(self.corners, self.labels, strict=True))
        return tuple(Box(*corners, (label or "").strip(), self.space) for corners, label in both)


def parse_boxes(text: str, space: Space = "per_mille") -> list[Box]:
    """The boxes of a response, or of a bare list, for drawing; empty if there are none."""
    answer = extract_tag(text)
    return list(read_boxes(text if answer.text is None else answer.text, space).boxes)


def read_boxes(text: str, space: Space = "per_mille", limits: Limits = ANYWHERE) -> ReadBoxes:
    """The boxes that a final answer lists.

    Args:
        text: the answer, without its tag.
        space: what its numbers refer to.
        limits: numbers beyond them make no box.
    """
    entries = read_entries(text, _is_box)
    if entries is None or len(entries) > BOXES_MAX:
        return ReadBoxes([], [], space, is_list=False, is_too_many=entries is not None)
    corners: list[Corners] = []
    labels: list[str | None] = []
    for entry in entries:
        label, numbers = label_and_numbers(entry, _BOX_KEYS)
        if not isinstance(label, str | None):
            continue
        found = four_numbers(numbers, limits)
        if found is not None:
            corners.append(found)
            labels.append(label)
    return ReadBoxes(corners, labels, space, num_malformed=len(entries) - len(corners))


def read_entries(text: str, is_one: Callable[[object], bool]) -> Sequence[object] | None:
    """The items that an answer lists; None if it is no list, no object and no Qwen box.

    A list of more than BOXES_MAX items may be cut off behind one more.

    Args:
        text: the answer, without its tag.
        is_one: whether a value is one item, so that a list of it is not taken apart.
    """
    text = without_fence(text)
    if len(text) > ANSWER_CHARS_MAX:
        return [None] * (BOXES_MAX + 1)
    if "<|box_start|>" in text:
        return list(_qwen_entries(text))
    if not any(char in text for char in "[{("):
        return None
    value = _parsed(text)
    if isinstance(value, dict):
        return [cast("object", value)]
    if isinstance(value, list | tuple):
        items = list(cast("list[object]", value))
        if is_one(items):
            return [items]
        inner = items[0] if len(items) == 1 else None
        if isinstance(inner, list | tuple) and not is_one(cast("object", inner)):
            return list(cast("list[object]", inner))
        return items
    if text.count("{") + text.count("[") > 4 * BOXES_MAX:
        return [None] * (BOXES_MAX + 1)
    # Cut off, or with words around it: whole objects count, without any the whole bare boxes.
    found = list(_salvaged(text))
    if found or "{" in text:
        return found or None
    return [[float(number) for number in match] for match in _BARE.findall(text)] or None


def label_and_numbers(entry: object, keys: Sequence[str]) -> tuple[object, object]:
    """An entry's label, empty if it has none and None if the entry is no object; its numbers."""
    if not isinstance(entry, dict):
        return None, entry
    record = cast("dict[str, object]", entry)
    numbers = record.get(keys[0])
    if numbers is None:
        numbers = next((record[key] for key in keys if key in record), None)
    return record.get("label") or "", numbers


def four_numbers(value: object, limits: Limits) -> Corners | None:
    """`[x1, y1, x2, y2]`, or `((x1, y1), (x2, y2))`, as corners; None if it is no box."""
    numbers = _flat(value)
    if len(numbers) != 4:
        return None
    x1, y1, x2, y2 = numbers
    x_min, y_min, x_max, y_max = limits
    # NaN fails every comparison.
    if x_min <= x1 <= x2 <= x_max and y_min <= y1 <= y2 <= y_max:
        return x1, y1, x2, y2
    return None


def plain_numbers(value: object) -> Sequence[float]:
    """The numbers of a list; empty if there is anything else in it."""
    if not isinstance(value, list | tuple):
        return ()
    items = cast("Sequence[object]", value)
    for item in items:
        # departs from V-Triune: not isinstance, since true and false are no numbers.
        if type(item) not in _NUMBER_TYPES:
            return ()
    return cast("Sequence[float]", items)


_NUMBER_TYPES = (int, float)


def _flat(value: object) -> Sequence[float]:
    """The numbers of a list or of a list of two pairs."""
    numbers = plain_numbers(value)
    if numbers or not isinstance(value, list | tuple):
        return numbers
    items = cast("Sequence[object]", value)
    pairs = [plain_numbers(item) for item in items] if len(items) == 2 else []
    return [*pairs[0], *pairs[1]] if [len(pair) for pair in pairs] == [2, 2] else ()


def _is_box(value: object) -> bool:
    """Whether a value has the shape of one box."""
    return len(_flat(value)) == 4


def _qwen_entries(text: str) -> Iterator[object]:
    """The boxes between Qwen's marks, as objects; as bare numbers if no label came before."""
    label: str | None = None
    for found in _QWEN.finditer(text):
        if found.group(1) is not None:
            label = found.group(1)
            continue
        pairs = _PAIRS.fullmatch(found.group(2))
        numbers = [float(number) for number in pairs.groups() if number] if pairs else []
        yield numbers if label is None else {"bbox_2d": numbers, "label": label}


def _parsed(text: str) -> object:
    """The text as JSON or else as a Python literal; None if it is neither."""
    # departs from V-Triune: upstream swaps the quotes of any text, which breaks labels with an
    # apostrophe, and reads neither fenced lists nor single objects.
    # Many times faster than Python's own parser, and without double quotes and backslashes the
    # two spellings of a string differ in the quotes alone.
    swap = "'" in text and '"' not in text and "\\" not in text
    try:
        return json.loads(text.replace("'", '"') if swap else text)
    except (ValueError, RecursionError):
        pass
    if text.count("-") + text.count("+") > _SIGNS_MAX or text.count(",") > _COMMAS_MAX:
        return None
    if _depth(text) > _DEPTH_MAX:
        return None
    try:
        with warnings.catch_warnings():
            # Python remarks on `10or` or a lone backslash; what a model writes is nobody's news
            warnings.simplefilter("ignore")
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
        corners, label = _BOX_IN_OBJECT.search(found.group()), _LABEL.search(found.group())
        if corners and label:
            numbers = [float(number) for number in corners.groups()]
            yield {"bbox_2d": numbers, "label": label.group(2)}
