"""mAP of one image by COCO's definition, with all confidences equal: the order written decides."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from verifiers.matching import Pairs

MAP_THRESHOLDS: tuple[float, ...] = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""COCO's ten IoU thresholds, 0.50 to 0.95."""

_DETECTIONS_MAX = 100  # COCO looks at so many boxes per class and image

_Offers = list[tuple[float, int, int]]


def average_precisions(
    close: Pairs,
    num_of: Mapping[str, int],
    predicted_labels: Sequence[str],
    reference_order: Sequence[int],
    predicted_order: Sequence[int],
) -> list[float]:
    """The mAP at each of MAP_THRESHOLDS.

    Boxes count in the order they were written, and boxes of classes that the reference lacks
    are not counted, so mAP alone pays for spam: use it together with the size penalty.

    Args:
        close: at least all pairs of one label with an IoU of 0.5 or more.
        num_of: number of references of each label, folded.
        predicted_labels: label of each predicted box, folded.
        reference_order: position of each reference in the text.
        predicted_order: position of each predicted box in the text.
    """
    ranks = _ranks(predicted_labels, predicted_order)
    wanted: dict[int, _Offers] = {}
    values: list[float] = []
    for value, i, j, is_same in zip(*close, strict=True):
        if is_same and value >= MAP_THRESHOLDS[0] and ranks[predicted_order[j]] <= _DETECTIONS_MAX:
            # Among equals COCO takes the last reference.
            wanted.setdefault(j, []).append((-value, -reference_order[i], i))
            values.append(-value)
    if not wanted:
        return [0.0] * len(MAP_THRESHOLDS)
    boxes = sorted(
        (predicted_order[j], predicted_labels[j], sorted(offers)) for j, offers in wanted.items()
    )
    values.sort()
    found: list[float] = []
    before = -1
    for threshold in MAP_THRESHOLDS:
        num_pairs = bisect_right(values, -threshold)
        # As many pairs as at the last threshold are the same pairs.
        same = num_pairs == before
        found.append(found[-1] if same else _mean(boxes, ranks, threshold, num_of))
        before = num_pairs
    return found


def _ranks(labels: Sequence[str], order: Sequence[int]) -> list[int]:
    """Of each box, by its position in the text: the how manyth of its label it is, from 1."""
    as_written = [""] * len(labels)
    for label, position in zip(labels, order, strict=True):
        as_written[position] = label
    counts = dict.fromkeys(labels, 0)
    ranks: list[int] = []
    for label in as_written:
        counts[label] += 1
        ranks.append(counts[label])
    return ranks


def _mean(
    boxes: Sequence[tuple[int, str, _Offers]],
    ranks: Sequence[int],
    threshold: float,
    num_of: Mapping[str, int],
) -> float:
    """The mean over the reference's classes of their average precision at a threshold."""
    taken: set[int] = set()
    hits: dict[str, list[int]] = {}
    for position, label, offers in boxes:
        for value, _, i in offers:
            if -value < threshold:
                break
            if i not in taken:
                taken.add(i)
                hits.setdefault(label, []).append(ranks[position])
                break
    total = 0.0
    for label, ranks in hits.items():
        total += _precision(ranks, num_of[label])
    return total / len(num_of)


def _precision(ranks: list[int], num_references: int) -> float:
    """Average precision of one class, from the ranks of its hits."""
    weights = _recall_weights(num_references)
    best = total = 0.0
    # Precision never rises with recall: take the best one still to come.
    for num in range(len(ranks), 0, -1):
        precision = num / ranks[num - 1]
        best = precision if precision > best else best
        total += best * weights[num - 1]
    return total / 101


@lru_cache(maxsize=1024)
def _recall_weights(num_references: int) -> list[int]:
    """How many of COCO's 101 recall points each further hit covers."""
    recalls = np.arange(1, num_references + 1) / num_references
    points = np.searchsorted(recalls, np.linspace(0.0, 1.0, 101), side="left")
    return np.bincount(points, minlength=num_references)[:num_references].tolist()
