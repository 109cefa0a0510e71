"""Rows worth training on: rules first, then how hard each row is for a policy.

Source: V-Triune, arXiv 2505.18129, section 3.3; MiniMax-M1, arXiv 2506.13585.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_specs import (
    HELD_OUT,
    DataSpecError,
    ImageRef,
    Problem,
    Sample,
    file_uses,
    parquet_files,
    write_samples,
)
from tasks.check import split_named
from tasks.curate_difficulty import (
    BANDS,
    Ask,
    Band,
    Policy,
    RowScores,
    ScoreBook,
    band_of,
)
from tasks.curate_known import read_known
from tasks.curate_plan import KEPT, Plan, Progress
from tasks.curate_report import CurationReport, difficulty_bin
from tasks.curate_rule import Known, Params
from tasks.curate_rules import RULES, chosen_rules
from verifiers import FixedIou, ScoreContext, Verdict, score_batch

SCORES = "difficulty.jsonl"
REPORT = "curation.json"
UNJUDGED = "unjudged"
"""Folder of the rows that have too few scored answers."""

_WRITING = ".writing"

Judge = Callable[[Sequence[tuple[Sample, str]]], list[Verdict]]


@dataclass(frozen=True, kw_only=True)
class CurateConfig:
    """How rows are picked."""

    rules: Mapping[str, Params] = field(default_factory=chosen_rules)
    """The rules that run, with their numbers."""
    against: tuple[Path, ...] = ()
    """Evaluation files whose questions and images are dropped."""
    bands: Mapping[str, Band] = field(default_factory=lambda: dict(BANDS))
    iou_threshold: float = 0.5
    """A box row scores its IoU where that reaches so much, else 0."""
    seed: int = 0
    """Of the draws of the balances."""


def curate(
    inputs: Sequence[Path],
    out: Path,
    config: CurateConfig,
    *,
    policy: Policy | None = None,
    judge: Judge | None = None,
    dry_run: bool = False,
    progress: Progress = lambda what, done: None,
) -> CurationReport:
    """Writes the rows worth training on, by source, with `curation.json`; what it did.

    Stopped at any moment and called again, it asks the policy no row twice. A dry run writes
    nothing and does not ask a live policy. Answers are judged in a process that can be stopped,
    unless another `judge` is given.

    Raises:
        DataSpecError: a row that cannot be read, or two with one id.
        ValueError: `out` holds something else.
    """
    if not dry_run:
        _make_ready(out)
    files = parquet_files(inputs)
    known = Known(frozenset(), frozenset(), frozenset())
    if config.against:
        numbers = {**RULES["known_words"].params, **config.rules.get("known_words", {})}
        n, most = int(numbers["n"]), int(numbers["common_max"])
        known = read_known(config.against, n=n, common_max=most)
    plan = Plan(files, config.rules, known, seed=config.seed, progress=progress)
    difficulty: dict[int, float] = {}
    if policy is not None:
        name = f"{policy.name}; boxes at IoU {config.iou_threshold:g}"
        with ScoreBook(out / SCORES, name, is_kept=not dry_run) as book:
            not_asked: set[int] = set()
            if dry_run and policy.is_live:
                rows = plan.kept()
                not_asked = {number for number, _, sample in rows if book.find(sample) is None}
                plan.report.num_not_asked = len(not_asked)
            else:
                _ask(plan, policy, book, config.bands, judge or _judge_of(config), progress)
            difficulty = _apply_bands(plan, book, config.bands, not_asked)
        plan.report.policy = name
        plan.report.bands = {name: str(band) for name, band in config.bands.items()}
    report = plan.finish()
    rows = _RowFiles(plan, difficulty)
    report.files = rows.sizes()
    if not dry_run:
        rows.write(out, progress)
        _write_report(report, out)
    return report


def _make_ready(out: Path) -> None:
    """Refuses a folder that is in use; clears what a killed run had begun to write."""
    if out.is_file():
        raise ValueError(f"{out}: is a file; give a folder")
    if (out / _WRITING).exists():
        for path in (*out.glob("*.parquet"), *out.glob(f"{UNJUDGED}/*.parquet")):
            path.unlink()
        (out / REPORT).unlink(missing_ok=True)
        shutil.rmtree(out / _WRITING)
    found = sorted(path.name for path in out.iterdir()) if out.exists() else []
    others = [name for name in found if name not in (SCORES, UNJUDGED)]
    if others:
        raise ValueError(
            f"{out}: has {', '.join(others[:3])}; allowed: an empty or absent folder, or one with "
            f"{SCORES} of a run that was stopped. Choose another folder, or delete it"
        )


def _judge_of(config: CurateConfig) -> Judge:
    context = ScoreContext(iou_rule=FixedIou(config.iou_threshold))
    return lambda items: score_batch(items, context, workers=1)


def _asks(plan: Plan, book: ScoreBook, bands: Mapping[str, Band]) -> Iterator[Ask]:
    for _, _, sample in plan.kept():
        if book.find(sample) is None:
            yield Ask(sample, band_of(sample, bands).num_answers)


def _ask(
    plan: Plan,
    policy: Policy,
    book: ScoreBook,
    bands: Mapping[str, Band],
    judge: Judge,
    progress: Progress,
) -> None:
    """Lets the policy answer every kept row that has no scores yet."""
    progress("answers", len(book))
    for sample, texts in policy.answers(_asks(plan, book, bands)):
        book.add(sample, judge([(sample, text) for text in texts]) if texts else [])
        progress("answers", len(book))


def _apply_bands(
    plan: Plan, book: ScoreBook, bands: Mapping[str, Band], not_asked: set[int]
) -> dict[int, float]:
    """Leaves out rows outside their band; the difficulty of each row by number."""
    difficulty: dict[int, float] = {}
    fates: dict[int, str] = {}
    for number, _, sample in plan.kept():
        if number in not_asked:
            continue
        scores = book.find(sample) or RowScores((), ())
        outcome = band_of(sample, bands).outcome(scores.scored)
        fates[number] = KEPT if outcome == "kept" else outcome
        value = scores.difficulty
        if value is None or outcome == "unjudged":
            continue
        difficulty[number] = value
        count = plan.report.source(sample.source)
        count.difficulty[difficulty_bin(value)] += 1
        right = sum(score == 1.0 for score in scores.scored)
        key = "none" if right == 0 else "all" if right == len(scores.scored) else "some"
        count.passed[key] += 1
    for number, fate in fates.items():
        plan.mark(number, fate)
    return difficulty


class _RowFiles:
    """The rows that are written, by file `{split}_{task}_{source}_{num}.parquet`."""

    def __init__(self, plan: Plan, difficulty: Mapping[int, float]) -> None:
        self._plan, self._difficulty = plan, difficulty
        self._numbers: dict[tuple[str, str, str], list[int]] = {}
        """Fate, start and end of the name -> its rows."""
        ids: dict[tuple[bool, str], str] = {}
        for fate in (KEPT, UNJUDGED):
            for number, path, sample in plan.kept(fate):
                split = split_of(sample, path)
                key = split.casefold() in HELD_OUT, sample.id
                if key in ids:
                    raise _same_id(sample, path, ids[key])
                ids[key] = sample.where
                uses = file_uses(path)
                end = f"_x{uses}" if uses > 1 else ""
                start = "_".join(map(_plain, (split, sample.task, sample.source)))
                self._numbers.setdefault((fate, start, end), []).append(number)

    def sizes(self) -> dict[str, int]:
        """Name of each file, relative to the folder -> rows."""
        return {_name(*key, len(rows)): len(rows) for key, rows in self._numbers.items()}

    def write(self, out: Path, progress: Progress) -> None:
        """Writes every file, then puts them all in place."""
        folder = out / _WRITING
        (folder / UNJUDGED).mkdir(parents=True)
        done = 0
        for key, numbers in self._numbers.items():
            done += write_samples(
                self._samples(key[0], numbers), folder / _name(*key, len(numbers))
            )
            progress("writing", done)
        for key, numbers in self._numbers.items():
            name = _name(*key, len(numbers))
            (out / name).parent.mkdir(exist_ok=True)
            os.replace(folder / name, out / name)

    def _samples(self, fate: str, numbers: list[int]) -> Iterator[Sample]:
        wanted = bytearray(len(self._plan.fates))
        for number in numbers:
            wanted[number] = 1
        for number, _, sample in self._plan.kept(fate, wanted):
            value = self._difficulty.get(number)
            extra = sample.extra if value is None else {**sample.extra, "difficulty": value}
            yield replace(sample, extra=extra, images=_inside(sample))


def _inside(sample: Sample) -> tuple[ImageRef, ...]:
    """The images with their bytes, so that the written file needs no other."""
    try:
        return tuple(ImageRef(data=item.encoded(), path=item.path) for item in sample.images)
    except DataSpecError as error:
        raise DataSpecError(f"{sample.where} (id {sample.id}): {error}") from error


def split_of(sample: Sample, path: Path) -> str:
    """What a row is for: its own word, else that of its file's name or folder, else train."""
    own = sample.extra.get("split")
    if isinstance(own, str) and own:
        return own
    return split_named(path) or "train"


def _name(fate: str, start: str, end: str, num_rows: int) -> str:
    folder = "" if fate == KEPT else f"{fate}/"
    return f"{folder}{start}_{num_rows}{end}.parquet"


def _plain(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", text).strip(".") or "-"


def _same_id(sample: Sample, path: Path, other: str) -> DataSpecError:
    return DataSpecError.of(
        Problem(
            file=str(path),
            row=None,
            id=sample.id,
            field="extra_info.id",
            value=repr(sample.id),
            allowed=f"one that is unique in its split; {other or 'another row'} has it already",
            remedy="Number the rows; `vl data check` lists all of them",
            kind="duplicate_id",
        )
    )


def _write_report(report: CurationReport, out: Path) -> None:
    """The last file: with it the folder is whole."""
    temporary = out / _WRITING / REPORT
    temporary.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, out / REPORT)
    shutil.rmtree(out / _WRITING)
