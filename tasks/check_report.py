"""What a check of files found, as a record and as lines to print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_specs import DataSpecError, Problem

PROBLEMS_SHOWN = 20
"""Problems named by the error that stops a run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedFile:
    """One file that was checked."""

    name: str
    """What problems call it: the file name, with folders where two files have the same."""
    path: Path
    num_rows: int
    """Rows read, the bad ones included."""
    is_heldout: bool
    """Whether its rows are for evaluation, unless they say otherwise themselves."""


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What `check_files` found."""

    problems: tuple[Problem, ...]
    """In the order of files and rows; empty if everything is right."""
    num_rows: int
    """Rows read, the bad ones included."""
    rows_by_source: Mapping[str, int] = field(default_factory=lambda: dict[str, int]())
    """Readable rows of each source."""
    rows_by_task: Mapping[str, int] = field(default_factory=lambda: dict[str, int]())
    """Readable rows of each task."""
    num_images: int = 0
    """Different images, by content."""
    files: tuple[CheckedFile, ...] = ()

    @property
    def is_ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    @property
    def problems_by_kind(self) -> dict[str, int]:
        """Number of problems of each kind, the commonest first."""
        return dict(Counter(problem.kind for problem in self.problems).most_common())

    @property
    def num_bad_rows(self) -> int:
        """Rows with a problem."""
        return len({(item.file, item.row) for item in self.problems if item.row is not None})

    def raise_if_bad(self) -> None:
        """Raise DataSpecError with the first problems, if there are any."""
        if not self.problems:
            return
        head = f"{len(self.problems)} problems in {self.num_rows} rows:"
        raise DataSpecError("\n".join([head, *self.lines(PROBLEMS_SHOWN)]), *self.problems)

    def lines(self, most: int) -> list[str]:
        """A line for each of the first `most` problems, and one that counts the others by kind."""
        lines = [str(problem) for problem in self.problems[:most]]
        more = Counter(problem.kind for problem in self.problems[most:])
        if more:
            kinds = ", ".join(f"{count} {kind}" for kind, count in more.most_common())
            lines.append(f"... and {more.total()} more: {kinds}")
        return lines
