"""Detection: box every instance of a class, icons or handwritten digits."""

from __future__ import annotations

import numpy as np

from tasks.canvas import CHALK, DARK, gradient, pick, place
from tasks.digits import draw_digit, paste_digit
from tasks.icons import NAMES, draw_icon, paste_icon
from tasks.task import NUM_QUESTIONS, Question, Scene, SceneObject, Split, boxes
from tasks.wording import box_classes

_MAX_ALL = 3
"""`box every icon.` is asked only of scenes with at most this many."""


def _labels(rng: np.random.Generator, names: tuple[str, ...]) -> list[str]:
    """Three or four classes; one of them may stand twice in the scenes with four."""
    num_classes = int(rng.integers(3, 5))
    drawn = [names[int(i)] for i in rng.permutation(len(names))[:num_classes]]
    if num_classes == NUM_QUESTIONS and rng.random() < 0.6:
        drawn.append(drawn[0])
    return drawn


def _questions(objects: tuple[SceneObject, ...], every: str) -> tuple[Question, ...]:
    labels = list(dict.fromkeys(item.label for item in objects))
    asked = [
        boxes(
            "box_class",
            box_classes([label]),
            [item for item in objects if item.label == label],
            label,
        )
        for label in labels
    ]
    if len(asked) < NUM_QUESTIONS:
        asked.append(boxes("box_all", box_classes([every]), objects, every))
    return tuple(asked)


def openmoji_detect(rng: np.random.Generator, split: Split) -> Scene:
    """Three to five icons, 14 to 26 px."""
    while True:
        labels = _labels(rng, NAMES)
        top = 14 if len(labels) <= _MAX_ALL else 12
        icons = [draw_icon(rng, name, int(rng.integers(7, top)) * 2, split) for name in labels]
        spots = place(rng, [icon.size for icon in icons])
        if spots is not None:
            break
    canvas = gradient(rng)
    objects = tuple(paste_icon(canvas, icon, spot) for icon, spot in zip(icons, spots, strict=True))
    return Scene(image=canvas, objects=objects, questions=_questions(objects, "icon"))


def mnist_detect(rng: np.random.Generator, split: Split) -> Scene:
    """Three to five handwritten digits, 14 to 24 px high."""
    while True:
        labels = _labels(rng, tuple("0123456789"))
        digits = [draw_digit(rng, int(v), int(rng.integers(7, 13)) * 2, split) for v in labels]
        spots = place(rng, [digit.size for digit in digits])
        if spots is not None:
            break
    canvas, ink = gradient(rng, DARK), pick(rng, CHALK)
    objects = tuple(
        paste_digit(canvas, digit, spot, ink) for digit, spot in zip(digits, spots, strict=True)
    )
    return Scene(image=canvas, objects=objects, questions=_questions(objects, "digit"))
