"""Rows past the rules: which are kept, and the kept ones again, rewritten."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data_specs import DataSpecError, Problem, Sample, read_rows
from tasks.curate_report import (
    EXAMPLES_MAX,
    CurationReport,
    Example,
    RuleCount,
    example_of,
)
from tasks.curate_rule import (
    Candidate,
    Drop,
    Known,
    Params,
    RowRule,
    Seen,
    SetRule,
    concerns,
    draw_order,
)
from tasks.curate_rules import RULES

Progress = Callable[[str, int], None]
"""Called now and then with (what is done, rows so far)."""

KEPT = ""
"""Fate of a row that is kept; others are the rule, or what a policy made of it."""

_ROWS_PER_REPORT = 64

Kept = tuple[int, Path, Sample]
"""Number of a row over all files, its file, and the row."""


class Plan:
    """The fate of every row, as the rules have it. Memory holds no images, some bytes a row."""

    def __init__(
        self,
        files: Sequence[Path],
        rules: Mapping[str, Params],
        known: Known,
        *,
        seed: int,
        progress: Progress,
    ) -> None:
        """Reads every row once.

        Raises: DataSpecError at the first row that cannot be read.
        """
        self.files = list(files)
        self.fates: list[str] = []
        self.file_starts: list[int] = []
        """Number of the first row of each file."""
        self._sources: list[str] = []
        self._rules = rules
        self._row_rules = [
            (name, rule, params)
            for name, params in rules.items()
            if isinstance(rule := RULES[name], RowRule) and (not rule.needs_known or any(known))
        ]
        self._set_rules = [
            (name, rule, params)
            for name, params in rules.items()
            if isinstance(rule := RULES[name], SetRule)
        ]
        self._candidates: dict[str, dict[str, list[Candidate]]] = {}
        self._examples: dict[int, Example] = {}
        running = {name for name, *_ in (*self._row_rules, *self._set_rules)}
        names = [name for name in rules if name in running]
        self.report = CurationReport(
            rules={name: RuleCount() for name in names},
            params={name: rules[name] for name in names},
            seed=seed,
            inputs=[str(path) for path in files],
        )
        seen = Seen(known)
        for path in self.files:
            self.file_starts.append(len(self.fates))
            for row in read_rows(path):
                self._take(_readable(row), seen, seed)
                if len(self.fates) % _ROWS_PER_REPORT == 0:
                    progress("rules", len(self.fates))
        for name, rule, params in self._set_rules:
            self._balance(name, rule, params)
        self._candidates.clear()
        self._examples.clear()

    def kept(self, fate: str = KEPT, among: Sequence[int] | None = None) -> Iterator[Kept]:
        """The rows of that fate in file order, rewritten, with their number and file.

        Args:
            fate: KEPT, or what `mark` gave.
            among: 1 for each row that is wanted, else 0; None = all.
        """
        for index, (path, start) in enumerate(zip(self.files, self.file_starts, strict=True)):
            end = (*self.file_starts[1:], len(self.fates))[index]
            if not any(self._is_wanted(number, fate, among) for number in range(start, end)):
                continue
            for number, row in enumerate(read_rows(path), start=start):
                if self._is_wanted(number, fate, among):
                    yield number, path, self._rewritten(_readable(row))

    def mark(self, number: int, fate: str) -> None:
        """Leaves out a row that the rules kept."""
        self.fates[number] = fate

    def finish(self) -> CurationReport:
        """The report, sources counted."""
        for source, fate in zip(self._sources, self.fates, strict=True):
            count = self.report.source(source)
            count.rows += 1
            if fate == KEPT:
                count.kept += 1
            else:
                count.left_out[fate] = count.left_out.get(fate, 0) + 1
        return self.report

    def _is_wanted(self, number: int, fate: str, among: Sequence[int] | None) -> bool:
        return self.fates[number] == fate and (among is None or bool(among[number]))

    def _take(self, sample: Sample, seen: Seen, seed: int) -> None:
        """Judges one row by the rules for single rows."""
        self._sources.append(sample.source)
        for name, rule, params in self._row_rules:
            if not concerns(rule, sample):
                continue
            count = self.report.rules[name]
            count.rows += 1
            found = rule.judge(sample, params, seen)
            if isinstance(found, Drop):
                count.dropped += 1
                self._show(count, example_of(sample, found.reason))
                self.fates.append(name)
                return
            if found is not sample:
                count.rewritten += 1
                change = f"rewritten: {found.question[:60]!r} -> {found.reward.answer[:60]!r}"
                self._show(count, example_of(sample, change))
                sample = found
        self._remember(sample, seed)
        self.fates.append(KEPT)

    def _remember(self, sample: Sample, seed: int) -> None:
        """What the balances need of a row."""
        number = len(self.fates)
        for name, rule, _ in self._set_rules:
            groups = rule.groups(sample) if concerns(rule, sample) else ()
            if groups:
                order = draw_order(seed, name, sample)
                candidate = Candidate(number, sample.source, groups, order)
                of_rule = self._candidates.setdefault(name, {})
                of_rule.setdefault(sample.source, []).append(candidate)
                self._examples.setdefault(number, example_of(sample, ""))

    def _balance(self, name: str, rule: SetRule, params: Params) -> None:
        count = self.report.rules[name]
        for source in sorted(self._candidates.get(name, {})):
            candidates = [
                candidate
                for candidate in self._candidates[name][source]
                if self.fates[candidate.number] == KEPT
            ]
            count.rows += len(candidates)
            left_out = rule.balance(candidates, params)
            for number in sorted(left_out):
                self.fates[number] = name
                count.dropped += 1
                self._show(count, replace(self._examples[number], reason=left_out[number]))

    def _rewritten(self, sample: Sample) -> Sample:
        for _, rule, params in self._row_rules:
            if rule.may_rewrite and concerns(rule, sample):
                found = rule.judge(sample, params, Seen())
                assert isinstance(found, Sample)
                sample = found
        return sample

    def _show(self, count: RuleCount, example: Example) -> None:
        if len(count.examples) < EXAMPLES_MAX:
            count.examples.append(example)


def _readable(row: Sample | DataSpecError) -> Sample:
    if not isinstance(row, DataSpecError):
        return row
    remedy = "`vl data check FILE --fix OUT` writes a file's good rows"
    if row.problem is None:
        raise DataSpecError(f"{row}. {remedy}") from row
    problems: list[Problem] = [
        replace(item, remedy=f"{item.remedy}. {remedy}") for item in row.problems
    ]
    raise DataSpecError.of(*problems) from row
