"""One thing that a check found wrong with a row, and where the row stands."""

from __future__ import annotations

from typing import NamedTuple

FIX = "Correct the row, or remove it"


class RowPlace(NamedTuple):
    """Where a row stands."""

    file: int
    """Index of its file."""
    row: int
    """Its number, from 0; -1 for the whole file."""
    id: str


class Fault(NamedTuple):
    """What a `Problem` says, without the place."""

    kind: str
    """One of `data_specs.KINDS`."""
    field: str
    value: object
    """What was found; shortened when it is shown."""
    allowed: str
    remedy: str = FIX
