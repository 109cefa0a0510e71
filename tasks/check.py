"""Checks every row before any compute: its judge, its gold answer, its images, its boxes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from data_specs import (
    IMAGE_MARKER,
    SPACES,
    DataSpecError,
    Problem,
    RewardSpec,
    Sample,
    Space,
    is_inside,
    parquet_files,
    read_rows,
    shorten,
)
from verifiers import check_spec, find_verifier, parse_boxes, score

PROBLEMS_SHOWN = 20
"""Problems named by the error that stops a run."""

_FIX = "Correct the row, or remove it"


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

    @property
    def is_ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def raise_if_bad(self) -> None:
        """Raise DataSpecError with the first problems, if there are any."""
        if not self.problems:
            return
        shown = [str(problem) for problem in self.problems[:PROBLEMS_SHOWN]]
        more = len(self.problems) - len(shown)
        if more:
            shown.append(f"... and {more} more")
        head = f"{len(self.problems)} problems in {self.num_rows} rows:"
        raise DataSpecError("\n".join([head, *shown]), self.problems[0])


def check_files(
    paths: str | Path | Iterable[str | Path], decode_images: bool = True
) -> CheckReport:
    """Check every row of the files and report all that is wrong, rather than the first thing.

    Args:
        paths: parquet files, or folders of them.
        decode_images: decode every different image once; otherwise only look for its bytes.
    """
    problems: list[Problem] = []
    sources: Counter[str] = Counter()
    tasks: Counter[str] = Counter()
    num_rows = 0
    images = _ImageCheck(decode_images)
    golds: dict[tuple[object, ...], tuple[str, object, str, str] | None] = {}
    for path in _files(paths, problems):
        row_of_id: dict[str, int] = {}
        try:
            for number, row in enumerate(read_rows(path)):
                num_rows += 1
                if isinstance(row, DataSpecError):
                    problems.append(_problem_of(row, path))
                    continue
                sources[row.source] += 1
                tasks[row.task] += 1
                found = [*_check_reward(row, golds), *_check_prompt(row), *_check_boxes(row)]
                found.extend(images.check(row))
                first = row_of_id.setdefault(row.id, number)
                if first != number:
                    allowed = f"one that is unique in its file; row {first} has it already"
                    found.append(("extra_info.id", row.id, allowed, "Number the rows"))
                problems.extend(_at(path, number, row.id, *item) for item in found)
        except DataSpecError as error:  # the file itself
            problems.append(_problem_of(error, path))
    return CheckReport(
        problems=tuple(problems),
        num_rows=num_rows,
        rows_by_source=dict(sorted(sources.items())),
        rows_by_task=dict(sorted(tasks.items())),
        num_images=images.num_images,
    )


_Found = tuple[str, object, str, str]
"""Field, value, what is allowed, remedy."""


def _files(paths: str | Path | Iterable[str | Path], problems: list[Problem]) -> list[Path]:
    try:
        return parquet_files(paths)
    except DataSpecError as error:
        problems.append(_problem_of(error, Path()))
        return []


def _problem_of(error: DataSpecError, path: Path) -> Problem:
    if error.problem is not None:
        return error.problem
    return _at(path, None, "", "row", str(error), "a row that can be read", _FIX)


def _at(
    path: Path, row: int | None, id_: str, field: str, value: object, allowed: str, remedy: str
) -> Problem:
    return Problem(
        file=path.name,
        row=row,
        id=id_,
        field=field,
        value=shorten(value),
        allowed=allowed,
        remedy=remedy,
    )


def _check_reward(sample: Sample, known: dict[tuple[object, ...], _Found | None]) -> list[_Found]:
    """Verifier, parameters and gold answer; equal settings are judged once."""
    spec = sample.reward
    asks_for_year = spec.verifier == "number" and "year" in sample.question.casefold()
    params = json.dumps(dict(spec.params), sort_keys=True, default=repr)
    ratios = (spec.accuracy_ratio, spec.format_ratio)
    key = (spec.verifier, spec.ground_truth, params, ratios, asks_for_year)
    if key not in known:
        known[key] = _judge_gold(sample)
    found = known[key]
    return [found] if found else []


def _judge_gold(sample: Sample) -> _Found | None:
    """What is wrong with the row as its own verifier sees it, or None."""
    spec = sample.reward
    problem = check_spec(spec)
    if problem is not None:
        if find_verifier(spec.verifier) is None:
            remedy = "Correct the name, or install the package that registers it"
            return "reward_model.verifier", spec.verifier, problem, remedy
        return "reward_model.verifier_parm", dict(spec.params), problem, _FIX
    gold = replace(sample, images=(), reward=_as_written(spec))
    verdict = score(gold, spec.ground_truth)
    if verdict.score == 1.0:
        return None
    got = verdict.status if verdict.score is None else f"{verdict.score:g}"
    allowed = f"a response that scores 1 with {spec.verifier}; it scores {got}: {verdict.reason}"
    remedy = (
        r"Write it as a response, \boxed{...} or <answer>[...]</answer>, or change the verifier"
    )
    return "reward_model.ground_truth", spec.ground_truth, allowed, remedy


def _as_written(spec: RewardSpec) -> RewardSpec:
    """The settings for judging the gold answer: its boxes are per mille, however answers come."""
    if not spec.params.get("det_verifier_normalized"):
        return spec
    return replace(spec, params={**spec.params, "det_verifier_normalized": False})


def _check_prompt(sample: Sample) -> list[_Found]:
    """As many markers as images, and someone who asks."""
    found: list[_Found] = []
    markers = sum(message.content.count(IMAGE_MARKER) for message in sample.messages)
    if markers != len(sample.images):
        allowed = f"as many {IMAGE_MARKER} markers as images; there are {len(sample.images)} images"
        remedy = "Put a marker where each image goes"
        found.append(("prompt", f"{markers} markers", allowed, remedy))
    if not sample.question:
        found.append(("prompt", "no question", "a user message with text", _FIX))
    return found


def _check_boxes(sample: Sample) -> Iterator[_Found]:
    """Reference boxes and the dense annotation lie within the image."""
    extra = sample.extra
    space, size = "per_mille", _image_size(extra)
    given = extra.get("coordinate_space")
    if given is not None:
        if given not in SPACES:
            yield "extra_info.coordinate_space", given, ", ".join(SPACES), _FIX
            return
        space = given
    if sample.reward.verifier == "detection" and (space in ("per_mille", "unit") or size):
        resized = size if space == "resized" else None
        for box in parse_boxes(sample.reward.ground_truth, cast("Space", space)):
            if not is_inside(box, image_size=size, resized_size=resized):
                value = (*box.corners, box.label)
                allowed = f"boxes within the image ({space})"
                yield "reward_model.ground_truth", value, allowed, _FIX
    if "objects" in extra:
        problem = _objects_problem(extra["objects"])
        if problem:
            allowed = 'a JSON list of {"bbox_2d": [x1, y1, x2, y2] per mille, "label": text}'
            yield "extra_info.objects", problem, allowed, _FIX


def _image_size(extra: Mapping[str, object]) -> tuple[int, int] | None:
    width, height = extra.get("image_width"), extra.get("image_height")
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return width, height
    return None


def _objects_problem(value: object) -> object:
    """The part of the dense annotation that is wrong, or None."""
    try:
        objects: object = json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        objects = None
    if not isinstance(objects, list):
        return value
    for item in cast("list[object]", objects):
        boxes = parse_boxes(json.dumps([item]))
        if len(boxes) != 1 or not is_inside(boxes[0]):
            return item
    return None


class _ImageCheck:
    """Looks at every different image once."""

    def __init__(self, decode: bool) -> None:
        self._decode = decode
        self._seen: dict[bytes, str | None] = {}
        self._last: tuple[bytes, str | None] | None = None

    @property
    def num_images(self) -> int:
        """Different images seen so far."""
        return len(self._seen)

    def check(self, sample: Sample) -> Iterator[_Found]:
        """What is wrong with the images of a row."""
        for index, image in enumerate(sample.images):
            try:
                encoded = image.encoded()
            except DataSpecError as error:
                yield f"images[{index}]", image.path, str(error), _FIX
                continue
            if self._last is not None and self._last[0] is encoded:
                problem = self._last[1]
            else:
                digest = hashlib.sha256(encoded).digest()
                if digest not in self._seen:
                    self._seen[digest] = self._problem(sample, index)
                problem = self._seen[digest]
                self._last = (encoded, problem)
            if problem is not None:
                yield f"images[{index}]", encoded[:24], problem, _FIX

    def _problem(self, sample: Sample, index: int) -> str | None:
        if not self._decode:
            return None
        try:
            sample.images[index].open()
        except DataSpecError as error:
            return str(error)
        return None
