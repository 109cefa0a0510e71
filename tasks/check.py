"""Checks every row before any compute: its judge, its gold answer, its images, its boxes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from data_specs import (
    HELD_OUT,
    IMAGE_MARKER,
    DataSpecError,
    Problem,
    Sample,
    count_rows,
    parquet_files,
    read_rows,
    shorten,
)
from tasks.check_boxes import BoxCheck
from tasks.check_fault import Fault, RowPlace
from tasks.check_images import ImageCheck
from tasks.check_report import CheckedFile, CheckReport
from tasks.check_reward import RewardCheck
from tasks.check_rows import Finding, RowTable

_FIRST_WORD = re.compile(r"[A-Za-z]+")
_ROWS_PER_REPORT = 256

Paths = str | Path | Iterable[str | Path]


def check_files(
    paths: Paths,
    decode_images: bool = True,
    *,
    heldout: Paths = (),
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Check every row of the files and report all that is wrong, rather than the first thing.

    Args:
        paths: parquet files, or folders of them. A row is held out if its `split` says so, or
            else the name of its file or folder (`test_...`).
        decode_images: decode every different image once; otherwise its header and end are read.
        heldout: files of which every row is held out; then those of `paths` are for training.
        progress: called now and then with rows done and rows in all.
    """
    with RewardCheck() as rewards:
        return _Check(decode_images, rewards, progress).run(paths, heldout)


class _Check:
    """One run of `check_files`."""

    def __init__(
        self,
        decode_images: bool,
        rewards: RewardCheck,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._progress = progress
        self._images = ImageCheck(decode_images)
        self._rewards = rewards
        self._table = RowTable()
        self._sources: Counter[str] = Counter()
        self._tasks: Counter[str] = Counter()
        self._files: list[CheckedFile] = []
        self._problems: list[tuple[int, int, Problem]] = []  # file, row or -1
        self._num_rows = self._num_expected = 0

    def run(self, paths: Paths, heldout: Paths) -> CheckReport:
        given = {path.resolve(): path for path in self._listed(paths)}
        held = {path.resolve(): path for path in self._listed(heldout)}
        both = given | held
        names = _names(list(both.values()))
        if self._progress:
            self._num_expected = sum(map(count_rows, both))
        for index, (key, path) in enumerate(both.items()):
            is_heldout = key in held if held else split_named(path) in HELD_OUT
            file = CheckedFile(name=names[index], path=path, num_rows=0, is_heldout=is_heldout)
            self._files.append(file)
            if key in given and key in held:
                allowed, remedy = "one of the two", "Name it once"
                fault = Fault("overlap", "file", "for training and held out", allowed, remedy)
                self._add(RowPlace(index, -1, ""), fault)
            num_rows = self._check_file(index, file, own_split=not held)
            self._files[index] = replace(file, num_rows=num_rows)
        unsound: set[RowPlace] = set()
        for place, fault in self._rewards.late():
            unsound.add(place)
            self._add(place, fault)
        for finding in self._table.findings():
            if finding.kind != "contradiction" or not unsound & {finding.place, finding.other}:
                self._add(finding.place, self._between(finding))
        return self._report()

    def _report(self) -> CheckReport:
        self._problems.sort(key=lambda item: item[:2])  # stable: as found within a row
        return CheckReport(
            problems=tuple(problem for _, _, problem in self._problems),
            num_rows=self._num_rows,
            rows_by_source=dict(sorted(self._sources.items())),
            rows_by_task=dict(sorted(self._tasks.items())),
            num_images=self._table.num_images(),
            files=tuple(self._files),
        )

    def _listed(self, paths: Paths) -> Iterator[Path]:
        """The files meant; a folder that has none is a problem."""
        for path in [paths] if isinstance(paths, str | Path) else paths:
            try:
                yield from parquet_files(path)
            except DataSpecError as error:
                self._problems.extend((-1, -1, problem) for problem in error.problems)

    def _check_file(self, index: int, file: CheckedFile, *, own_split: bool) -> int:
        """Check one file and return the number of its rows."""
        num_before, boxes = self._num_rows, BoxCheck()
        stem, row = file.path.stem, -1
        try:
            for row, item in enumerate(read_rows(file.path)):
                self._num_rows += 1
                if self._progress and self._num_rows % _ROWS_PER_REPORT == 0:
                    self._progress(self._num_rows, max(self._num_expected, self._num_rows))
                if isinstance(item, DataSpecError):
                    self._add_read(index, row, item)
                    continue
                place = RowPlace(index, row, item.id)
                is_heldout = _row_is_heldout(item, file) if own_split else file.is_heldout
                has_id = item.id != f"{stem}:{row}"
                self._check_row(item, place, boxes, is_heldout=is_heldout, has_id=has_id)
        except DataSpecError as error:  # the file itself
            self._add_read(index, -1, error)
        else:
            if row < 0:
                fault = Fault("empty_file", "rows", 0, "at least one row", "Leave the file out")
                self._add(RowPlace(index, -1, ""), fault)
            file_fault = boxes.file_fault()
            if file_fault is not None:
                self._add(RowPlace(index, -1, ""), file_fault)
        return self._num_rows - num_before

    def _check_row(
        self, sample: Sample, place: RowPlace, boxes: BoxCheck, *, is_heldout: bool, has_id: bool
    ) -> None:
        self._sources[sample.source] += 1
        self._tasks[sample.task] += 1
        hashes, header, image_faults = self._images.check(sample)
        box_faults = list(boxes.check(sample, header))
        reward_fault = self._rewards.check(sample, place)
        is_sound = not box_faults and reward_fault is None
        if reward_fault is not None and not (box_faults and reward_fault.kind == "bad_reference"):
            self._add(place, reward_fault)  # unless the boxes are the reason
        for fault in (*_prompt_faults(sample), *box_faults, *image_faults):
            self._add(place, fault)
        self._table.add(
            place, sample, hashes, is_heldout=is_heldout, has_id=has_id, is_sound=is_sound
        )

    def _between(self, finding: Finding) -> Fault:
        """What to say of a row that does not go with another."""
        other = f"row {finding.other.row} of {self._files[finding.other.file].name}"
        if finding.other.id:
            other += f" (id {finding.other.id})"
        kind, id_ = finding.kind, finding.place.id
        if kind == "duplicate_id":
            allowed = f"one that is unique in its split; {other} has it already"
            return Fault(kind, "extra_info.id", id_, allowed, "Number the rows")
        if kind == "contradiction":
            field, value = "reward_model.ground_truth", "another reference"
            allowed = f"the reference of {other}, which asks the same of the same images"
            return Fault(kind, field, value, allowed, "Correct one of the two, or remove both")
        allowed = f"images that are not held out; {other} is, and has it"
        return Fault(kind, "images", "in a held-out row too", allowed, "Remove this row")

    def _add(self, place: RowPlace, fault: Fault) -> None:
        problem = Problem(
            file=self._files[place.file].name,
            row=None if place.row < 0 else place.row,
            id=place.id,
            field=fault.field,
            value=shorten(fault.value),
            allowed=fault.allowed,
            remedy=fault.remedy,
            kind=fault.kind,
        )
        self._problems.append((place.file, place.row, problem))

    def _add_read(self, file: int, row: int, error: DataSpecError) -> None:
        name = self._files[file].name
        for problem in error.problems:
            self._problems.append((file, row, replace(problem, file=name)))


def _prompt_faults(sample: Sample) -> Iterator[Fault]:
    """As many markers as images, and someone who asks last."""
    markers = sum(message.content.count(IMAGE_MARKER) for message in sample.messages)
    if markers != len(sample.images):
        allowed = f"as many {IMAGE_MARKER} markers as images; there are {len(sample.images)} images"
        remedy = "Put a marker where each image goes"
        yield Fault("image_markers", "prompt", f"{markers} markers", allowed, remedy)
    if not sample.question:
        yield Fault("no_question", "prompt", "no question", "a user message with text")
    if sample.messages and sample.messages[-1].role == "assistant":
        field = f"prompt[{len(sample.messages) - 1}].role"
        remedy = "Remove the message: it may give the answer away"
        yield Fault("bad_role", field, "assistant", "a question at the end", remedy)


def split_named(path: Path) -> str:
    """The split that the file's name says (`test_...`), or else its folder's; empty if neither."""
    first = _FIRST_WORD.match(path.stem)
    for word in (first.group() if first else "", path.absolute().parent.name):
        if word.casefold() in (*HELD_OUT, "train"):
            return word.casefold()
    return ""


def _row_is_heldout(sample: Sample, file: CheckedFile) -> bool:
    split = sample.extra.get("split")
    if not isinstance(split, str) or not split:
        return file.is_heldout
    return split.casefold() in HELD_OUT


def _names(files: list[Path]) -> list[str]:
    """The shortest end of each path that no other file has."""
    names: list[str] = []
    for path in files:
        length = 1
        while (
            length < len(path.parts)
            and sum(other.parts[-length:] == path.parts[-length:] for other in files) > 1
        ):
            length += 1
        names.append("/".join(path.parts[-length:]))
    return names
