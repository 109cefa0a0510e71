"""Charts of real table rows: bars A to D and lines A to F, heights rounded to 1 to 9."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from tasks.canvas import Colour, draw, pick, plain, rectangle, snap, write
from tasks.fonts import draw_font
from tasks.tables import Run, bar_columns, stock_columns
from tasks.task import (
    Pixels,
    Question,
    Scene,
    SceneObject,
    Split,
    boxed,
    choose_questions,
)

_PAPER: tuple[Colour, ...] = ((255, 255, 255), (248, 248, 240), (240, 246, 252))
_FILL: tuple[Colour, ...] = (
    (60, 110, 200),
    (220, 100, 50),
    (60, 150, 80),
    (150, 80, 170),
    (190, 60, 70),
    (40, 140, 150),
)
_INK: Colour = (24, 24, 24)
_GRID: Colour = (208, 208, 208)
_LEFT, _BASE, _UNIT = 10, 54, 5
"""Left edge of the plot, its base line and the height of one unit, in pixels."""
_TOLERANCE = 0.05
_LETTERS = "ABCDEF"

Window = tuple[str, tuple[int, ...]]
"""Table and the integer heights of consecutive rows."""


def _heights(values: Sequence[float], top: int) -> tuple[int, ...]:
    """Values from zero up to `top`, at least 1."""
    largest = max(values)
    return tuple(max(1, round(top * value / largest)) for value in values)


def _unique(heights: Sequence[int]) -> bool:
    return heights.count(max(heights)) == 1 and heights.count(min(heights)) == 1


@lru_cache(maxsize=4)
def bar_windows(*, heldout: bool) -> dict[tuple[int, int], list[Window]]:
    """(number of bars, position of the highest) -> windows with one highest and one lowest."""
    found: dict[tuple[int, int], list[Window]] = {}
    for run in bar_columns(heldout=heldout):
        for start in range(len(run.values)):
            for count in (3, 4):
                part = run.values[start : start + count]
                if len(part) < count or min(part) <= 0:
                    continue
                heights = _heights(part, 9 - start % 4)
                if _unique(heights):
                    key = count, heights.index(max(heights))
                    found.setdefault(key, []).append((run.table, heights))
    return found


@lru_cache(maxsize=4)
def line_windows(*, heldout: bool) -> dict[tuple[int, bool], list[Window]]:
    """(number of points, rising?) -> windows of monthly prices, one highest, one lowest."""
    found: dict[tuple[int, bool], list[Window]] = {}
    for run in stock_columns(heldout=heldout):
        for count in (5, 6):
            for step in (1, 2, 3):
                for start in range(len(run.values) - (count - 1) * step):
                    _add_line(found, run, run.values[start::step][:count], start)
    return found


def _add_line(
    found: dict[tuple[int, bool], list[Window]], run: Run, values: Sequence[float], start: int
) -> None:
    bottom, top = 1 + start % 3, 9 - start // 3 % 3
    least, span = min(values), max(values) - min(values)
    heights = tuple(round(bottom + (top - bottom) * (v - least) / span) for v in values)
    if _unique(heights) and abs(heights[-1] - heights[0]) >= 2:
        found.setdefault((len(values), heights[-1] > heights[0]), []).append((run.table, heights))


def _axes(canvas: Pixels, font: str) -> list[SceneObject]:
    """Grid lines and axes; returns the printed marks."""
    marks: list[SceneObject] = []
    for height in range(1, 11):
        y = _BASE - height * _UNIT
        rectangle(canvas, (_LEFT, y, 64, y + 1), (160, 160, 160) if height % 5 == 0 else _GRID)
    for height in (1, 3, 5, 7, 9):
        y = _BASE - height * _UNIT + 4
        marks += write(canvas, str(height), 1, y, font=font, size=8, colour=_INK)
    rectangle(canvas, (_LEFT - 1, 2, _LEFT, _BASE + 1), _INK)
    rectangle(canvas, (_LEFT - 1, _BASE, 64, _BASE + 1), _INK)
    return marks


def _value(kind: str, text: str, height: int) -> Question:
    return boxed(kind, text, height, "number", relative_tolerance=_TOLERANCE)


def _extremes(heights: Sequence[int], what: str) -> list[Question]:
    return [
        boxed(f"{name}_{what}", f"which {what} is {name}?", _LETTERS[heights.index(height)], "text")
        for name, height in (("highest", max(heights)), ("lowest", min(heights)))
    ]


def vega_bars(rng: np.random.Generator, split: Split) -> Scene:
    """Three or four bars from consecutive rows of a real table."""
    windows = bar_windows(heldout=split.heldout)
    keys = sorted(windows)
    pool = windows[keys[int(rng.integers(len(keys)))]]
    _, heights = pool[int(rng.integers(len(pool)))]
    font = draw_font(rng, split, small=True)
    canvas = plain(pick(rng, _PAPER))
    objects = _axes(canvas, font)
    colour = pick(rng, _FILL)
    pitch = 52 // len(heights) // 2 * 2
    width = pitch - 4
    for position, height in enumerate(heights):
        x = _LEFT + 2 + position * pitch
        box = (x, _BASE - height * _UNIT, x + width, _BASE)
        rectangle(canvas, box, colour)
        objects.append(SceneObject(label="bar", box=snap(*box)))
        at = x + width // 2 - 3
        letter = _LETTERS[position]
        objects += write(canvas, letter, at, 63, font=font, size=9, colour=_INK)
    offered = _extremes(heights, "bar")
    offered += [
        _value("value", f"what is the value of {_LETTERS[i]}?", height)
        for i, height in enumerate(heights)
    ]
    questions = choose_questions(rng, offered, first=1)
    return Scene(image=canvas, objects=tuple(objects), questions=questions)


def stocks_lines(rng: np.random.Generator, split: Split) -> Scene:
    """Five or six monthly prices joined by a line; the points are lettered below."""
    windows = line_windows(heldout=split.heldout)
    keys = sorted(windows)
    pool = windows[keys[int(rng.integers(len(keys)))]]
    _, heights = pool[int(rng.integers(len(pool)))]
    font = draw_font(rng, split, small=True)
    canvas = plain(pick(rng, _PAPER))
    objects = _axes(canvas, font)
    colour = pick(rng, _FILL)
    pitch = 50 // len(heights)
    spots = [
        (_LEFT + 4 + pitch * position, _BASE - height * _UNIT)
        for position, height in enumerate(heights)
    ]
    image, pen = draw(canvas)
    pen.line(spots, fill=colour, width=1)
    canvas = np.array(image)
    for position, (x, y) in enumerate(spots):
        rectangle(canvas, (x - 2, y - 2, x + 2, y + 2), colour)
        objects.append(SceneObject(label="point", box=snap(x - 2, y - 2, x + 2, y + 2)))
        letter = _LETTERS[position]
        objects += write(canvas, letter, x - 3, 63, font=font, size=8, colour=_INK)
    trend = "rising" if heights[-1] > heights[0] else "falling"
    offered = [
        *_extremes(heights, "point"),
        boxed("trend", "is the line rising or falling overall?", trend, "text"),
        _value("value", "what is the value of the first point?", heights[0]),
        _value("value", "what is the value of the last point?", heights[-1]),
    ]
    questions = choose_questions(rng, offered)
    return Scene(image=canvas, objects=tuple(objects), questions=questions)
