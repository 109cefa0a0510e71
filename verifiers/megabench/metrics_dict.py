"""Metrics on dicts, key by key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from verifiers.megabench.convert import metric, to_dict
from verifiers.megabench.kinds import is_dict
from verifiers.megabench.metrics_set import jaccard_index, same_sets
from verifiers.megabench.metrics_string import same_text
from verifiers.megabench.registry import Mode


@metric
def dict_equality(prediction: object, reference: object, mode: Mode) -> float:
    """1 if equal as Python dicts."""
    predicted = to_dict(prediction, mode)
    return int(is_dict(predicted) and predicted == to_dict(reference, mode))


@metric
def dict_precision(prediction: object, reference: object, mode: Mode) -> float:
    """Predicted keys whose values match / predicted keys; 0 without any."""
    predicted, expected = to_dict(prediction, mode), to_dict(reference, mode)
    if not is_dict(predicted):
        return 0
    matching = [
        key in expected and same_text(value, expected[key], mode)
        for key, value in predicted.items()
    ]
    return sum(matching) / len(matching)


@metric
def dict_exact_str_match_agg_recall(prediction: object, reference: object, mode: Mode) -> float:
    """Mean over the reference's keys of `exact_str_match`; a missing key is null."""
    predicted, expected = to_dict(prediction, mode), to_dict(reference, mode)
    if not is_dict(predicted):
        return 0
    scores = [same_text(predicted.get(key), value, mode) for key, value in expected.items()]
    return sum(scores) / len(scores)


@metric
def dict_jaccard_agg_jaccard(prediction: object, reference: object, mode: Mode) -> float:
    """Mean over the keys of either of `jaccard_index`; a missing key is an empty list."""
    return over_all_keys(
        lambda item, other: jaccard_index(item, other, mode=mode), prediction, reference, mode
    )


@metric
def dict_set_equality_agg_jaccard(prediction: object, reference: object, mode: Mode) -> float:
    """Mean over the keys of either of `set_equality`; a missing key is an empty list."""
    return over_all_keys(
        lambda item, other: same_sets(item, other, mode), prediction, reference, mode
    )


def over_all_keys(
    rule: Callable[[Any, Any], float], prediction: object, reference: object, mode: Mode
) -> float:
    """Mean of a rule over the keys of either dict; a missing key is an empty list."""
    predicted, expected = to_dict(prediction, mode), to_dict(reference, mode)
    if not is_dict(predicted):
        return 0
    keys = set(predicted) | set(expected)
    return sum(rule(predicted.get(key, []), expected.get(key, [])) for key in keys) / len(keys)
