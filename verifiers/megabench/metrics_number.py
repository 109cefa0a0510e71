"""Metrics on numbers: as literals, or as arithmetic in LaTeX or Python spelling."""

from __future__ import annotations

import re
from typing import Any

from verifiers.megabench.convert import metric
from verifiers.megabench.kinds import is_list, is_tuple
from verifiers.megabench.latex_number import NotNumber, NotRead, read_latex_number
from verifiers.megabench.literals import NOT_LITERAL, python_literal
from verifiers.megabench.metrics_string import same_simple_text
from verifiers.megabench.python_number import read_python_number
from verifiers.megabench.registry import NOT_APPLICABLE, Mode

TOLERANCE = 0.01
"""Relative error that still counts as equal, of `general_single_numerical_match`."""
MAX_ERROR = 0.1
"""Absolute error from which on `normalized_rmse` is 0."""

_INLINE = re.compile(r"\\\((.*?)\\\)")
_DISPLAY = re.compile(r"\\\[(.*?)\\\]")
_ASSIGNED = re.compile(r"(?:=|≈|\\approx)\s*(.+)")
_LONE_PI = re.compile(r"(?<![\d}])\\?π")
_PI_TIMES = re.compile(r"(\d)\\?π")
_UNITS = re.compile(r"°C| C|[$¥°]")
_BOXED = re.compile(r"\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")


@metric
def positive_int_match(prediction: object, reference: str, mode: Mode) -> float:
    """1 if both are the same integer; -1, not applicable, if both are at most 0."""
    try:
        predicted = _literal(prediction, mode)
    except NOT_LITERAL:
        return 0
    expected = python_literal(reference)
    if not isinstance(predicted, int) or not isinstance(expected, int):
        return 0
    if predicted <= 0 and expected <= 0:
        return NOT_APPLICABLE
    return int(predicted == expected)


@metric
def number_rel_diff_ratio(prediction: Any, reference: str, mode: Mode) -> float:
    """1 - error / reference, at least 0."""
    del mode
    if isinstance(prediction, (int, float)):
        predicted: Any = prediction
    else:
        predicted = python_literal(prediction)
    expected: Any = python_literal(reference)
    return max(0, 1 - abs((predicted - expected) / expected))


@metric
def normalized_rmse(prediction: object, reference: str, mode: Mode) -> float:
    """1 - absolute error / MAX_ERROR, at least 0."""
    predicted: Any = _literal(prediction, mode)
    expected: Any = python_literal(reference)
    return 1 - min(abs(float(predicted - expected)), MAX_ERROR) / MAX_ERROR


@metric
def general_single_numerical_match(prediction: object, reference: str, mode: Mode) -> float:
    """1 if the numbers differ by at most TOLERANCE; what is no number is compared as text."""
    return _same_number(str(prediction), reference, mode)


@metric
def boxed_single_numerical_match(prediction: object, reference: str, mode: Mode) -> float:
    r"""`general_single_numerical_match` of the first `\boxed{}` on each side, or of all."""
    return _same_number(_boxed(str(prediction)), _boxed(reference), mode)


def _literal(value: object, mode: Mode) -> object:
    if mode == "sound" and isinstance(value, (int, float)):
        return value
    if not isinstance(value, str):
        raise ValueError(f"no text: {value!r}")
    return python_literal(value)


def _same_number(answer: str, reference: str, mode: Mode) -> float:
    answer, reference = _assigned(answer), _assigned(reference)
    predicted, expected = _number(answer, mode), _number(reference, mode)
    if predicted is None or expected is None:
        return same_simple_text(answer, reference, mode)
    if mode == "sound" and is_tuple(predicted) and is_tuple(expected):
        pairs = zip(predicted, expected, strict=False)
        return int(len(predicted) == len(expected) and all(_close(p, e) for p, e in pairs))
    if is_list(predicted) and is_list(expected):
        return int(_close_lists(predicted, expected))
    return int(_close(predicted, expected))


def _assigned(text: str) -> str:
    """Text without LaTeX's brackets of formulas; only what follows the first equals sign."""
    text = _DISPLAY.sub(r"\1", _INLINE.sub(r"\1", text))
    match = _ASSIGNED.search(text)
    return match.group(1).strip() if match else text


def _boxed(text: str) -> str:
    match = _BOXED.search(text)
    return match.group(1) if match else text


def _number(text: str, mode: Mode) -> Any:
    """The number, list or tuple that a text stands for; None if it stands for none."""
    text = text.replace("\\pi", "π")
    text = _PI_TIMES.sub(r"\1*3.14", _LONE_PI.sub("3.14", text))
    if mode == "sound":
        text = text.replace("\\%", "%").strip().rstrip(".")
    text = _UNITS.sub("", text.replace("%", "/100"))
    try:
        return _whole(read_latex_number(text))
    except NotNumber:
        return None
    except NotRead:
        pass
    number = _whole(text)
    if number is not None:
        return number
    value = read_python_number(text)
    return value if is_list(value) or is_tuple(value) else _whole(value)


def _whole(value: object) -> int | float | None:
    """A value as a number, an integer where it is one; None if it is none."""
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, OverflowError):
        return None
    return round(number) if number.is_integer() else number


def _close(predicted: Any, expected: Any) -> bool:
    if not isinstance(predicted, (int, float)) or not isinstance(expected, (int, float)):
        return False
    margin = abs(expected) * TOLERANCE
    return expected - margin <= predicted <= expected + margin


def _close_lists(predicted: list[Any], expected: list[Any]) -> bool:
    if len(predicted) != len(expected):
        return False
    if not all(isinstance(item, (int, float)) for item in predicted):
        return False
    pairs = zip(sorted(predicted), sorted(expected), strict=True)
    return all(_close(item, other) for item, other in pairs)
