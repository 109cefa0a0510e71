"""Rows that are there already: asked before in the data, or part of an evaluation."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from data_specs import IMAGE_MARKER, DataSpecError, Sample, read_samples
from tasks.curate_rule import Drop, Known, Params, Seen

_WORD = re.compile(r"\w+")
_FIELDS = ("question", "prompt", "query", "text")
_TEXT_SUFFIXES = (".txt", ".jsonl")


def drop_duplicate(sample: Sample, params: Params, seen: Seen) -> Sample | Drop:
    """Rows that ask what an earlier row asks of the same images."""
    del params
    said = "\0".join(f"{item.role}\1{item.content}" for item in sample.messages)
    images = "\0".join(_digests(sample))
    spec = sample.reward
    asked = _hash(f"{said}\0\0{images}", 16)
    reference = _hash(f"{spec.verifier}\0{spec.ground_truth}\0{dict(spec.params)!r}", 16)
    first = seen.asked.setdefault(asked, (reference, sample.where or sample.id))
    if first == (reference, sample.where or sample.id):
        return sample
    what = "asks the same" if first[0] == reference else "asks the same and has another reference"
    return Drop(f"{first[1]} {what}")


def drop_known_words(sample: Sample, params: Params, seen: Seen) -> Sample | Drop:
    """Questions that share `n` words in a row with an evaluation question."""
    words = _words(_text(sample))
    n = int(params["n"])
    for start in range(len(words) - n + 1):
        if _gram(words[start : start + n]) in seen.known.grams:
            shared = " ".join(words[start : start + n])
            return Drop(f"an evaluation question has the words {shared[:100]!r}")
    if not sample.images and _gram(words) in seen.known.questions:
        return Drop("an evaluation asks the same")
    return sample


def drop_known_image(sample: Sample, params: Params, seen: Seen) -> Sample | Drop:
    """Rows with an image, byte for byte, of an evaluation."""
    del params
    if seen.known.images and not seen.known.images.isdisjoint(_digests(sample)):
        return Drop("an evaluation has the same image")
    return sample


def read_known(paths: Sequence[Path], *, n: int, common_max: int) -> Known:
    """What the evaluation files ask and show.

    Args:
        paths: parquet files of rows, folders of them, `.txt` (a question a line), or `.jsonl`
            (`question`, `prompt`, `query` or `text`).
        n: words of a gram.
        common_max: grams of more different questions than this are wording of the instruction
            ("think step by step and output the final answer ..."), not content.

    Raises: DataSpecError or ValueError for a file that cannot be read.
    """
    counts: Counter[int] = Counter()
    questions: set[int] = set()
    images: set[str] = set()
    texts: set[tuple[str, ...]] = set()
    for text, digests in _known_rows(paths):
        words = tuple(_words(text))
        images.update(digests)
        if not digests:
            questions.add(_gram(words))
        if words in texts:
            continue
        texts.add(words)
        counts.update({_gram(words[at : at + n]) for at in range(len(words) - n + 1)})
    grams = frozenset(gram for gram, count in counts.items() if count <= common_max)
    return Known(grams, frozenset(questions), frozenset(images))


def _known_rows(paths: Sequence[Path]) -> Iterator[tuple[str, list[str]]]:
    for path in paths:
        if path.suffix in _TEXT_SUFFIXES:
            yield from ((text, []) for text in _lines(path))
        else:
            yield from ((_text(item), _digests(item)) for item in read_samples(path))


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if path.suffix == ".txt" or not line.strip():
                yield line
                continue
            try:
                record: object = json.loads(line)
            except ValueError:
                record = None
            found = _field_of(record)
            if found is None:
                raise ValueError(
                    f"{path} line {number}: found {line[:60]!r}; allowed: an object with one of "
                    f"the texts {', '.join(_FIELDS)}. Correct the line, or leave the file out"
                )
            yield found


def _field_of(record: object) -> str | None:
    if not isinstance(record, dict):
        return None
    fields = cast("dict[str, object]", record)
    values = [fields.get(name) for name in _FIELDS]
    return next((value for value in values if isinstance(value, str)), None)


def _text(sample: Sample) -> str:
    said = [message.content for message in sample.messages if message.role == "user"]
    return "\n".join(said).replace(IMAGE_MARKER, " ")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _gram(words: Sequence[str]) -> int:
    return int.from_bytes(_hash("\0".join(words), 8), "little")


def _hash(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()


def _digests(sample: Sample) -> list[str]:
    """SHA-256 of each image; one that cannot be read is like no other."""
    digests: list[str] = []
    for index, image in enumerate(sample.images):
        try:
            digests.append(image.sha256())
        except DataSpecError:
            digests.append(f"{sample.where} {sample.id} {index}")
    return digests
