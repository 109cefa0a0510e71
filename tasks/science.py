"""Science: tiles of the periodic table, and thermometers, clocks and levers to read."""

from __future__ import annotations

import math

import numpy as np

from tasks.canvas import INK, LIGHT, Colour, draw, gradient, pick, rectangle, text_width, write
from tasks.fonts import draw_font
from tasks.tables import elements
from tasks.task import (
    SIZE_PX,
    Pixels,
    Question,
    Scene,
    SceneObject,
    Split,
    boxed,
    choose_questions,
)

_RED: Colour = (214, 40, 40)
_STEEL: Colour = (96, 104, 116)
_LIGHT_NUMBER = 30
"""Neutrons are asked of elements up to this number: two-digit differences at most."""
_LIGHT_SHARE = 0.3
"""Share of tiles that are drawn from those elements alone."""
_BOX: tuple[Colour, ...] = ((250, 200, 90), (150, 200, 250), (170, 230, 150), (250, 170, 170))


def _yes(condition: bool) -> str:
    return "yes" if condition else "no"


def elements_tile(rng: np.random.Generator, split: Split) -> Scene:
    """An element's tile: atomic number above, symbol in the middle, mass number below."""
    known = elements(heldout=split.heldout)
    if rng.random() < _LIGHT_SHARE:
        known = [element for element in known if element.number <= _LIGHT_NUMBER]
    element = known[int(rng.integers(len(known)))]
    canvas, ink = gradient(rng, LIGHT), pick(rng, INK)
    rectangle(canvas, (4, 2, 60, 62), ink)
    rectangle(canvas, (6, 4, 58, 60), pick(rng, LIGHT))
    font = draw_font(rng, split)
    number, mass = str(element.number), str(element.mass)
    objects = write(canvas, number, 9, 17, font=font, size=13, colour=ink)
    middle = 32 - text_width(element.symbol, font, 22) // 2
    objects += write(canvas, element.symbol, middle, 39, font=font, size=22, colour=ink)
    middle = 32 - text_width(mass, font, 13) // 2
    objects += write(canvas, mass, middle, 56, font=font, size=13, colour=ink)
    offered = [
        boxed("protons", "how many protons?", element.number, "number"),
        boxed("electrons", "how many electrons?", element.number, "number"),
        boxed("mass", "what is the mass number?", element.mass, "number"),
        boxed("symbol", "what is the symbol?", element.symbol, "text"),
        _ask_above(rng, element.mass, range(10, 90, 10), "is the mass above"),
    ]
    if element.number <= _LIGHT_NUMBER:
        neutrons = element.mass - element.number
        offered.insert(0, boxed("neutrons", "how many neutrons?", neutrons, "number"))
    return Scene(image=canvas, objects=tuple(objects), questions=choose_questions(rng, offered))


def instruments(rng: np.random.Generator, split: Split) -> Scene:
    """A thermometer, a clock or a lever."""
    make = (_thermometer, _clock, _lever)[int(rng.integers(3))]
    return make(rng, split)


def _ask_above(
    rng: np.random.Generator, value: int, choices: range, ask: str = "is it above"
) -> Question:
    """Is the reading above some mark? Yes and no are equally likely where both exist."""
    below = [mark for mark in choices if mark < value]
    others = [mark for mark in choices if mark >= value]
    marks = below if others == [] or (below and rng.random() < 0.5) else others
    mark = marks[int(rng.integers(len(marks)))]
    return boxed("above", f"{ask} {mark}?", _yes(value > mark), "text")


def _thermometer(rng: np.random.Generator, split: Split) -> Scene:
    """Degrees from 0 to 50 in steps of 5, marks every 10."""
    degrees = int(rng.integers(1, 11)) * 5
    canvas, ink, font = gradient(rng, LIGHT), pick(rng, INK), draw_font(rng, split, small=True)
    x = int(rng.integers(10, 20)) * 2
    zero, per_five = 48, 4
    image, pen = draw(canvas)
    pen.rounded_rectangle((x - 3, 2, x + 2, zero + 4), radius=3, fill=(255, 255, 255), outline=ink)
    pen.ellipse((x - 6, zero, x + 5, zero + 11), fill=_RED, outline=ink)
    canvas = np.array(image)
    top = zero - degrees // 5 * per_five
    rectangle(canvas, (x - 1, top, x + 1, zero + 2), _RED)
    objects = [SceneObject(label="thermometer", box=(x - 6, 2, x + 6, 60))]
    for mark in range(0, 51, 5):
        y = zero - mark // 5 * per_five
        rectangle(canvas, (x + 4, y, x + (9 if mark % 10 == 0 else 7), y + 1), ink)
        if mark % 10 == 0:
            objects += write(canvas, str(mark), x + 11, y + 4, font=font, size=9, colour=ink)
    offered = [
        boxed("temperature", "what is the temperature?", degrees, "number"),
        boxed("change", "what is it after a rise of 5?", degrees + 5, "number"),
        boxed("change", "what is it after a fall of 5?", degrees - 5, "number"),
        _ask_above(rng, degrees, range(10, 50, 10)),
    ]
    return Scene(image=canvas, objects=tuple(objects), questions=tuple(offered))


def _clock(rng: np.random.Generator, split: Split) -> Scene:
    """A clock that shows a quarter of some hour."""
    hour, minutes = int(rng.integers(1, 13)), int(rng.integers(4)) * 15
    canvas, ink, font = gradient(rng, LIGHT), pick(rng, INK), draw_font(rng, split, small=True)
    radius = int(rng.integers(24, 31))
    x = int(rng.integers(radius + 1, SIZE_PX - radius))
    y = int(rng.integers(radius + 1, SIZE_PX - radius))
    image, pen = draw(canvas)
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 255, 255), outline=ink)

    def ray(turn: float, start: float, end: float, width: int, colour: Colour) -> None:
        angle = 2 * math.pi * turn
        dx, dy = math.sin(angle), -math.cos(angle)
        points = [(x + dx * start, y + dy * start), (x + dx * end, y + dy * end)]
        pen.line(points, fill=colour, width=width)

    for mark in range(12):
        if mark % 3:
            ray(mark / 12, radius - 4, radius - 1, 1, ink)
    ray((hour % 12 + minutes / 60) / 12, 0, radius * 0.42, 3, _RED)
    ray(minutes / 60, 0, radius * 0.66, 1, ink)
    canvas = np.array(image)
    objects = [
        SceneObject(
            label="clock",
            box=(
                (x - radius) // 2 * 2,
                (y - radius) // 2 * 2,
                min(SIZE_PX, (x + radius) // 2 * 2 + 2),
                min(SIZE_PX, (y + radius) // 2 * 2 + 2),
            ),
        )
    ]
    for text, dx, dy in (("12", -5, 9 - radius), ("3", radius - 7, 3), ("9", 3 - radius, 3)):
        objects += write(canvas, text, x + dx, y + dy, font=font, size=8, colour=ink)
    objects += write(canvas, "6", x - 2, y + radius - 2, font=font, size=8, colour=ink)
    before = int(rng.integers(2, 13))
    offered = [
        boxed("hour", "what hour is it?", hour, "number"),
        boxed("hour_shift", "what hour comes next?", hour % 12 + 1, "number"),
        boxed("hour_shift", "what hour was before?", (hour - 2) % 12 + 1, "number"),
        boxed("minutes", "how many minutes past?", minutes, "number"),
        boxed("before", f"is it before {before}?", _yes(hour < before), "text"),
    ]
    questions = choose_questions(rng, offered, first=1)
    return Scene(image=canvas, objects=tuple(objects), questions=questions)


def _lever(rng: np.random.Generator, split: Split) -> Scene:
    """A level beam held at its middle, with a numbered box at each end."""
    left, right = (int(weight) + 1 for weight in rng.permutation(9)[:2])
    canvas, ink, font = gradient(rng, LIGHT), pick(rng, INK), draw_font(rng, split)
    beam = int(rng.integers(13, 22)) * 2
    image, pen = draw(canvas)
    pen.polygon([(32, beam + 2), (24, beam + 16), (40, beam + 16)], fill=_STEEL)
    canvas = np.array(image)
    rectangle(canvas, (2, beam, 62, beam + 3), _STEEL)
    objects = [SceneObject(label="lever", box=(2, beam, 62, beam + 16))]
    for weight, x in ((left, 4), (right, 42)):
        objects += _weight(canvas, weight, x, beam, font, ink, pick(rng, _BOX))
    heavier, lighter = ("left", "right") if left > right else ("right", "left")
    offered = [
        boxed("sinks", "which side sinks?", heavier, "text"),
        boxed("rises", "which side rises?", lighter, "text"),
        boxed("weight", "what is the left weight?", left, "number"),
        boxed("weight", "what is the right weight?", right, "number"),
        boxed("weight", "what is the heavier weight?", max(left, right), "number"),
    ]
    questions = choose_questions(rng, offered, first=1)
    return Scene(image=canvas, objects=tuple(objects), questions=questions)


def _weight(
    canvas: Pixels, weight: int, x: int, beam: int, font: str, ink: Colour, fill: Colour
) -> list[SceneObject]:
    rectangle(canvas, (x, beam - 18, x + 18, beam), ink)
    rectangle(canvas, (x + 1, beam - 17, x + 17, beam - 1), fill)
    return write(canvas, str(weight), x + 5, beam - 4, font=font, size=14, colour=ink)
