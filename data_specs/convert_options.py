"""What every conversion is told: names, images, how many, wording, and how answers are judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_specs.sample import Sample


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How questions of ours are put; comes from `tasks`, which words them for all rows."""

    box_classes: Callable[[Sequence[str]], str]
    """Asks for the boxes of every instance of the named classes."""
    box_phrase: Callable[[str], str]
    """Asks for the boxes of what a phrase describes."""
    count_class: Callable[[str], str]
    """Asks how many instances of a class there are."""


@dataclass(frozen=True, kw_only=True)
class Judging:
    """What the verifiers know about answers; handed in, since they stand above this package."""

    is_number: Callable[[str], bool]
    """Whether the verifier `number` reads the text as one number."""
    final_answer: Callable[[str], str | None]
    r"""What stands in a response's last `\boxed{}` or `<answer>`; None if there is neither."""
    gold_fault: Callable[[Sample], str]
    """Why the row's reference does not score 1 with its own verifier; empty if it does."""


def _no_progress(done: int, total: int) -> None:
    del done, total


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """The options that all formats share."""

    out: Path
    """The file that the rows go to; linked images are relative to its folder."""
    source: str
    """`data_source` of the rows; empty = what the records say, else the input file's name."""
    task: str
    """`ability` of the rows; empty = what the records say, else the format's own."""
    wording: Wording
    judging: Judging
    split: str = ""
    """Split of the rows; records that name another are left out. Empty = what records say."""
    licence: str = ""
    """Licence of the images; empty = not stated."""
    images: Path | None = None
    """Folder that image paths are relative to; None = that of the input file."""
    link: bool = False
    """Keep paths of images instead of their bytes."""
    decode: bool = False
    """Decode every image once; otherwise its header is read, and whether its end is there."""
    limit: int | None = None
    """Most rows; None = all."""
    seed: int | None = None
    """Draws what is drawn by chance, and with `limit` which records; None = the first records."""
    rename: Mapping[str, str] = field(default_factory=lambda: dict[str, str]())
    """Key in the records -> key that the format has."""
    append: str = ""
    """Text behind every question, after a space; empty = none."""
    progress: Callable[[int, int], None] = _no_progress
    """Called with records done and records in all."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}; allowed: 1 or more")
