"""Complete runs as data, and the command line that starts them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .recipe import Recipe


class RecipeMaker(Protocol):
    """Makes a recipe, whole or shrunk to seconds."""

    def __call__(self, *, smoke: bool = False) -> Recipe:
        """The recipe."""
        ...


def _orsta_tiny(*, smoke: bool = False) -> Recipe:
    from . import orsta_tiny

    return orsta_tiny.orsta_tiny_smoke() if smoke else orsta_tiny.orsta_tiny()


def _vlm_rl(*, smoke: bool = False) -> Recipe:
    from . import vlm_rl

    return vlm_rl.vlm_rl_smoke() if smoke else vlm_rl.vlm_rl()


RECIPES: Mapping[str, RecipeMaker] = {"orsta_tiny": _orsta_tiny, "vlm_rl": _vlm_rl}
