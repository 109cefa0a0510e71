"""How scenes are painted: backgrounds, exact pasting, free places, lines and print."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tasks.task import SIZE_PX, PixelBox, Pixels, SceneObject

Colour = tuple[int, int, int]

LIGHT: tuple[Colour, ...] = (
    (244, 240, 228),
    (226, 236, 246),
    (232, 246, 230),
    (248, 232, 232),
    (240, 232, 248),
    (236, 236, 236),
    (252, 248, 220),
    (222, 242, 242),
)
"""Pale paper colours."""
DARK: tuple[Colour, ...] = (
    (20, 20, 28),
    (28, 24, 48),
    (16, 40, 44),
    (44, 24, 28),
    (24, 36, 24),
    (36, 36, 36),
)
"""Board colours, dark enough for every bright ink."""
INK: tuple[Colour, ...] = (
    (16, 16, 16),
    (16, 32, 112),
    (112, 16, 24),
    (12, 72, 32),
    (72, 20, 96),
)
"""Dark inks, legible on every colour of `LIGHT`."""
CHALK: tuple[Colour, ...] = (
    (255, 255, 255),
    (255, 250, 170),
    (170, 255, 190),
    (170, 225, 255),
    (255, 200, 215),
)
"""Bright inks, legible on every colour of `DARK`."""

_RAMP = np.linspace(0.0, 1.0, SIZE_PX, dtype=np.float32)


def pick(rng: np.random.Generator, colours: Sequence[Colour]) -> Colour:
    """One of the colours."""
    return colours[int(rng.integers(len(colours)))]


def gradient(rng: np.random.Generator, colours: Sequence[Colour] = LIGHT) -> Pixels:
    """A canvas that fades between two of the colours along one of four directions."""
    first = np.asarray(pick(rng, colours), dtype=np.float32)
    second = np.asarray(pick(rng, colours), dtype=np.float32)
    weight_x, weight_y = ((1, 0), (0, 1), (0.5, 0.5), (0.5, -0.5))[int(rng.integers(4))]
    ramp = weight_x * _RAMP[None, :] + weight_y * _RAMP[:, None]
    if weight_y < 0:
        ramp = ramp + 0.5
    return (first + (second - first) * ramp[..., None]).astype(np.uint8)


def plain(colour: Colour) -> Pixels:
    """A canvas of one colour."""
    canvas = np.empty((SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    canvas[:] = colour
    return canvas


def paste(canvas: Pixels, alpha: Pixels, colour: Colour | Pixels, x: int, y: int) -> None:
    """Blend `colour` (one colour or a patch) into the canvas where `alpha` is not zero."""
    height, width = alpha.shape
    window = canvas[y : y + height, x : x + width]
    weight = alpha[..., None].astype(np.uint16)
    source = np.asarray(colour, dtype=np.uint16)
    window[:] = ((source * weight + window * (255 - weight) + 127) // 255).astype(np.uint8)


def rectangle(canvas: Pixels, box: Sequence[int], colour: Colour) -> None:
    """Fill (x1, y1, x2, y2), ends exclusive."""
    x1, y1, x2, y2 = box
    canvas[y1:y2, x1:x2] = colour


def draw(canvas: Pixels) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A Pillow image with the canvas's pixels and a pen on it, for lines and circles."""
    image = Image.fromarray(canvas)
    return image, ImageDraw.Draw(image)


def snap(x1: float, y1: float, x2: float, y2: float) -> PixelBox:
    """The smallest box with even corners that holds the given one, inside the image."""
    return (
        max(0, int(x1) // 2 * 2),
        max(0, int(y1) // 2 * 2),
        min(SIZE_PX, -(-int(np.ceil(x2)) // 2) * 2),
        min(SIZE_PX, -(-int(np.ceil(y2)) // 2) * 2),
    )


def place(
    rng: np.random.Generator, sizes: Sequence[tuple[int, int]], *, gap: int = 2
) -> list[PixelBox] | None:
    """Even, disjoint boxes of the given (width, height), or None if they did not fit.

    Each try draws places one after another; the largest go first, the order of `sizes` is kept.
    """
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i][0] * sizes[i][1])
    draws = rng.random((12, len(sizes), 10, 2))
    for attempt in draws:
        found: dict[int, PixelBox] = {}
        for number, item in enumerate(order):
            width, height = sizes[item]
            steps_x, steps_y = (SIZE_PX - width) // 2 + 1, (SIZE_PX - height) // 2 + 1
            for u, v in attempt[number].tolist():
                x, y = int(u * steps_x) * 2, int(v * steps_y) * 2
                box = (x, y, x + width, y + height)
                if not any(_touch(box, other, gap) for other in found.values()):
                    found[item] = box
                    break
            else:
                break
        if len(found) == len(sizes):
            return [found[item] for item in range(len(sizes))]
    return None


def _touch(first: PixelBox, second: PixelBox, gap: int) -> bool:
    return (
        first[0] < second[2] + gap
        and second[0] < first[2] + gap
        and first[1] < second[3] + gap
        and second[1] < first[3] + gap
    )


@lru_cache(maxsize=64)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@lru_cache(maxsize=8192)
def _glyph(path: str, size: int, character: str) -> tuple[Pixels, int, int, int]:
    """Coverage, its offset from the pen (x, y from the base line), and the pen's advance."""
    font = _font(path, size)
    room = Image.new("L", (3 * size, 3 * size))
    ImageDraw.Draw(room).text((size, 2 * size), character, font=font, fill=255, anchor="ls")
    left, top, right, bottom = room.getbbox() or (size, 2 * size - 1, size + 1, 2 * size)
    alpha = np.asarray(room)[top:bottom, left:right]
    return alpha, left - size, top - 2 * size, round(font.getlength(character))


def text_width(text: str, path: str, size: int, *, spacing: int = 0) -> int:
    """Width of the print in pixels."""
    return sum(_glyph(path, size, character)[3] + spacing for character in text) - spacing


def write(
    canvas: Pixels,
    text: str,
    x: int,
    baseline: int,
    *,
    font: str,
    size: int,
    colour: Colour,
    spacing: int = 0,
) -> list[SceneObject]:
    """Print `text` from pen position (x, baseline); returns one object per visible character.

    Characters that would leave the image are shifted back inside.
    """
    objects: list[SceneObject] = []
    for character in text:
        alpha, left, top, advance = _glyph(font, size, character)
        if character != " ":
            height, width = alpha.shape
            at_x = min(max(0, x + left), SIZE_PX - width)
            at_y = min(max(0, baseline + top), SIZE_PX - height)
            paste(canvas, alpha, colour, at_x, at_y)
            box = snap(at_x, at_y, at_x + width, at_y + height)
            objects.append(SceneObject(label=character, box=box))
        x += advance + spacing
    return objects
