"""Metrics on lists, in which the order counts."""

from __future__ import annotations

import math
from numbers import Number
from typing import Any

from verifiers.megabench.convert import metric, to_list
from verifiers.megabench.registry import Mode

MAX_ANGLE_ERROR = 10.0
"""Mean error in degrees from which on `angle_seq_float_rmse` is 0."""


@metric
def sequence_equality(prediction: object, reference: object, mode: Mode) -> float:
    """1 if the lists are equal."""
    return int(to_list(str(prediction), mode) == to_list(reference, mode))


@metric
def sequence_equality_case_insensitive(prediction: object, reference: object, mode: Mode) -> float:
    """1 if the lists are equal without case."""
    predicted = [
        item.lower() if isinstance(item, str) else str(item)
        for item in to_list(str(prediction), mode)
    ]
    return int(predicted == [item.lower() for item in to_list(reference, mode)])


@metric
def sequence_accuracy_case_insensitive(prediction: object, reference: object, mode: Mode) -> float:
    """Share of equal places; 0 if the lengths differ."""
    predicted, expected = to_list(prediction, mode), to_list(reference, mode)
    if len(predicted) != len(expected):
        return 0
    pairs = zip(predicted, expected, strict=True)
    return sum(_same_item(item, other, mode) for item, other in pairs) / len(expected)


@metric
def longest_common_list_prefix_ratio(prediction: object, reference: object, mode: Mode) -> float:
    """Length of the common start / length of the reference."""
    predicted, expected = to_list(prediction, mode), to_list(reference, mode)
    length = 0
    for item, other in zip(predicted, expected, strict=False):
        if item != other:
            break
        length += 1
    return length / len(expected)


@metric
def angle_seq_float_rmse(prediction: object, reference: object, mode: Mode) -> float:
    """1 - mean absolute error / MAX_ANGLE_ERROR, at least 0; 0 if the lengths differ."""
    import numpy as np  # arrays: nested lists of one shape count element by element

    predicted, expected = to_list(prediction, mode), to_list(reference, mode)
    if len(predicted) != len(expected) or not expected:
        return 0
    with np.errstate(all="ignore"):
        error = float(np.abs(np.array(predicted) - np.array(expected)).sum() / len(expected))
    return 0 if math.isnan(error) else 1 - min(error, MAX_ANGLE_ERROR) / MAX_ANGLE_ERROR


def _same_item(item: Any, expected: object, mode: Mode) -> bool:
    if isinstance(expected, str):
        if mode == "sound" and not isinstance(item, str):
            return str(item) == expected
        return item.lower() == expected.lower()
    return isinstance(expected, Number) and isinstance(item, Number) and item == expected
