"""Converted samples to a file: whole or not at all, ids unique, every reference judged once."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from data_specs.convert_images import LoadedImage
from data_specs.convert_log import ConvertLog, Fault, Place
from data_specs.convert_options import ConvertOptions
from data_specs.parquet_write import write_samples
from data_specs.problem import DataSpecError
from data_specs.sample import IMAGE_MARKER, Message, RewardSpec, Sample

_Row = TypeVar("_Row")


@dataclass(frozen=True, kw_only=True)
class ConvertReport:
    """What a conversion made."""

    out: Path
    num_rows: int
    rows_by_task: Mapping[str, int]
    rows_by_verifier: Mapping[str, int]
    rows_by_split: Mapping[str, int]
    """Rows that name a split."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A row as a format's converter sees it, before the shared options are applied."""

    place: Place
    id: str
    """Unique in the input; the source's name is put in front."""
    messages: tuple[Message, ...]
    images: Sequence[LoadedImage]
    reward: RewardSpec
    extra: Mapping[str, object]
    split: str = ""
    """What the record itself says; empty = nothing."""
    source: str = ""
    """What the record itself says; empty = nothing."""
    task: str = ""


def ask(question: str, num_images: int) -> tuple[Message, ...]:
    """One user message; `<image>` markers in front if the question has none."""
    return (Message(role="user", content=with_markers(question, num_images)),)


def with_markers(text: str, num_images: int) -> str:
    """The text with one marker an image: where they stand, else in front.

    Raises: Fault if there are markers, but fewer or more than images.
    """
    count = text.count(IMAGE_MARKER)
    if count == num_images:
        return text
    if count:
        allowed = f"as many {IMAGE_MARKER} markers as images ({num_images}), or none"
        raise Fault("markers do not match images", "question", f"{count} markers", allowed)
    return IMAGE_MARKER * num_images + text


def finish(draft: Draft, options: ConvertOptions, default_task: str) -> Sample:
    """The row with the shared options applied.

    Raises: Fault if the row is not asked for, or cannot be used.
    """
    if options.split and draft.split and draft.split != options.split:
        raise Fault("other split", "split", draft.split, options.split, by_rule=True)
    source = options.source or draft.source or Path(draft.place.file).stem
    facts: dict[str, object] = {}
    split = options.split or draft.split
    if split:
        facts["split"] = split
    if options.licence:
        facts["licence"] = options.licence
    if len(draft.images) == 1:
        facts |= {"image_width": draft.images[0].width, "image_height": draft.images[0].height}
    return Sample(
        id=f"{source}-{draft.id}",
        source=source,
        task=options.task or draft.task or default_task,
        messages=_appended(draft.messages, options.append),
        images=tuple(image.ref for image in draft.images),
        reward=draft.reward,
        extra={**facts, **draft.extra},
        where=f"{draft.place.file} record {draft.place.number}",
    )


def overridden(sample: Sample, options: ConvertOptions) -> Sample:
    """A row that has everything already, with what the shared options say otherwise.

    Raises: Fault if its split is not asked for.
    """
    own = sample.extra.get("split")
    if options.split and own is not None and own != options.split:
        raise Fault("other split", "split", own, options.split, by_rule=True)
    facts = {"split": options.split, "licence": options.licence}
    return replace(
        sample,
        source=options.source or sample.source,
        task=options.task or sample.task,
        messages=_appended(sample.messages, options.append),
        extra={**sample.extra, **{name: value for name, value in facts.items() if value}},
    )


def check_row(sample: Sample, options: ConvertOptions) -> None:
    """Raise Fault if nobody asks anything, or the reference does not score 1 with its verifier."""
    if not sample.question:
        raise Fault("no question", "question", sample.question, "a user message with text")
    problem = options.judging.gold_fault(sample)
    if problem:
        spec = sample.reward
        raise Fault(
            "reference cannot be judged",
            "answer",
            spec.ground_truth,
            f"one that scores 1 with {spec.verifier}: {problem}",
            "Choose another verifier with --verifier, or correct the record",
        )


def place_of(sample: Sample) -> Place:
    """Where a sample came from."""
    found = re.fullmatch(r"(.*) (?:record|row) (\d+)", sample.where)
    if found is None:
        return Place(file=sample.where, id=sample.id)
    return Place(file=found[1], number=int(found[2]), id=sample.id)


class Gate:
    """Lets samples pass that a file may hold: new ones, with an id of their own, up to a limit."""

    def __init__(self, log: ConvertLog, limit: int | None = None) -> None:
        self._tasks: Counter[str] = Counter()
        self._verifiers: Counter[str] = Counter()
        self._splits: Counter[str] = Counter()
        self._log = log
        self._limit = limit
        self._uses_of_id: Counter[str] = Counter()
        self._asked: dict[bytes, bytes] = {}

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self._limit is not None and self._tasks.total() >= self._limit

    def passed(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples to write."""
        for sample in samples:
            fault = self._repetition(sample)
            if fault is not None:
                self._log.add(fault, place_of(sample))
                continue
            self.count(sample)
            yield self._with_new_id(sample)
            if self.is_full:
                return

    def count(self, sample: Sample) -> None:
        """Counts a sample that is written."""
        self._tasks[sample.task] += 1
        self._verifiers[sample.reward.verifier] += 1
        if "split" in sample.extra:
            self._splits[str(sample.extra["split"])] += 1

    def report(self, out: Path) -> ConvertReport:
        """What was written to a file."""
        return ConvertReport(
            out=out,
            num_rows=self._tasks.total(),
            rows_by_task=dict(self._tasks),
            rows_by_verifier=dict(self._verifiers),
            rows_by_split=dict(self._splits),
        )

    def _repetition(self, sample: Sample) -> Fault | None:
        """Why a sample that asks what an earlier one asked is left out."""
        question = hashlib.blake2b(digest_size=16)
        for image in sample.images:
            question.update(image.data if image.data is not None else repr(image.path).encode())
        for message in sample.messages:
            question.update(f"\0{message.role}\0{message.content}".encode(errors="surrogatepass"))
        spec = sample.reward
        reference = f"{spec.verifier}\0{spec.ground_truth}\0{dict(spec.params)!r}"
        answer = hashlib.blake2b(reference.encode(errors="surrogatepass"), digest_size=16).digest()
        first = self._asked.get(question.digest())
        if first is None:
            self._asked[question.digest()] = answer
            return None
        if first == answer:
            return Fault(
                "repeated row", "question", sample.question, "each question once", by_rule=True
            )
        return Fault(
            "contradiction",
            "answer",
            spec.ground_truth,
            "the reference of the earlier record that asks the same of the same image",
            "Keep the record that is right",
        )

    def _with_new_id(self, sample: Sample) -> Sample:
        id_ = sample.id
        while id_ in self._uses_of_id:
            self._uses_of_id[sample.id] += 1
            id_ = f"{sample.id}-{self._uses_of_id[sample.id]}"
        self._uses_of_id[id_] = 1
        return sample if id_ == sample.id else replace(sample, id=id_)


def guarded(samples: Iterator[_Row], log: ConvertLog, *, strict: bool) -> Iterator[_Row]:
    """The rows; at their end DataSpecError if there were none, or, strictly, any fault."""
    num_rows = 0
    for sample in samples:
        num_rows += 1
        yield sample
    if num_rows == 0:
        raise DataSpecError(f"no row was made{_first(log)}")
    if strict and log.num_faults:
        raise DataSpecError(f"{log.num_faults} problems, and --strict allows none{_first(log)}")


def write_converted(
    samples: Iterable[Sample],
    out: Path,
    log: ConvertLog,
    *,
    limit: int | None = None,
    strict: bool = False,
) -> ConvertReport:
    """Write the samples to one parquet file, whole or not at all.

    Raises: DataSpecError if there is no sample to write, or, strictly, if anything was at fault.
    """
    gate = Gate(log, limit)
    write_samples(guarded(gate.passed(samples), log, strict=strict), out)
    return gate.report(out)


def _appended(messages: tuple[Message, ...], text: str) -> tuple[Message, ...]:
    """The messages with a text behind the last user message."""
    last = max((n for n, message in enumerate(messages) if message.role == "user"), default=-1)
    if not text or last < 0:
        return messages
    changed = Message(role="user", content=f"{messages[last].content} {text}")
    return (*messages[:last], changed, *messages[last + 1 :])


def _first(log: ConvertLog) -> str:
    """The counts of what was left out, and the first problem, for an error message."""
    counts = [f"{kind} {count}" for kind, count in (log.faults + log.by_rule).most_common()]
    head = f": {', '.join(counts)}" if counts else ": the input has no records"
    return f"{head}. First: {log.shown[0]}" if log.shown else head
