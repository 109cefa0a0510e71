"""Rows ready for training, by picture: rows that ask about one picture stay together.

Pictures stay encoded; `vl.sight` decodes them when they are first looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from data_specs import ImageRef, Sample


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture, or several that are shown together, and the rows that ask about it."""

    index: int
    """Position in the corpus."""
    samples: tuple[Sample, ...]
    """At least one, all of one source and with the same pictures."""

    @property
    def source(self) -> str:
        """Data source of its rows."""
        return self.samples[0].source

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """What is shown."""
        return self.samples[0].images


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """All pictures and their rows."""

    pictures: tuple[Picture, ...]

    @property
    def num_samples(self) -> int:
        """Rows over all pictures."""
        return sum(len(picture.samples) for picture in self.pictures)


def owners_of(pictures: Sequence[Picture]) -> list[int]:
    """For each row of the pictures, in order, the position of its picture among them."""
    return [index for index, picture in enumerate(pictures) for _ in picture.samples]


def build_corpus(groups: Iterable[Sequence[Sample]]) -> Corpus:
    """One `Picture` a group.

    Args:
        groups: rows that share their pictures and their source.

    Raises:
        ValueError: a row has no picture, or another number than the first of its group.
    """
    rows = [tuple(group) for group in groups]
    for group in rows:
        for sample in group:
            if len(sample.images) != len(group[0].images) or not sample.images:
                raise ValueError(
                    f"{sample.where} (id {sample.id}): images: found {len(sample.images)}; a row "
                    f"needs a picture, and as many as the first row with its image_id has "
                    f"({len(group[0].images)}). Leave the row out or correct its image_id"
                )
    return Corpus(
        pictures=tuple(Picture(index=index, samples=group) for index, group in enumerate(rows))
    )


Pose = Callable[[Sample, int], str]
"""(sample, epoch) to the user's text; `<image>` markers only where pictures stand inside it."""
