"""Boxes as an answer lists them, in V-Triune's spelling."""

from __future__ import annotations

from collections.abc import Iterable

Corners = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole numbers of the row's coordinate space."""


def box_items(items: Iterable[tuple[str, Corners]]) -> str:
    """(label, corners) pairs as the inside of an answer's list.

    A label with an apostrophe stands in double quotes, so that the list can be read again.
    """
    return ", ".join(f"{{'bbox_2d': {list(box)}, 'label': {label!r}}}" for label, box in items)
