"""Metrics on sets: equality, overlap, precision."""

from __future__ import annotations

from typing import Any

from verifiers.megabench.convert import metric, text_to_set, to_set
from verifiers.megabench.registry import Mode

_PART_SPELLING = str.maketrans("", "", " -\n\t_.")


def overlap(predicted: set[Any], expected: set[Any]) -> float:
    """Jaccard index: common elements / all elements; two empty sets overlap fully."""
    union = len(predicted | expected)
    return len(predicted & expected) / union if union else 1


def same_sets(prediction: object, reference: object, mode: Mode) -> int:
    """1 if both are the same set."""
    return int(to_set(prediction, mode) == to_set(reference, mode))


@metric
def set_equality(prediction: object, reference: object, mode: Mode) -> float:
    """1 if both are the same set."""
    return same_sets(prediction, reference, mode)


@metric
def set_equality_case_insensitive(prediction: object, reference: object, mode: Mode) -> float:
    """1 if both are the same set of texts without case."""
    predicted, expected = to_set(prediction, mode), to_set(reference, mode)
    return int({text.upper() for text in predicted} == {text.upper() for text in expected})


@metric
def str_set_equality_line_break(prediction: str, reference: str, mode: Mode) -> float:
    r"""1 if the texts have the same set of lines without case; the two characters `\n` break."""
    del mode
    return int(_lines(prediction) == _lines(reference))


@metric
def str_set_equality_comma(prediction: object, reference: object, mode: Mode) -> float:
    """1 if both are the same set without case; None and no text at all are the empty set."""
    predicted, expected = text_to_set(prediction, mode), text_to_set(reference, mode)
    return int({_lower(item) for item in predicted} == {_lower(item) for item in expected})


@metric
def jaccard_index(prediction: object, reference: object, mode: Mode) -> float:
    """Common elements / all elements."""
    if prediction is None:
        return 0
    return overlap(set(to_set(prediction, mode)), set(to_set(reference, mode)))


@metric
def jaccard_index_case_insensitive(prediction: object, reference: object, mode: Mode) -> float:
    """Common elements / all elements, of texts or of tuples of texts, without case."""
    if prediction is None:
        return 0
    predicted, expected = to_set(prediction, mode), to_set(reference, mode)
    kind = next(iter(expected), None)  # upstream: raises for an empty reference, scored 0
    if isinstance(kind, str):
        lowered = {str(item).lower() for item in predicted}
        return overlap(lowered, {item.lower() for item in expected})
    if isinstance(kind, tuple):
        parts = {_parts(item) for item in predicted}
        return overlap(parts, {_parts(item) for item in expected})
    return 0


@metric
def set_precision(prediction: object, reference: object, mode: Mode) -> float:
    """Common elements / predicted elements; an empty prediction is precise."""
    if prediction is None:
        return 0
    predicted, expected = set(to_set(prediction, mode)), set(to_set(reference, mode))
    if not predicted:
        return 1 if mode == "compat" else int(not expected)
    return len(predicted & expected) / len(predicted)


@metric
def chess_move_list_jaccard_index(prediction: object, reference: object, mode: Mode) -> float:
    """Common moves / all moves; a trailing `!` and the sign for mate do not count."""
    if prediction is None:
        return 0
    return overlap(_moves(prediction, mode), _moves(reference, mode))


def _moves(value: object, mode: Mode) -> set[str]:
    ends = ("!", "#") if mode == "compat" else ("!", "?", "!", "?", "#", "+")
    moves: set[str] = set()
    for move in text_to_set(value, mode):
        for end in ends:
            move = move.removesuffix(end)
        moves.add(move)
    return moves


def _lines(text: str) -> set[str]:
    return {line.lower() for line in text.replace("\\n", "\n").split("\n")}


def _lower(item: object) -> object:
    return item.lower() if isinstance(item, str) else item


def _parts(item: Any) -> tuple[str, ...]:
    return tuple(part.lower().translate(_PART_SPELLING) for part in item)
