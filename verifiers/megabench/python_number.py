"""Arithmetic in Python's spelling, worked out on its syntax tree: nothing is evaluated."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from verifiers.megabench.latex_number import work_out
from verifiers.megabench.literals import NOT_LITERAL, quiet

_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
}
_WHOLE: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.FloorDiv: lambda left, right: left // right,
    ast.Mod: lambda left, right: left % right,
    ast.BitXor: lambda left, right: left ^ right,
    ast.BitAnd: lambda left, right: left & right,
    ast.BitOr: lambda left, right: left | right,
}
_SIGNS: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}
_LONGEST = 2_000
"""Characters; no longer text is arithmetic that a reference has."""


def read_python_number(text: str) -> object:
    """Value of arithmetic on literals, lists and tuples of it; the name E is 2.718.

    None for anything else: names, calls, powers that are too large.
    """
    if len(text) > _LONGEST:
        return None
    try:
        with quiet(text):
            tree = ast.parse(text.lstrip(" \t"), mode="eval")
        return _value(tree.body)
    except (*NOT_LITERAL, ArithmeticError, TypeError, MemoryError, RecursionError):
        return None


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.Name(id="E"):
            return 2.718
        case ast.UnaryOp():
            return _SIGNS[type(node.op)](_value(node.operand))
        case ast.List():
            return [_value(item) for item in node.elts]
        case ast.Tuple():
            return tuple(_value(item) for item in node.elts)
        case ast.BinOp():
            return _step(node.op, _value(node.left), _value(node.right))
        case _:
            raise ValueError(f"no arithmetic: {type(node).__name__}")


def _step(sign: ast.operator, left: Any, right: Any) -> object:
    for side in (left, right):
        if not isinstance(side, (int, float)):
            raise TypeError(f"no number: {side!r}")
    if type(sign) in _WHOLE:
        return _WHOLE[type(sign)](left, right)
    if type(sign) not in _OPERATORS:
        raise ValueError(f"no arithmetic: {type(sign).__name__}")
    value = work_out(_OPERATORS[type(sign)], left, right)
    if value is None:
        raise ValueError("no real number")
    return value
