"""OCR: rows of handwritten digits and printed words."""

from __future__ import annotations

import numpy as np

from tasks import words
from tasks.canvas import CHALK, DARK, INK, LIGHT, gradient, pick, text_width, write
from tasks.digits import draw_digit, paste_digit
from tasks.fonts import draw_font
from tasks.task import (
    SIZE_PX,
    PixelBox,
    Question,
    Scene,
    SceneObject,
    Split,
    boxed,
    choose_questions,
)


def _digit_row_questions(number: str) -> list[Question]:
    def ask(kind: str, what: str, answer: str) -> Question:
        return boxed(kind, f"read the {what}.", answer, "text")

    offered = [
        ask("read_number", "number", number),
        ask("read_digit", "first digit", number[0]),
        ask("read_digit", "last digit", number[-1]),
        ask("read_digit", "second digit", number[1]),
    ]
    if len(number) > 2:
        offered.append(ask("read_two_digits", "first two digits", number[:2]))
        offered.append(ask("read_two_digits", "last two digits", number[-2:]))
    return offered


def mnist_rows(rng: np.random.Generator, split: Split) -> Scene:
    """Two to four handwritten digits in a row, on a slightly uneven line."""
    length = int(rng.integers(2, 5))
    values = [int(value) for value in rng.integers(10, size=length)]
    highest = {2: 14, 3: 12, 4: 10}[length]
    gap = 2
    while True:
        heights = [int(half) * 2 for half in rng.integers(7, highest, size=length)]
        digits = [draw_digit(rng, v, h, split) for v, h in zip(values, heights, strict=True)]
        free = (SIZE_PX - sum(d.size[0] for d in digits) - gap * (length - 1)) // 2
        if free >= 0:
            break
    x = int(rng.integers(free + 1)) * 2
    middle = int(rng.integers(10, 23)) * 2
    canvas, ink = gradient(rng, DARK), pick(rng, CHALK)
    objects: list[SceneObject] = []
    for digit in digits:
        width, height = digit.size
        top = middle - height // 4 * 2 + int(rng.integers(-2, 3)) * 2
        top = min(max(0, top), SIZE_PX - height)
        box: PixelBox = (x, top, x + width, top + height)
        objects.append(paste_digit(canvas, digit, box, ink))
        x += width + gap
    number = "".join(str(value) for value in values)
    questions = choose_questions(rng, _digit_row_questions(number), first=1)
    return Scene(image=canvas, objects=tuple(objects), questions=questions)


def font_words(rng: np.random.Generator, split: Split) -> Scene:
    """A printed word of three or four capital letters."""
    pool = words.HELDOUT if split.heldout else words.TRAIN
    word = pool[int(rng.integers(len(pool)))]
    font = draw_font(rng, split)
    size, spacing = int(rng.integers(14, 21)), int(rng.integers(0, 3))
    while text_width(word, font, size, spacing=spacing) > SIZE_PX - 2:
        size -= 1
    x = 1 + int(rng.integers(SIZE_PX - 1 - text_width(word, font, size, spacing=spacing)))
    baseline = int(rng.integers(size, SIZE_PX - 4))
    dark = rng.random() < 0.3
    canvas = gradient(rng, DARK if dark else LIGHT)
    ink = pick(rng, CHALK if dark else INK)
    objects = write(canvas, word, x, baseline, font=font, size=size, colour=ink, spacing=spacing)
    offered = [
        boxed("read_word", "read the word.", word, "text"),
        boxed("read_letter", "read the first letter.", word[0], "text"),
        boxed("read_letter", "read the second letter.", word[1], "text"),
        boxed("read_letter", "read the last letter.", word[-1], "text"),
        boxed("read_two_letters", "read the first two letters.", word[:2], "text"),
    ]
    questions = choose_questions(rng, offered, first=1)
    return Scene(image=canvas, objects=tuple(objects), questions=questions)
