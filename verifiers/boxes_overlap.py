"""The overlapping pairs of many images at once, as `matching` wants them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from verifiers.box_text import Corners
from verifiers.matching import Mask, Matrix, Pairs

LARGE_PAIRS = 2048
"""Images with more pairs are thinned out by array operations before they are matched."""

BATCH_PAIRS = 20_000
"""Pairs that are computed together at most; more do not fit the processor's cache."""


class Scene(NamedTuple):
    """The two sets of boxes of one image, in one space; labels are folded."""

    references: NDArray[np.float64]
    reference_labels: list[str]
    predicted: list[Corners]
    predicted_labels: list[str]

    @property
    def num_pairs(self) -> int:
        """References times predicted boxes."""
        return len(self.references) * len(self.predicted)


class Overlap(NamedTuple):
    """How the boxes of one image overlap."""

    pairs: Pairs
    """All that matching can take, at or above `lowest` or of one label."""
    close: Pairs
    """At least all pairs of one label with an IoU of 0.5 or more."""
    worth: Matrix
    """IoUs of references (rows) and predicted boxes (columns), 0 where labels differ."""


def overlaps(scenes: Sequence[Scene], lowest: float, *, is_thinned: bool = True) -> list[Overlap]:
    """One for each image.

    Args:
        scenes: images; each has boxes on both sides.
        lowest: smallest IoU at which a pair of different labels matters.
        is_thinned: whether pairs that no matching by IoU takes may be left out.
    """
    found: dict[int, Overlap] = {}
    batch: list[int] = []
    num_pairs = 0
    for index, scene in enumerate(scenes):
        if scene.num_pairs > LARGE_PAIRS:
            found[index] = _alone(scene, lowest, is_thinned)
            continue
        batch.append(index)
        num_pairs += scene.num_pairs
        if num_pairs > BATCH_PAIRS:
            found |= zip(batch, _together([scenes[i] for i in batch], lowest), strict=True)
            batch, num_pairs = [], 0
    if batch:
        found |= zip(batch, _together([scenes[i] for i in batch], lowest), strict=True)
    return [found[index] for index in range(len(scenes))]


def iou_arrays(a: Matrix, b: Matrix) -> Matrix:
    """IoU of the boxes in `a` with those in `b`; the first axis holds x1, y1, x2, y2."""
    shared = np.minimum(a[2], b[2])
    shared -= np.maximum(a[0], b[0])
    np.maximum(shared, 0.0, out=shared)
    height = np.minimum(a[3], b[3])
    height -= np.maximum(a[1], b[1])
    np.maximum(height, 0.0, out=height)
    shared *= height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    union -= shared
    # Two boxes without area share 0 and stay there.
    np.divide(shared, union, out=shared, where=union > 0.0)
    return np.minimum(shared, 1.0, out=shared)


def _together(scenes: list[Scene], lowest: float) -> list[Overlap]:
    """All pairs of all images in one flat array, image by image and reference by reference."""
    num_rows = [len(scene.references) for scene in scenes]
    num_columns = [len(scene.predicted) for scene in scenes]
    starts = [0, *accumulate(scene.num_pairs for scene in scenes)]
    rows, columns = _indices(num_rows, num_columns)
    a = np.concatenate([scene.references for scene in scenes]).T
    b = np.array([box for scene in scenes for box in scene.predicted], np.float64).T
    ious = iou_arrays(a[:, rows], b[:, columns])
    ids: dict[str, int] = {}
    same = (
        _ids((scene.reference_labels for scene in scenes), ids)[rows]
        == _ids((scene.predicted_labels for scene in scenes), ids)[columns]
    )
    worth = np.where(same, ious, 0.0)
    kept = np.flatnonzero((worth > 0.0) | (ious >= lowest))
    ends = np.searchsorted(kept, starts).tolist()
    image = np.repeat(np.arange(len(scenes)), [b - a for a, b in pairwise(ends)])
    kept = kept[np.lexsort((-_rank(ious[kept], same[kept]), image))]
    flat = Pairs(
        ious[kept].tolist(),
        (rows[kept] - np.array([0, *accumulate(num_rows)])[image]).tolist(),
        (columns[kept] - np.array([0, *accumulate(num_columns)])[image]).tolist(),
        same[kept].tolist(),
    )
    found: list[Overlap] = []
    for n, (start, end) in enumerate(pairwise(ends)):
        pairs = Pairs(
            flat.values[start:end],
            flat.references[start:end],
            flat.predicted[start:end],
            flat.same[start:end],
        )
        matrix = worth[starts[n] : starts[n + 1]].reshape(num_rows[n], num_columns[n])
        found.append(Overlap(pairs, pairs, matrix))
    return found


def _alone(scene: Scene, lowest: float, is_thinned: bool) -> Overlap:
    """The same for one large image, with no more pairs than matching needs."""
    ids: dict[str, int] = {}
    predicted = np.array(scene.predicted, np.float64)
    ious = iou_arrays(scene.references.T[:, :, None], predicted.T[:, None, :])
    same = _ids([scene.reference_labels], ids)[:, None] == _ids([scene.predicted_labels], ids)
    worth = ious * same
    is_close = worth >= 0.5
    near = ious >= lowest
    if is_thinned:
        by_iou = np.zeros_like(ious)
        by_iou[near] = _rank(ious[near], same[near])
        kept = _taken(worth) | _taken(by_iou) | _bests(worth)
    else:
        kept = (worth > 0.0) | near
    order = np.argsort(-_rank(ious[kept], same[kept]), kind="stable")
    pairs = Pairs(*(part[order].tolist() for part in (ious[kept], *np.nonzero(kept), same[kept])))
    rows, columns = np.nonzero(is_close)
    values = worth[is_close].tolist()
    close = Pairs(values, rows.tolist(), columns.tolist(), [True] * len(values))
    return Overlap(pairs, close, worth)


def _rank(ious: Matrix, same: Mask) -> Matrix:
    """IoUs to sort by: among equals pairs of one label come first, so others lose the least."""
    return np.where(same, ious, np.nextafter(ious, 0.0))


def _indices(
    num_rows: list[int], num_columns: list[int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of every pair, which of all references and which of all predicted boxes it joins."""
    if len(num_rows) == 1:
        return np.divmod(np.arange(num_rows[0] * num_columns[0]), num_columns[0])
    # How many pairs each reference has, and where the boxes of its image begin.
    lengths = np.repeat(num_columns, num_rows)
    first_columns = np.repeat([0, *accumulate(num_columns[:-1])], num_rows)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    shift = first_columns - (np.cumsum(lengths) - lengths)
    return rows, np.arange(len(rows)) + np.repeat(shift, lengths)


def _ids(labels: Iterable[list[str]], ids: dict[str, int]) -> NDArray[np.intp]:
    """A number for every label, the same for equal ones; new labels join `ids`."""
    return np.array([ids.setdefault(label, len(ids)) for group in labels for label in group])


def _axes(matrix: Matrix) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The numbers of the rows, and of the columns."""
    num_rows, num_columns = cast("tuple[int, int]", matrix.shape)
    return np.arange(num_rows), np.arange(num_columns)


def _taken(worth: Matrix) -> Mask:
    """Which pairs are taken by falling worth, row by row among equals.

    A pair that is the best of its row and of its column is taken by then, whatever else is.
    """
    mask = np.zeros(worth.shape, dtype=np.bool_)
    rows, columns = _axes(worth)
    while worth.size:
        best = worth.argmax(axis=1)
        mine = np.arange(len(rows))
        is_best = (worth.argmax(axis=0)[best] == mine) & (worth[mine, best] > 0.0)
        if not is_best.any():
            break
        mask[rows[is_best], columns[best[is_best]]] = True
        free = np.ones(len(columns), dtype=np.bool_)
        free[best[is_best]] = False
        rows, columns, worth = rows[~is_best], columns[free], worth[~is_best][:, free]
    return mask


def _bests(worth: Matrix) -> Mask:
    """The best pair of each row and of each column."""
    mask = np.zeros(worth.shape, dtype=np.bool_)
    rows, columns = _axes(worth)
    mask[rows, worth.argmax(axis=1)] = True
    mask[worth.argmax(axis=0), columns] = True
    return mask & (worth > 0.0)
