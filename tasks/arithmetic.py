"""Mathematics: small sums in handwriting, labelled rectangles and printed equations."""

from __future__ import annotations

import numpy as np

from tasks.canvas import (
    CHALK,
    DARK,
    INK,
    LIGHT,
    Colour,
    gradient,
    pick,
    rectangle,
    snap,
    text_width,
    write,
)
from tasks.digits import draw_digit, paste_digit
from tasks.fonts import draw_font
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

_MATH = "mathverify"


def _terms(rng: np.random.Generator) -> tuple[int, int, str, int]:
    """Left, right, sign and result; results are mostly at most ten and never negative."""
    sign = "+++--x"[int(rng.integers(6))]
    if sign == "+":
        result = int(rng.integers(1, 11 if rng.random() < 0.85 else 19))
        left = int(rng.integers(max(0, result - 9), min(9, result) + 1))
        return left, result - left, sign, result
    if sign == "-":
        result = int(rng.integers(0, 9))
        right = int(rng.integers(0, 10 - result))
        return result + right, right, sign, result
    left, right = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    return left, right, sign, left * right


def _draw_sign(canvas: Pixels, sign: str, x: int, y: int, ink: Colour) -> SceneObject:
    """The operator in a 10 px square whose corner is (x, y)."""
    if sign == "x":
        for step in range(8):
            rectangle(canvas, (x + 1 + step, y + step, x + 3 + step, y + 2 + step), ink)
            rectangle(canvas, (x + 8 - step, y + step, x + 10 - step, y + 2 + step), ink)
        return SceneObject(label="x", box=(x, y, x + 10, y + 10))
    rectangle(canvas, (x, y + 4, x + 10, y + 6), ink)
    if sign == "-":
        return SceneObject(label="-", box=(x, y + 4, x + 10, y + 6))
    rectangle(canvas, (x + 4, y, x + 6, y + 10), ink)
    return SceneObject(label="+", box=(x, y, x + 10, y + 10))


def mnist_sum(rng: np.random.Generator, split: Split) -> Scene:
    """Two handwritten digits with a drawn +, - or x between them."""
    left, right, sign, result = _terms(rng)
    first = draw_digit(rng, left, int(rng.integers(8, 12)) * 2, split)
    second = draw_digit(rng, right, int(rng.integers(8, 12)) * 2, split)
    canvas, ink = gradient(rng, DARK), pick(rng, CHALK)
    room = SIZE_PX - first.size[0] - second.size[0] - 10 - 8
    x = int(rng.integers(room // 2 + 1)) * 2 if room > 0 else 0
    middle = int(rng.integers(7, 26)) * 2
    objects: list[SceneObject] = []
    for digit in (first, second):
        width, height = digit.size
        top = min(max(0, middle - height // 4 * 2), SIZE_PX - height)
        objects.append(paste_digit(canvas, digit, (x, top, x + width, top + height), ink))
        x += width + 4
        if digit is first:
            top = min(max(0, middle - 4), SIZE_PX - 10) // 2 * 2
            objects.append(_draw_sign(canvas, sign, x, top, ink))
            x += 14
    offered = [
        boxed("solve", "solve.", result, _MATH),
        boxed("plus_one", "what is the left number plus 1?", left + 1, _MATH),
        boxed("plus_one", "what is the right number plus 1?", right + 1, _MATH),
        boxed("read_side", "what is the left number?", left, _MATH),
        boxed("read_side", "what is the right number?", right, _MATH),
    ]
    if left != right:
        offered.append(boxed("compare", "which number is larger?", max(left, right), _MATH))
        offered.append(boxed("compare", "which number is smaller?", min(left, right), _MATH))
    questions = choose_questions(rng, offered, first=1)
    return Scene(image=canvas, objects=tuple(objects), questions=questions)


def font_geometry(rng: np.random.Generator, split: Split) -> Scene:
    """Half rectangles with labelled sides, half equations in x."""
    return _rectangle_scene(rng, split) if rng.random() < 0.5 else _equation_scene(rng, split)


def _rectangle_scene(rng: np.random.Generator, split: Split) -> Scene:
    width, height = (int(side) + 1 for side in rng.permutation(6)[:2])
    unit = 7
    font = draw_font(rng, split)
    canvas, ink = gradient(rng, LIGHT), pick(rng, INK)
    width_px, height_px = width * unit, height * unit
    x = int(rng.integers(14, SIZE_PX - width_px - 3)) // 2 * 2
    y = int(rng.integers(2, SIZE_PX - height_px - 15)) // 2 * 2
    rectangle(canvas, (x, y, x + width_px, y + height_px), ink)
    fill = pick(rng, LIGHT)
    rectangle(canvas, (x + 2, y + 2, x + width_px - 2, y + height_px - 2), fill)
    objects = [SceneObject(label="rectangle", box=snap(x, y, x + width_px, y + height_px))]
    below = (x + width_px // 2 - 4, y + height_px + 13)
    beside = (x - 11, y + height_px // 2 + 5)
    for side, (at_x, baseline) in ((width, below), (height, beside)):
        objects += write(canvas, str(side), at_x, baseline, font=font, size=13, colour=ink)
    questions = (
        boxed("area", "find the area.", width * height, _MATH),
        boxed("perimeter", "find the perimeter.", 2 * (width + height), _MATH),
        boxed("side", "find the longer side.", max(width, height), _MATH),
        boxed("side", "find the shorter side.", min(width, height), _MATH),
    )
    return Scene(image=canvas, objects=tuple(objects), questions=questions)


def _equation_scene(rng: np.random.Generator, split: Split) -> Scene:
    unknown, known = int(rng.integers(1, 10)), int(rng.integers(1, 10))
    form = int(rng.integers(3))
    if form == 2 and known == unknown:
        known = unknown % 9 + 1
    if form < 2:
        unknown = min(unknown, 9)
        result = unknown + known
        text = (f"x+{known}={result}", f"{known}+x={result}")[form]
    else:
        small, large = sorted((unknown, known))
        unknown, known, result = large, small, large - small
        text = f"x-{known}={result}"
    font = draw_font(rng, split)
    size = int(rng.integers(14, 18))
    while text_width(text, font, size) > SIZE_PX - 2:
        size -= 1
    x = 1 + int(rng.integers(SIZE_PX - 1 - text_width(text, font, size)))
    canvas, ink = gradient(rng, LIGHT), pick(rng, INK)
    baseline = int(rng.integers(size, SIZE_PX - 4))
    objects = write(canvas, text, x, baseline, font=font, size=size, colour=ink)
    offered: list[Question] = [
        boxed("solve", "find x.", unknown, _MATH),
        boxed("solve_plus_one", "find x plus 1.", unknown + 1, _MATH),
        boxed("read_side", "what is the right number?", result, _MATH),
        boxed("read_side", "what is the left number?", known, _MATH),
    ]
    return Scene(image=canvas, objects=tuple(objects), questions=tuple(offered))
