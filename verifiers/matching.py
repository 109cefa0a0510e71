"""Which predicted box stands for which reference box, and the mAP of one image."""

# scipy has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_specs import Box

Matrix = NDArray[np.float64]

MAP_THRESHOLDS: tuple[float, ...] = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""COCO's ten IoU thresholds, 0.50 to 0.95."""

_DETECTIONS_MAX = 100  # COCO looks at so many boxes per class and image


class Match(NamedTuple):
    """One pair: indices of a reference and a predicted box, and their IoU."""

    reference: int
    predicted: int
    iou: float


def iou_matrix(references: Sequence[Box], predicted: Sequence[Box]) -> Matrix:
    """IoU of every reference (rows) with every predicted box (columns), all in one space."""
    a = np.array([box.corners for box in references], dtype=np.float64).reshape(-1, 4)[:, None]
    b = np.array([box.corners for box in predicted], dtype=np.float64).reshape(-1, 4)[None]
    size = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    intersection = np.clip(size, 0.0, None).prod(axis=-1)
    areas = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1)
    union = areas - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0.0)


def same_label(references: Sequence[Box], predicted: Sequence[Box]) -> NDArray[np.bool_]:
    """Whether reference (row) and predicted box (column) have one label, case and spaces aside."""
    left = [fold_label(box.label) for box in references]
    right = [fold_label(box.label) for box in predicted]
    rows = [[name == other for other in right] for name in left]
    return np.array(rows, dtype=np.bool_).reshape(len(left), len(right))


def fold_label(label: str) -> str:
    """The label as it is compared."""
    return " ".join(label.casefold().split())


def match_by_label(ious: Matrix, allowed: NDArray[np.bool_], threshold: float) -> list[Match]:
    """The pairs with the largest sum of IoUs, among pairs allowed and at or above the threshold.

    # departs from V-Triune: upstream goes greedily in reference order, so that the order of the
    # references decides how many boxes match.
    """
    worth = np.where(allowed & (ious >= threshold) & (ious > 0.0), ious, 0.0)
    rows, columns = np.nonzero(worth)
    if len(set(rows.tolist())) < len(rows) or len(set(columns.tolist())) < len(columns):
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(worth, maximize=True)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [Match(i, j, float(worth[i, j])) for i, j in pairs if worth[i, j] > 0.0]


def match_by_iou(ious: Matrix, allowed: NDArray[np.bool_], threshold: float) -> list[Match]:
    """Pairs from the highest IoU down, whatever the labels; among equals those of one label.

    A pair with different labels counts as found, with IoU 0: V-Triune's `iou_max_iou_first`.
    """
    rows, columns = np.nonzero((ious >= threshold) & (ious > 0.0))
    pairs = sorted(
        zip(rows.tolist(), columns.tolist(), strict=True),
        key=lambda pair: (-ious[pair], not allowed[pair], pair),
    )
    matches: list[Match] = []
    used_rows: set[int] = set()
    used_columns: set[int] = set()
    for i, j in pairs:
        if i in used_rows or j in used_columns:
            continue
        used_rows.add(i)
        used_columns.add(j)
        matches.append(Match(i, j, float(ious[i, j]) if allowed[i, j] else 0.0))
    return matches


def average_precisions(
    ious: Matrix, reference_labels: Sequence[str], predicted_labels: Sequence[str]
) -> NDArray[np.float64]:
    """The mAP of one image at each of MAP_THRESHOLDS, COCO's definition with all confidences equal.

    Boxes count in the order they were written, and boxes of classes that the reference lacks
    are not counted, so mAP alone pays for spam: use it together with the size penalty.
    """
    classes = sorted(set(reference_labels))
    total = np.zeros(len(MAP_THRESHOLDS))
    for name in classes:
        rows = [i for i, label in enumerate(reference_labels) if label == name]
        columns = [j for j, label in enumerate(predicted_labels) if label == name]
        if columns:
            total += _class_precisions(ious[np.ix_(rows, columns[:_DETECTIONS_MAX])])
    return total / max(1, len(classes))


def _class_precisions(ious: Matrix) -> NDArray[np.float64]:
    """Average precision of one class at each threshold."""
    num_references, num_predicted = ious.shape
    thresholds = np.array(MAP_THRESHOLDS)
    free = np.ones((len(thresholds), num_references), dtype=np.bool_)
    hits = np.zeros((len(thresholds), num_predicted), dtype=np.bool_)
    each = np.arange(len(thresholds))
    for j in range(num_predicted):
        if not ious[:, j].max() >= thresholds[0]:
            continue
        worth = np.where(free, ious[:, j], -1.0)
        # Among equals COCO takes the last reference.
        best = num_references - 1 - worth[:, ::-1].argmax(axis=1)
        hit = worth[each, best] >= thresholds
        hits[hit, j] = True
        free[each[hit], best[hit]] = False
    found = hits.cumsum(axis=1)
    precision = found / np.arange(1, num_predicted + 1)
    # Precision never rises with recall: take the best one still to come.
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    weights = _recall_weights(num_references)
    result = np.zeros(len(thresholds))
    for t in range(len(thresholds)):
        if hits[t].any():
            at_hits = precision[t, hits[t]]
            result[t] = float(at_hits @ weights[: len(at_hits)])
    return result


@lru_cache(maxsize=1024)
def _recall_weights(num_references: int) -> NDArray[np.float64]:
    """Share of COCO's 101 recall points that each further hit covers."""
    recalls = np.arange(1, num_references + 1) / num_references
    points = np.searchsorted(recalls, np.linspace(0.0, 1.0, 101), side="left")
    counts = np.bincount(points, minlength=num_references).astype(np.float64)
    return counts[:num_references] / 101.0
