"""What a curation did, in numbers: by rule, by source, and how hard rows are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from data_specs import Sample
from tasks.curate_rule import Params, answer_of
from tasks.curate_rules import RULES

EXAMPLES_MAX = 3
NUM_BINS = 10
PASSED = ("none", "some", "all")
_TEXT_CHARS_MAX, _BAR_CHARS = 120, 40


@dataclass(frozen=True, kw_only=True)
class Example:
    """A row that a rule left out or rewrote."""

    id: str
    question: str
    answer: str
    reason: str


@dataclass
class RuleCount:
    """What one rule did."""

    rows: int = 0
    """That reached it and that it is about."""
    dropped: int = 0
    rewritten: int = 0
    examples: list[Example] = field(default_factory=lambda: list[Example]())


@dataclass
class SourceCount:
    """What became of the rows of one source."""

    rows: int = 0
    kept: int = 0
    left_out: dict[str, int] = field(default_factory=lambda: dict[str, int]())
    """By rule, or `too_easy`, `too_hard`, `unjudged`."""
    difficulty: list[int] = field(default_factory=lambda: [0] * NUM_BINS)
    """Rows by difficulty in tenths, before the band; 1.0 counts in the last."""
    passed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PASSED, 0))
    """Rows of which none, some or all of the answers scored 1."""


@dataclass(kw_only=True)
class CurationReport:
    """The whole of a curation."""

    rules: dict[str, RuleCount]
    params: Mapping[str, Params]
    sources: dict[str, SourceCount] = field(default_factory=lambda: dict[str, SourceCount]())
    files: dict[str, int] = field(default_factory=lambda: dict[str, int]())
    """Name of each file that is written -> rows."""
    seed: int = 0
    inputs: list[str] = field(default_factory=lambda: list[str]())
    policy: str | None = None
    bands: dict[str, str] = field(default_factory=lambda: dict[str, str]())
    num_not_asked: int = 0
    """Rows that a dry run would ask a policy about."""

    def source(self, name: str) -> SourceCount:
        """The counts of a source, new if need be."""
        return self.sources.setdefault(name, SourceCount())

    @property
    def num_rows(self) -> int:
        """Rows read."""
        return sum(count.rows for count in self.sources.values())

    @property
    def num_kept(self) -> int:
        """Rows kept."""
        return sum(count.kept for count in self.sources.values())

    def to_json(self) -> dict[str, Any]:
        """The content of `curation.json`."""
        rules = {
            name: {
                "about": RULES[name].about,
                "source": RULES[name].source,
                "params": dict(self.params[name]),
                **asdict(count),
            }
            for name, count in self.rules.items()
        }
        return {
            "num_rows": self.num_rows,
            "num_kept": self.num_kept,
            "seed": self.seed,
            "inputs": self.inputs,
            "policy": self.policy,
            "bands": self.bands,
            "rules": rules,
            "sources": {name: asdict(count) for name, count in sorted(self.sources.items())},
            "files": self.files,
        }

    def lines(self, examples: int = EXAMPLES_MAX) -> list[str]:
        """The report as a person reads it."""
        lines = [f"{'rule':<20}{'rows':>9}{'dropped':>9}{'rewritten':>11}"]
        for name, count in self.rules.items():
            lines.append(f"{name:<20}{count.rows:>9}{count.dropped:>9}{count.rewritten:>11}")
            for item in count.examples[:examples]:
                lines.append(f"    {item.id}: {item.question!r} -> {item.answer!r}: {item.reason}")
        lines += ["", f"{'source':<20}{'rows':>9}{'kept':>9}  left out by"]
        for name, source in sorted(self.sources.items()):
            left_out = sorted(source.left_out.items(), key=lambda item: -item[1])
            why = ", ".join(f"{rule} {num}" for rule, num in left_out)
            lines.append(f"{name:<20}{source.rows:>9}{source.kept:>9}  {why}")
        lines.append(f"{'all':<20}{self.num_rows:>9}{self.num_kept:>9}")
        if self.policy is not None:
            lines += ["", *self._histogram()]
        return lines

    def _histogram(self) -> Iterable[str]:
        yield f"difficulty (1 - mean score) with {self.policy}; bands " + ", ".join(
            f"{name} {band}" for name, band in self.bands.items()
        )
        for name, source in sorted(self.sources.items()):
            if not any(source.difficulty):
                continue
            passed = ", ".join(f"{key} {source.passed[key]}" for key in PASSED)
            yield f"{name}: rows with right answers: {passed}"
            most = max(source.difficulty)
            for index, num in enumerate(source.difficulty):
                bar = "#" * -(-num * _BAR_CHARS // most)
                yield f"  {index / NUM_BINS:.1f}-{(index + 1) / NUM_BINS:.1f} {num:>7} {bar}"


def example_of(sample: Sample, reason: str) -> Example:
    """A row as an example, its texts cut."""
    return Example(
        id=sample.id[:_TEXT_CHARS_MAX],
        question=sample.question[:_TEXT_CHARS_MAX],
        answer=answer_of(sample)[:_TEXT_CHARS_MAX],
        reason=reason[: 2 * _TEXT_CHARS_MAX],
    )


def difficulty_bin(difficulty: float) -> int:
    """The tenth that a difficulty counts in; edges such as 0.3 count upwards, 1.0 in the last."""
    return min(NUM_BINS - 1, int(round(difficulty * NUM_BINS, 9)))
