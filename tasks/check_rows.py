"""What is wrong between rows: ids given twice, contradictions, training images that are held out.

Each row leaves some hashes of 64 bits here, so memory is about 60 bytes a row beside its id.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_specs import Sample
from tasks.check_fault import RowPlace
from verifiers.answer import reference_text
from verifiers.numerals import plain_number


class Finding(NamedTuple):
    """A row that does not go with another one."""

    kind: str
    """One of `data_specs.KINDS`: duplicate_id, contradiction or overlap."""
    place: RowPlace
    other: RowPlace


Hashes = NDArray[np.uint64]


class RowTable:
    """The rows seen so far, as hashes."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._files, self._rows = array("i"), array("q")
        self._is_heldout = array("b")
        self._id_hashes, self._asked, self._references = array("Q"), array("Q"), array("Q")
        self._images, self._rows_of_images, self._is_image = array("Q"), array("q"), array("b")

    def add(
        self,
        place: RowPlace,
        sample: Sample,
        images: Sequence[int],
        *,
        is_heldout: bool,
        has_id: bool,
        is_sound: bool,
    ) -> None:
        """Remember a row.

        Args:
            place: where it stands.
            sample: the row.
            images: hashes of the images that could be read.
            is_heldout: whether it is for evaluation.
            has_id: whether its id was given, rather than made up from its place.
            is_sound: whether its reference may be compared with that of other rows.
        """
        index = len(self._ids)
        self._ids.append(place.id)
        self._files.append(place.file)
        self._rows.append(place.row)
        self._is_heldout.append(is_heldout)
        unique = place.id if has_id else f"\0{place.file} {place.row}"
        self._id_hashes.append(_hash64(f"{int(is_heldout)} {unique}"))
        said = "\0".join(f"{item.role}\1{item.content}" for item in sample.messages)
        # Images that cannot be read are like no other; a bad reference contradicts nothing.
        is_comparable = is_sound and len(images) == len(sample.images)
        seen = str([*images]) if is_comparable else f"{place.file} {place.row}"
        self._asked.append(_hash64(f"{said}\0{seen}"))
        self._references.append(_hash64(_normal_reference(sample.reward.ground_truth)))
        # A row without images is held out by what it asks.
        self._images.extend(images if sample.images else self._asked[-1:])
        num_entries = len(images) if sample.images else 1
        self._rows_of_images.extend([index] * num_entries)
        self._is_image.extend([bool(sample.images)] * num_entries)

    def num_images(self) -> int:
        """Different images, by content."""
        is_image = np.frombuffer(self._is_image, dtype=np.bool_)
        return int(np.unique(_array(self._images)[is_image]).size)

    def findings(self) -> Iterator[Finding]:
        """Every row that does not go with another one."""
        yield from self._duplicate_ids()
        yield from self._contradictions()
        yield from self._overlaps()

    def _duplicate_ids(self) -> Iterator[Finding]:
        for index, first in _repeats(_array(self._id_hashes)):
            yield Finding("duplicate_id", self._place(index), self._place(first))

    def _contradictions(self) -> Iterator[Finding]:
        references = _array(self._references)
        for index, first in _repeats(_array(self._asked)):
            if references[index] != references[first]:
                yield Finding("contradiction", self._place(index), self._place(first))

    def _overlaps(self) -> Iterator[Finding]:
        images = _array(self._images)
        rows = np.frombuffer(self._rows_of_images, dtype=np.int64)
        heldout = np.frombuffer(self._is_heldout, dtype=np.bool_)[rows]
        order = np.argsort(images[heldout], kind="stable")
        held_images, held_rows = images[heldout][order], rows[heldout][order]
        if not held_images.size:
            return
        trained = np.flatnonzero(~heldout & np.isin(images, held_images))
        told: set[int] = set()
        for position in trained:
            row = int(rows[position])
            if row not in told:
                told.add(row)
                other = int(held_rows[np.searchsorted(held_images, images[position])])
                yield Finding("overlap", self._place(row), self._place(other))

    def _place(self, index: int) -> RowPlace:
        return RowPlace(self._files[index], self._rows[index], self._ids[index])


def _array(hashes: array[int]) -> Hashes:
    return np.frombuffer(hashes, dtype=np.uint64) if hashes else np.zeros(0, dtype=np.uint64)


def _hash64(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _repeats(hashes: Hashes) -> Iterator[tuple[int, int]]:
    """(index, index of the first with the same hash) of everything but the first ones."""
    _, firsts, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    first_of = firsts[inverse]
    for index in np.flatnonzero(first_of != np.arange(hashes.size)):
        yield int(index), int(first_of[index])


def _normal_reference(ground_truth: str) -> str:
    """The reference such that 7, 7.0 and a box around it are the same."""
    text = reference_text(ground_truth).text or ground_truth
    number = plain_number(text)
    return "".join(text.casefold().split()) if number is None else str(number)
