"""Printing fonts by split: DejaVu, STIX and Computer Modern to train, Lato to test."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tasks.packaged import packaged_file
from tasks.task import Split

TRAIN = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "STIXGeneralBol.ttf",
    "cmss10.ttf",
    "cmb10.ttf",
)
"""Files of matplotlib that training prints with."""
HELDOUT = ("DejaVuSansMono-Bold.ttf", "Lato-Regular.ttf", "Lato-Bold.ttf", "Lato-Medium.ttf")
"""Files that only the test split prints with (the first from matplotlib, the rest fontpkg-lato)."""
SANS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")
"""Training fonts that stay legible at 8 px; for the small print of charts."""


def draw_font(rng: np.random.Generator, split: Split, *, small: bool = False) -> str:
    """Path of one font of the split; `small` asks for one that is legible at 8 px."""
    names = HELDOUT if split.heldout else SANS if small else TRAIN
    return font_path(names[int(rng.integers(len(names)))])


@lru_cache(maxsize=64)
def font_path(name: str) -> str:
    """Where the installed package keeps the font file."""
    if name.startswith("Lato"):
        return str(packaged_file("fontpkg_lato", f"files/{name}", "fontpkg-lato"))
    return str(packaged_file("matplotlib", f"mpl-data/fonts/ttf/{name}", "matplotlib"))
