"""Text drawn as a picture, for a judge that looks at it."""

from __future__ import annotations

import base64
from functools import lru_cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from verifiers.megabench.registry import Unscored

SIDE_PX = 224
FONT_SIZE_PX = 20
MARGIN_PX = 10
_CHARACTER_WIDTH_PX = FONT_SIZE_PX * 0.6
_AREA_MAX_PX = 50_000_000

_FONTS = (
    "Courier New.ttf",
    "cour.ttf",
    "DejaVuSansMono.ttf",
    "consola.ttf",
    "SFMono-Regular.otf",
    "LiberationMono-Regular.ttf",
)
"""Fixed-width fonts, those that upstream looks for first."""


def draw_text(text: str) -> str:
    """A data URL of a 224 x 224 JPEG of the text in a fixed-width font, black on white.

    Raises: Unscored if the text is too large to draw or there is no such font.
    """
    from PIL import Image, ImageDraw

    lines = text.splitlines()
    width = int(max(map(len, lines)) * _CHARACTER_WIDTH_PX + 2 * MARGIN_PX)
    height = len(lines) * FONT_SIZE_PX + 2 * MARGIN_PX
    if width * height > _AREA_MAX_PX:
        raise Unscored(f"a text of {width} x {height} px is too large to draw")
    picture = Image.new("RGB", (width, height), "white")
    canvas = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        place = MARGIN_PX, MARGIN_PX + number * FONT_SIZE_PX
        canvas.text(place, line, font=_font(), fill="black")
    small = picture.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    small.save(buffer, format="JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@lru_cache(maxsize=1)
def _font() -> Any:
    from PIL import ImageFont

    names: list[str] = [*_FONTS]
    matplotlib = find_spec("matplotlib")  # ships DejaVu; found without being imported
    if matplotlib is not None and matplotlib.origin is not None:
        folder = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf"
        names.append(str(folder / "DejaVuSansMono.ttf"))
    for name in names:
        try:
            return ImageFont.truetype(name, FONT_SIZE_PX)
        except OSError:
            continue
    raise Unscored(
        "no fixed-width font to draw ASCII art with; install DejaVu Sans Mono, or matplotlib, "
        "which ships it"
    )
