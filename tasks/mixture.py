"""The order in which images are trained on: uniform over all images, resumable at any position.

An image is the unit, because its rows share one encoding of it. Every order derives from
(seed, epoch) alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np

from data_specs import Sample
from data_specs.row_store import RowStore


class ImageKey(NamedTuple):
    """One image of one source."""

    source: str
    image_id: str


def group_by_image(samples: Iterable[Sample]) -> dict[ImageKey, tuple[Sample, ...]]:
    """Image -> its rows, in the order they were read.

    A row without `image_id` in its extra is an image of its own.
    """
    groups: dict[ImageKey, list[Sample]] = {}
    for sample in samples:
        image_id = sample.extra.get("image_id") or sample.id
        groups.setdefault(ImageKey(sample.source, str(image_id)), []).append(sample)
    return {key: tuple(rows) for key, rows in groups.items()}


def image_order(
    images: Iterable[ImageKey],
    *,
    seed: int,
    epoch: int,
    weights: Mapping[str, float] | None = None,
) -> list[ImageKey]:
    """One epoch: every image once, in a uniform shuffle over all sources.

    Args:
        weights: uses of each image of a source per epoch; sources not named have 1.0. 2.5 takes
            all images twice and a fresh half of them a third time, 0.0 leaves the source out.

    Raises:
        ValueError: a weight is negative, or names a source that has no image.
    """
    by_source: dict[str, list[ImageKey]] = {}
    for image in images:
        by_source.setdefault(image.source, []).append(image)
    weights = dict(weights or {})
    wrong = {s: w for s, w in weights.items() if s not in by_source or not 0 <= w < float("inf")}
    if wrong:
        raise ValueError(
            f"image_order, weights: found {wrong!r}, allowed: 0 or more for one of "
            f"{sorted(by_source)!r}; correct the names or numbers"
        )
    used: list[ImageKey] = []
    for source in sorted(by_source):
        pool = sorted(by_source[source])
        used += _repeated(pool, weights.get(source, 1.0), _stream(seed, epoch, source))
    order = _stream(seed, epoch, "order").permutation(len(used))
    return [used[int(position)] for position in order]


def image_stream(
    images: Sequence[ImageKey],
    *,
    seed: int,
    start: int = 0,
    weights: Mapping[str, float] | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[tuple[int, ImageKey]]:
    """(epoch, image) without end, from position `start` on, as if all before had been taken.

    Args:
        start: position in the order of all processes together.
        shard: (rank, number of processes): every so many-th image; the processes' images
            together are those of one process, each once.

    Raises:
        ValueError: there is no image to draw, or the rank is not below the number of processes.
    """
    rank, num_ranks = shard
    if not 0 <= rank < num_ranks:
        raise ValueError(f"image_stream, shard: found {shard!r}, allowed: 0 <= rank < processes")
    drawn = _endless(images, seed, start, weights)
    return (pair for position, pair in enumerate(drawn, start) if position % num_ranks == rank)


def _endless(
    images: Sequence[ImageKey], seed: int, start: int, weights: Mapping[str, float] | None
) -> Iterator[tuple[int, ImageKey]]:
    length = len(image_order(images, seed=seed, epoch=0, weights=weights))
    if length == 0:
        raise ValueError(
            f"image_stream: found no image to draw with weights {weights!r}, allowed: one or more; "
            "give images, and a weight above 0"
        )
    for epoch in count(start // length):
        order = image_order(images, seed=seed, epoch=epoch, weights=weights)
        for image in order[start % length :]:
            yield epoch, image
        start = 0


class RowMixture:
    """Rows of a store by picture, in the order of `image_stream`, read as they are drawn."""

    def __init__(
        self,
        store: RowStore,
        *,
        seed: int,
        weights: Mapping[str, float] | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        """Args as in `image_stream`; a picture of a file `..._xK` counts K times an epoch."""
        self._store, self._seed, self._weights, self._shard = store, seed, weights, shard
        self._rows: dict[ImageKey, list[int]] = {}
        for number in range(len(store)):
            self._rows.setdefault(ImageKey(*store.place(number)), []).append(number)
        self.images: list[ImageKey] = [
            key for key, rows in self._rows.items() for _ in range(store.uses(rows[0]))
        ]
        """Every picture as often as an epoch at weight 1 has it."""

    def __call__(self, start: int = 0) -> Iterator[tuple[int, tuple[Sample, ...]]]:
        """(epoch, rows of one picture) without end, from position `start` on."""
        for epoch, key in image_stream(
            self.images, seed=self._seed, start=start, weights=self._weights, shard=self._shard
        ):
            yield epoch, tuple(self._store.read(number) for number in self._rows[key])


def _repeated(pool: Sequence[ImageKey], weight: float, rng: np.random.Generator) -> list[ImageKey]:
    whole = int(weight)
    num_more = round((weight - whole) * len(pool))
    more = rng.permutation(len(pool))[:num_more]
    return [*pool] * whole + [pool[int(position)] for position in more]


def _stream(seed: int, epoch: int, name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"mixture/{seed}/{epoch}/{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
