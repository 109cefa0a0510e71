"""Counting: icons on gradients and scattered handwritten digits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.canvas import CHALK, DARK, gradient, pick, place
from tasks.digits import draw_digit, paste_digit
from tasks.icons import NAMES, draw_icon, paste_icon
from tasks.task import Question, Scene, Split, boxed, choose_questions
from tasks.wording import count_class

_TOTALS = (1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6)
_MAX_EACH = 4


def _counts(rng: np.random.Generator) -> list[int]:
    """Instances of the three classes asked for: at least one in all, at most six."""
    total = _TOTALS[int(rng.integers(len(_TOTALS)))]
    while True:
        num_present = (1, 2, 3, 3)[int(rng.integers(4))]
        counts = [0, 0, 0]
        for slot in rng.integers(num_present, size=total).tolist():
            counts[slot] += 1
        if max(counts) <= _MAX_EACH:
            return [counts[int(i)] for i in rng.permutation(3)]


def _questions(names: Sequence[str], counts: Sequence[int], every: str) -> list[Question]:
    offered = [boxed("count_all", count_class(every), sum(counts), "number")]
    offered += [
        boxed("count_class", count_class(name), count, "number")
        for name, count in zip(names, counts, strict=True)
    ]
    return offered


def openmoji_count(rng: np.random.Generator, split: Split) -> Scene:
    """One to six icons of up to three classes, 12 to 18 px."""
    while True:
        names = [NAMES[int(i)] for i in rng.permutation(len(NAMES))[:3]]
        counts = _counts(rng)
        labels = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
        icons = [draw_icon(rng, name, int(rng.integers(6, 10)) * 2, split) for name in labels]
        spots = place(rng, [icon.size for icon in icons])
        if spots is not None:
            break
    canvas = gradient(rng)
    objects = tuple(paste_icon(canvas, icon, spot) for icon, spot in zip(icons, spots, strict=True))
    questions = choose_questions(rng, _questions(names, counts, "icon"))
    return Scene(image=canvas, objects=objects, questions=questions)


def mnist_count(rng: np.random.Generator, split: Split) -> Scene:
    """One to six handwritten digits of up to three values, 14 to 18 px high."""
    while True:
        values = [int(i) for i in rng.permutation(10)[:3]]
        counts = _counts(rng)
        wanted = [value for value, count in zip(values, counts, strict=True) for _ in range(count)]
        digits = [draw_digit(rng, v, int(rng.integers(7, 10)) * 2, split) for v in wanted]
        spots = place(rng, [digit.size for digit in digits])
        if spots is not None:
            break
    canvas, ink = gradient(rng, DARK), pick(rng, CHALK)
    objects = tuple(
        paste_digit(canvas, digit, spot, ink) for digit, spot in zip(digits, spots, strict=True)
    )
    questions = choose_questions(rng, _questions([str(v) for v in values], counts, "digit"))
    return Scene(image=canvas, objects=objects, questions=questions)
