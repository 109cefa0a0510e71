"""What a rule of curation is: a judge of single rows, or a balance over many."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from data_specs import BadImage, DataSpecError, Sample, read_header
from verifiers.answer import reference_text

Params = Mapping[str, float]
"""Numbers of a rule by name; switches are 0 or 1."""

REASONING = frozenset({"math", "puzzle", "science", "chart"})
BOXES = frozenset({"detection", "grounding"})


class Drop(NamedTuple):
    """A row that a rule leaves out."""

    reason: str


class Known(NamedTuple):
    """The evaluation rows that training rows must not repeat, as hashes."""

    grams: frozenset[int]
    """Of every run of n words."""
    questions: frozenset[int]
    """Of whole questions without image."""
    images: frozenset[str]
    """SHA-256 of the encoded bytes."""


@dataclass
class Seen:
    """What judging a row may depend on beside the row."""

    known: Known = Known(frozenset(), frozenset(), frozenset())
    asked: dict[bytes, tuple[bytes, str]] = field(
        default_factory=lambda: dict[bytes, tuple[bytes, str]]()
    )
    """Hash of a question with its images -> hash of its reference, and the row's place."""


class Candidate(NamedTuple):
    """A row that a balance may leave out."""

    number: int
    """Of the row, over all files."""
    source: str
    groups: tuple[str, ...]
    """What it is counted under: its labels, its count."""
    order: bytes
    """Hash of seed, rule and row: rows are taken in this order, whatever the files' order."""


@dataclass(frozen=True, kw_only=True)
class RowRule:
    """Judges one row: the row itself (kept), another one (rewritten), or a Drop."""

    about: str
    source: str
    """Where the rule comes from."""
    judge: Callable[[Sample, Params, Seen], Sample | Drop]
    tasks: frozenset[str] | None = None
    """Rows of other tasks pass; None = it concerns every row."""
    params: Params = field(default_factory=lambda: dict[str, float]())
    """Defaults."""
    may_rewrite: bool = False
    """If True, judging depends on the row alone, and judging a rewritten row changes nothing."""
    needs_known: bool = False
    """Runs only if there are evaluation rows to compare with."""


@dataclass(frozen=True, kw_only=True)
class SetRule:
    """Looks at all rows that the other rules kept, and leaves some out."""

    about: str
    source: str
    groups: Callable[[Sample], tuple[str, ...]]
    """What a row is counted under; a row without groups passes."""
    balance: Callable[[Sequence[Candidate], Params], dict[int, str]]
    """Number of each row that is left out -> the reason. Called with the rows of one source."""
    tasks: frozenset[str] | None = None
    params: Params = field(default_factory=lambda: dict[str, float]())


Rule = RowRule | SetRule


def concerns(rule: Rule, sample: Sample) -> bool:
    """Whether a rule is about rows of this task."""
    return rule.tasks is None or sample.task.casefold() in rule.tasks


def answer_of(sample: Sample) -> str:
    """The bare reference."""
    spec = sample.reward
    return (spec.answer or reference_text(spec.ground_truth).text or spec.ground_truth).strip()


def draw_order(seed: int, rule: str, sample: Sample) -> bytes:
    """Where a row stands in a rule's shuffle."""
    name = f"{seed}\0{rule}\0{sample.source}\0{sample.id}"
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def image_size(sample: Sample, index: int = 0) -> tuple[int, int] | None:
    """Width and height of an image of the row from its header, px; None if it cannot be read."""
    if index >= len(sample.images):
        return None
    try:
        header = read_header(sample.images[index].encoded())
    except (BadImage, DataSpecError):
        return None
    return header.width_px, header.height_px
