"""What a conversion left out: every record or annotation with its place, kind and reason."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TextIO
from uuid import uuid4

from data_specs.problem import Problem, shorten


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where something stands in the input."""

    file: str
    """File name."""
    number: int | None = None
    """Number of the record, from 0; None if the whole file is meant."""
    id: str = ""
    """The record's own id, empty if it has none."""
    section: str = ""
    """Name of the file's list that the record stands in, if it has several."""


class Fault(Exception):
    """Why one record or annotation gives no row, in the four parts of an error message."""

    def __init__(
        self,
        kind: str,
        field: str,
        value: object,
        allowed: str,
        remedy: str = "Correct the record in its file",
        *,
        by_rule: bool = False,
    ) -> None:
        super().__init__(kind)
        self.kind = kind
        self.field = field
        self.value = value
        self.allowed = allowed
        self.remedy = remedy
        self.by_rule = by_rule
        """True if the record is right and an option leaves it out; never an error then."""

    def at(self, place: Place) -> Problem:
        """The fault with its place."""
        return Problem(
            file=place.file,
            row=place.number,
            id=place.id,
            field=f"{place.section}.{self.field}" if place.section else self.field,
            value=shorten(self.value),
            allowed=self.allowed,
            remedy=self.remedy,
        )


SHOWN_MAX = 20
"""Faults that are kept to be shown; the others are in the list on disk only."""


class ConvertLog:
    """Counts what was left out, by kind, and lists it as JSON lines.

    The list holds one object a line: file, record, id, kind, field, value, allowed, remedy, and
    `by_rule`, true if an option left it out. It appears when the log is closed, and only if
    there is something in it; a list from an earlier conversion goes away.
    """

    def __init__(self, list_path: Path | None = None) -> None:
        self.faults: Counter[str] = Counter()
        """Records and annotations that could not be used, by kind."""
        self.by_rule: Counter[str] = Counter()
        """Those that an option left out, by kind."""
        self.changes: Counter[str] = Counter()
        """What was used but not exactly as it stands, by kind."""
        self.shown: list[Problem] = []
        """The first `SHOWN_MAX` faults."""
        self._list_path = list_path
        self._temporary: Path | None = None
        self._stream: TextIO | None = None

    @property
    def num_faults(self) -> int:
        """How many records and annotations could not be used."""
        return self.faults.total()

    def add(self, fault: Fault, place: Place) -> None:
        """Count and list one thing that was left out."""
        problem = fault.at(place)
        (self.by_rule if fault.by_rule else self.faults)[fault.kind] += 1
        if not fault.by_rule and len(self.shown) < SHOWN_MAX:
            self.shown.append(problem)
        if self._list_path is None:
            return
        if self._stream is None:
            name = f".{self._list_path.name}.{uuid4().hex[:8]}.tmp"
            self._temporary = self._list_path.with_name(name)
            self._stream = self._temporary.open("w", encoding="utf-8")
        line = {
            "file": problem.file,
            "record": problem.row,
            "id": problem.id,
            "kind": fault.kind,
            "field": problem.field,
            "value": problem.value,
            "allowed": problem.allowed,
            "remedy": problem.remedy,
            "by_rule": fault.by_rule,
        }
        self._stream.write(json.dumps(line) + "\n")

    def changed(self, kind: str) -> None:
        """Count something that was used, but not exactly as it stands."""
        self.changes[kind] += 1

    def __enter__(self) -> ConvertLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None and self._temporary is not None and self._list_path is not None:
            self._stream.close()
            os.replace(self._temporary, self._list_path)
        elif self._list_path is not None:
            self._list_path.unlink(missing_ok=True)
