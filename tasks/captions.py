"""A caption of a picture from its annotation: every object with its box, as one more row of SFT.

A question's answer holds one or two tokens that say something about the picture, a caption twenty
and more: a model trained from scratch learns to read pictures several times faster with it.
"""

from __future__ import annotations

import json
from typing import NamedTuple, cast

from data_specs import Sample
from data_specs.box_answer import box_items

QUESTION = "box everything."
MAX_OBJECTS = 6
"""Longer captions are cut: they cost compute and say nothing new."""
_BAND_PER_MILLE = 250
"""Objects whose centres lie in one such band are read from left to right."""


class Caption(NamedTuple):
    """A prompt and its answer in response form."""

    question: str
    answer: str


def caption(sample: Sample) -> Caption | None:
    """The first objects of the sample's picture in reading order; None without annotation."""
    raw = sample.extra.get("objects")
    objects: list[dict[str, object]] = json.loads(str(raw)) if raw else []
    items: list[tuple[str, tuple[int, int, int, int]]] = []
    for item in objects:
        x1, y1, x2, y2 = (int(value) for value in _numbers(item["bbox_2d"]))
        items.append((str(item["label"]), (x1, y1, x2, y2)))
    if not items:
        return None
    items.sort(key=lambda item: ((item[1][1] + item[1][3]) // 2 // _BAND_PER_MILLE, item[1][0]))
    return Caption(QUESTION, f"<answer>[{box_items(items[:MAX_OBJECTS])}]</answer>")


def _numbers(value: object) -> list[float]:
    assert isinstance(value, list)
    return [float(number) for number in cast("list[float]", value)]
