"""Conversions that several metrics share: text to lists, sets and dicts."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from verifiers.megabench.kinds import is_dict, is_list, is_set, is_tuple
from verifiers.megabench.literals import NOT_LITERAL, python_literal
from verifiers.megabench.registry import Mode
from verifiers.megabench.text_object import read_object

Rule = Callable[[Any, Any, Mode], float]

_CLOSING = {"(": ")", "[": "]", "{": "}"}

_UNFIT = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError)
_UNFIT_VALUE = (SyntaxError, TypeError, ValueError)


def metric(rule: Rule) -> Callable[..., float]:
    """A metric out of its rule; input of a kind that the rule cannot use scores 0.

    upstream: raises, scored 0. What is our own failure (registry.Unscored) passes through.
    """

    @wraps(rule)
    def scored(prediction: object, reference: object, *, mode: Mode = "compat") -> float:
        try:
            return rule(prediction, reference, mode)
        except (*_UNFIT, *_UNFIT_VALUE):
            return 0

    return scored


def to_list(value: object, mode: Mode = "compat") -> Any:
    """Elements of a text in order; see `_elements`."""
    if mode == "sound" and (is_list(value) or is_tuple(value)):
        return list(value)
    return _elements(list, value, mode)


def text_to_set(value: object, mode: Mode = "compat") -> Any:
    """Elements of a text as a set; see `_elements`."""
    if mode == "sound" and (is_list(value) or is_tuple(value) or is_set(value)):
        return set(frozen(value))
    return _elements(set, value, mode)


def to_set(value: object, mode: Mode = "compat") -> Any:
    """A collection as a set of hashable elements; anything else through its text."""
    value = frozen(value)
    if is_set(value) or is_tuple(value):
        return set(value)
    return text_to_set(value, mode)


def to_dict(value: object, mode: Mode = "compat") -> Any:
    """A dict with each text in it, or a text, replaced by the object it holds, if it holds one."""
    if is_dict(value):
        return {key: to_dict(item, mode) for key, item in value.items()}
    if isinstance(value, str):
        return read_object(value, mode) or value
    return value


def frozen(value: object) -> Any:
    """Lists as tuples, sets as frozen sets, dicts as frozen sets of pairs, at any depth."""
    if is_dict(value):
        return frozenset((key, frozen(item)) for key, item in value.items())
    if is_list(value) or is_tuple(value):
        return tuple(frozen(item) for item in value)
    if is_set(value):
        return frozenset(value)
    return value


def _elements(kind: Callable[..., Any], value: object, mode: Mode) -> Any:
    """Elements of a text that is a Python literal, or is split at commas.

    No text, unbalanced outer brackets and literals without elements are empty. The literal None
    gives the empty text in `compat`, which equals no empty list; in `sound` nothing.
    """
    text = value.strip(" ") if isinstance(value, str) else ""
    if not text:
        return kind()
    closing = _CLOSING.get(text[0])
    if closing is not None and not text.endswith(closing):
        return kind()
    try:
        literal: Any = python_literal(text)
        if literal is None:
            return "" if mode == "compat" else kind()
        if mode == "sound" and kind is set:
            literal = frozen(literal)
        return kind([literal] if isinstance(literal, (int, float)) else literal)
    except NOT_LITERAL:
        inside = text if closing is None else text[1:-1]
        return kind(item.strip() for item in inside.split(","))
    except TypeError:
        return kind()
