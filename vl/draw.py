"""Draws labelled boxes on a picture, enlarging small pictures so that a person can see them.

draw_boxes(image, [Box(62, 125, 344, 406, "dog", "per_mille")]).save("answer.png")
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from data_specs import Box, convert

SHORT_SIDE_PX = 384
"""Small pictures are enlarged until their short side is about this long."""

COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2")
"""One colour a label, in order of first appearance; Okabe and Ito's colour-blind-safe set."""


def fitting_scale(size: tuple[int, int]) -> int:
    """Whole factor, at least 1, that brings the short side nearest to `SHORT_SIDE_PX`."""
    return max(1, round(SHORT_SIDE_PX / max(1, min(size))))


def draw_boxes(image: Image.Image, boxes: Sequence[Box], scale: int | None = None) -> Image.Image:
    """A copy of the picture, `scale` times as large, with each box outlined and labelled.

    Args:
        image: any mode; the copy is RGB. Enlarging repeats pixels, it does not blur them.
        boxes: in `pixel` of this image, `per_mille` or `unit`. Parts outside are cut off.
        scale: whole factor, at least 1; None chooses `fitting_scale`.

    Raises: ValueError for a scale below 1, or a box in `resized` space (convert it first).
    """
    factor = fitting_scale(image.size) if scale is None else scale
    if factor < 1:
        raise ValueError(f"draw_boxes: scale {scale!r} is below 1; give a whole factor, or None")
    width, height = image.width * factor, image.height * factor
    canvas = image.convert("RGB").resize((width, height), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(canvas)
    line_px = max(2, min(width, height) // 160)
    font = ImageFont.load_default(size=max(11, min(width, height) // 26))
    labels = list(dict.fromkeys(box.label for box in boxes))
    colours = {label: COLOURS[index % len(COLOURS)] for index, label in enumerate(labels)}
    corners = [
        tuple(value * factor for value in convert(box, "pixel", image_size=image.size).corners)
        for box in boxes
    ]
    for box, (x1, y1, x2, y2) in zip(boxes, corners, strict=True):
        # the right and bottom edges lie on the box's last pixel, as PIL includes both ends
        rectangle = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
        draw.rectangle(_grown(rectangle, 1), outline="black", width=line_px + 2)
        draw.rectangle(rectangle, outline=colours[box.label], width=line_px)
    for box, (x1, y1, _, _) in zip(boxes, corners, strict=True):  # labels lie above all outlines
        if box.label:
            _draw_label(draw, (x1, y1), box.label, colours[box.label], font, canvas.size)
    return canvas


def _grown(
    rectangle: tuple[float, float, float, float], px: float
) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = rectangle
    return x1 - px, y1 - px, x2 + px, y2 + px


def _draw_label(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    colour: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """A filled tag above the box's top left corner, or inside where there is no room above."""
    shown = text if len(text) <= 40 else text[:39] + "…"
    left, top, right, bottom = draw.textbbox((0, 0), shown, font=font)
    width, height = right - left + 6, bottom - top + 6
    x = min(max(0.0, corner[0]), max(0.0, size[0] - width))
    y = corner[1] - height if corner[1] >= height else corner[1]
    y = min(max(0.0, y), max(0.0, size[1] - height))
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour, outline="black")
    ink = "white" if colour in ("#0072b2", "#d55e00") else "black"
    draw.text((x + 3 - left, y + 3 - top), shown, fill=ink, font=font)
