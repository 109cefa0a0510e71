"""Which predicted box stands for which reference box, at every IoU threshold at once.

Two things make it cheap. Pairs taken by falling IoU are the same at every threshold, only cut off
earlier, so one pass serves all of them. And that pass finds the best assignment too unless boxes
compete, which a bound tells, so the best assignment is solved only where it can differ.
"""

# scipy has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]

Matching = Literal["optimal", "label_first", "reference_order"]
"""Which pairs of one label count: the largest sum of IoUs, by falling IoU, or as upstream does."""

LEVELS = (0.0, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99)
"""Thresholds at which every verdict reports, 0 for none."""

_MANY = 100  # pairs, from which on it pays to leave out boxes without any before solving


class Found(NamedTuple):
    """What was matched, at each of several thresholds."""

    totals: list[float]
    """Sum of the matched IoUs."""
    nums: list[int]
    """Number of pairs."""


class Pairs(NamedTuple):
    """Overlapping pairs of one image by falling IoU, pairs of one label first among equals."""

    values: list[float]
    """IoUs."""
    references: list[int]
    predicted: list[int]
    same: list[bool]
    """Whether the two have one label."""


def match_by_label(pairs: Pairs, levels: Sequence[float]) -> Found:
    """Pairs of one label, taken by falling IoU while both boxes are free."""
    taken, _, _ = _taken(pairs)
    return found_at(taken, taken, levels)


def match_best(pairs: Pairs, worth: Matrix, levels: Sequence[float]) -> Found:
    """The pairs of one label with the largest sum of IoUs, at each level among pairs that reach it.

    Args:
        pairs: the overlapping pairs.
        worth: IoUs of references (rows) and predicted boxes (columns), 0 where labels differ.
        levels: thresholds.
    """
    taken, references, predicted = _taken(pairs)
    found = found_at(taken, taken, levels)
    # No assignment is worth more than every reference's best, or every predicted box's.
    if taken in (references, predicted):
        return found
    bounds = [found_at(bests, bests, levels).totals for bests in (references, predicted)]
    for index, (level, total, *both) in enumerate(zip(levels, found.totals, *bounds, strict=True)):
        if total < min(both) - 1e-12:
            allowed = np.where(worth >= level, worth, 0.0)
            if len(pairs.values) > _MANY:
                allowed = allowed[allowed.any(axis=1)][:, allowed.any(axis=0)]
            values = allowed[best_pairs(allowed)].tolist()
            found.totals[index] = sum(values)
            found.nums[index] = sum(value > 0.0 for value in values)
    return found


def match_by_iou(pairs: Pairs, levels: Sequence[float]) -> Found:
    """Pairs by falling IoU, whatever the labels: V-Triune's `iou_max_iou_first`.

    A pair with different labels takes its boxes and counts as found, with IoU 0.
    """
    # departs from V-Triune: upstream's scan overwrites its own loop variables, so that it pairs
    # the last two boxes it looked at and pays them the best IoU it saw.
    taken: list[float] = []
    worths: list[float] = []
    used_references: set[int] = set()
    used_predicted: set[int] = set()
    for value, i, j, is_same in zip(*pairs, strict=True):
        if i not in used_references and j not in used_predicted:
            used_references.add(i)
            used_predicted.add(j)
            taken.append(value)
            worths.append(value if is_same else 0.0)
    return found_at(taken, worths, levels)


def match_in_order(
    pairs: Pairs,
    reference_order: Sequence[int],
    predicted_order: Sequence[int],
    levels: Sequence[float],
) -> Found:
    """Each reference in the order written takes its best free box: V-Triune's own matching.

    The order of the references decides who goes without. Kept for comparing with upstream.

    Args:
        pairs: the overlapping pairs.
        reference_order: position of each reference in the text.
        predicted_order: position of each predicted box in the text.
        levels: thresholds.
    """
    wanted: dict[int, list[tuple[float, int, float]]] = {}
    for value, i, j, is_same in zip(*pairs, strict=True):
        if is_same:
            wanted.setdefault(reference_order[i], []).append((-value, predicted_order[j], value))
    found = Found([], [])
    for level in levels:
        total, used = 0.0, set[int]()
        for _, offers in sorted(wanted.items()):
            best = min((offer for offer in offers if offer[1] not in used), default=None)
            if best is not None and best[2] >= level:
                used.add(best[1])
                total += best[2]
        found.totals.append(total)
        found.nums.append(len(used))
    return found


def best_pairs(worth: Matrix) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the assignment with the largest sum; pairs worth 0 may be among them."""
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(worth, maximize=True)


def found_at(values: Sequence[float], worths: Sequence[float], levels: Sequence[float]) -> Found:
    """Of pairs by falling value, what those at or above each level are worth."""
    totals = list(accumulate(worths, initial=0.0))
    rising = [-value for value in values]
    nums = [bisect_right(rising, -level) for level in levels]
    return Found([totals[num] for num in nums], nums)


def _taken(pairs: Pairs) -> tuple[list[float], list[float], list[float]]:
    """By falling IoU: the pairs of one label taken while both are free, and each side's best."""
    taken: list[float] = []
    of_references: list[float] = []
    of_predicted: list[float] = []
    used_references: set[int] = set()
    used_predicted: set[int] = set()
    seen_references: set[int] = set()
    seen_predicted: set[int] = set()
    for value, i, j, is_same in zip(*pairs, strict=True):
        if not is_same:
            continue
        if i not in seen_references:
            seen_references.add(i)
            of_references.append(value)
        if j not in seen_predicted:
            seen_predicted.add(j)
            of_predicted.append(value)
        if i not in used_references and j not in used_predicted:
            used_references.add(i)
            used_predicted.add(j)
            taken.append(value)
    return taken, of_references, of_predicted
