"""What a box below the threshold is worth where near misses are paid: a bounded share of gIoU."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from verifiers.matching import Mask, Matrix, best_pairs

SHARE_MAX = 0.5
"""Most a near miss can earn, as a share of the threshold."""


class Shaped(NamedTuple):
    """What the best assignment earns."""

    total: float
    """Sum over its pairs."""
    near: float
    """How much of that is paid for pairs below the threshold."""


def nearness(references: Matrix, predicted: Matrix, image_area: float) -> Matrix:
    """How much nearer each box (column) is to each reference (row) than the whole image, in [0, 1].

    (g - w) / (1 - w), at least 0, where g is the pair's gIoU and w the whole image's, which is the
    reference's share of the image. So a box round everything earns nothing, and 1 is an exact box.

    Source: arXiv 1902.09630 for gIoU.
    """
    a, b = references.T[:, :, None], predicted.T[:, None, :]
    area = (a[2] - a[0]) * (a[3] - a[1])
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
    shared = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    union = area + (b[2] - b[0]) * (b[3] - b[1]) - shared
    hull = (np.maximum(a[2], b[2]) - np.minimum(a[0], b[0])) * (
        np.maximum(a[3], b[3]) - np.minimum(a[1], b[1])
    )
    giou = shared / union - (hull - union) / hull
    whole = area / image_area
    return np.clip((giou - whole) / np.maximum(1.0 - whole, 1e-9), 0.0, 1.0)


def shaped(ious: Matrix, same: Mask, near: Matrix, threshold: float) -> Shaped:
    """The worth of the best assignment at a threshold.

    A pair at the threshold earns its IoU, a pair below it SHARE_MAX * threshold * nearness: less
    than any pair at the threshold, and two near misses together never more than one hit.
    """
    is_hit = ious >= threshold
    worth = np.where(same, np.where(is_hit, ious, SHARE_MAX * threshold * near), 0.0)
    rows, columns = best_pairs(worth)
    values, hits = worth[rows, columns], is_hit[rows, columns]
    return Shaped(float(values.sum()), float(values[~hits].sum()))
