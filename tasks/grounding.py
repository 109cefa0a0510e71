"""Grounding: box the one object that a phrase singles out, by place, size or colour."""

from __future__ import annotations

import numpy as np

from tasks.canvas import Colour, gradient, place
from tasks.digits import draw_digit, paste_digit
from tasks.icons import NAMES, draw_icon, paste_icon
from tasks.task import Question, Scene, SceneObject, Split, boxes, choose_questions
from tasks.wording import box_phrase

TINTS: dict[str, Colour] = {
    "red": (255, 60, 60),
    "green": (60, 220, 80),
    "blue": (90, 130, 255),
    "yellow": (255, 235, 60),
    "pink": (255, 130, 220),
    "white": (255, 255, 255),
}
"""Inks of `mnist_colour`, told apart easily on dark boards."""
_BOARDS: tuple[Colour, ...] = ((16, 16, 20), (32, 28, 32), (24, 30, 34))
_MARGIN_PX = 8
"""Least difference between centres for left/right and upper/lower to be asked."""


def _centre(item: SceneObject) -> tuple[float, float]:
    x1, y1, x2, y2 = item.box
    return (x1 + x2) / 2, (y1 + y2) / 2


def _one(kind: str, text: str, item: SceneObject) -> Question:
    return boxes(kind, text, [item], item.label)


def _relations(objects: tuple[SceneObject, ...]) -> list[Question]:
    """Relations inside the twins (the first two objects) and extremes over all."""
    twins, name = objects[:2], objects[0].label
    (x1, y1), (x2, y2) = _centre(twins[0]), _centre(twins[1])
    offered: list[Question] = []
    if abs(x1 - x2) >= _MARGIN_PX:
        left, right = twins if x1 < x2 else twins[::-1]
        offered.append(_one("left_right", box_phrase(f"the left {name}"), left))
        offered.append(_one("left_right", box_phrase(f"the right {name}"), right))
    if abs(y1 - y2) >= _MARGIN_PX:
        upper, lower = twins if y1 < y2 else twins[::-1]
        offered.append(_one("upper_lower", box_phrase(f"the upper {name}"), upper))
        offered.append(_one("upper_lower", box_phrase(f"the lower {name}"), lower))
    by_side = sorted(objects, key=_longest)
    offered.append(_one("size", box_phrase("the smallest icon"), by_side[0]))
    offered.append(_one("size", box_phrase("the largest icon"), by_side[-1]))
    return offered


def _longest(item: SceneObject) -> int:
    return max(item.box[2] - item.box[0], item.box[3] - item.box[1])


def openmoji_relation(rng: np.random.Generator, split: Split) -> Scene:
    """Two icons of one class and one or two others; all longer sides differ by 4 px or more."""
    while True:
        names = [NAMES[int(i)] for i in rng.permutation(len(NAMES))[:3]]
        labels = [names[0], names[0], *names[1 : 2 + int(rng.integers(2))]]
        sides = [(12, 16, 20, 24)[int(i)] for i in rng.permutation(4)[: len(labels)]]
        icons = [draw_icon(rng, n, side, split) for n, side in zip(labels, sides, strict=True)]
        spots = place(rng, [icon.size for icon in icons])
        if spots is None:
            continue
        planned = tuple(
            SceneObject(label=label, box=spot) for label, spot in zip(labels, spots, strict=True)
        )
        offered = _relations(planned)
        if len(offered) >= 4:
            break
    canvas = gradient(rng)
    objects = tuple(paste_icon(canvas, icon, spot) for icon, spot in zip(icons, spots, strict=True))
    return Scene(image=canvas, objects=objects, questions=choose_questions(rng, offered))


def mnist_colour(rng: np.random.Generator, split: Split) -> Scene:
    """Four handwritten digits in colours; a colour or a value may repeat, never both."""
    tints = list(TINTS)
    while True:
        colours = [tints[int(i)] for i in rng.permutation(len(tints))[:4]]
        values = [int(i) for i in rng.permutation(10)[:4]]
        if rng.random() < 0.5:
            colours[1] = colours[0]
            values[2] = values[0]
        digits = [draw_digit(rng, v, int(rng.integers(8, 12)) * 2, split) for v in values]
        spots = place(rng, [digit.size for digit in digits])
        if spots is not None:
            break
    canvas = gradient(rng, _BOARDS)
    objects: list[SceneObject] = []
    questions: list[Question] = []
    for digit, spot, colour in zip(digits, spots, colours, strict=True):
        item = paste_digit(canvas, digit, spot, TINTS[colour])
        objects.append(item)
        if colours.count(colour) == 1 and rng.random() < 0.6:
            questions.append(_one("colour", box_phrase(f"the {colour} digit"), item))
        else:
            questions.append(_one("colour_value", box_phrase(f"the {colour} {digit.value}"), item))
    return Scene(image=canvas, objects=tuple(objects), questions=choose_questions(rng, questions))
