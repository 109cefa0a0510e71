"""All randomness derives from (seed, stream, position), so a resumed run draws the same numbers."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, stream: str, position: int) -> int:
    """A 63-bit seed for one draw of one stream."""
    digest = hashlib.sha256(f"{seed}/{stream}/{position}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_for(seed: int, stream: str, position: int) -> torch.Generator:
    """A CPU generator in the state of this (seed, stream, position)."""
    return torch.Generator().manual_seed(derive_seed(seed, stream, position))
