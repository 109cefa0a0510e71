"""What a written formula means, as a tree: numbers are folded exactly, and all sizes are capped."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import factorial as exact_factorial
from math import isqrt
from typing import NamedTuple

from verifiers.numerals import Number

BITS_MAX = 16_384
"""Longest number that is worked out; longer powers and factorials stay as they are written."""


class FormulaError(ValueError):
    """A text that cannot be read as mathematics; the message says why."""


class NotationError(FormulaError):
    """A formula with a command that is not known here; sympy may know it."""


class UndefinedError(FormulaError):
    """A formula that has no value, such as 1/0."""


class TooLargeError(FormulaError):
    """A formula whose value is beyond what is worked out."""


class Node(NamedTuple):
    r"""One part of a formula.

    Values: number, name, sum, product, power (base, exponent), root (radicand, index), call
    (value: the function; parts: argument, base), pm (value: "+" for \pm, "-" for \mp), infinity.
    Structures: tuple (value: its brackets), set, list, matrix of rows, relation (value: its signs,
    one blank between), union, minus, reals.
    """

    kind: str
    parts: tuple[Node, ...] = ()
    value: Number | str = ""


STRUCTURES = frozenset(
    {"tuple", "set", "list", "matrix", "row", "relation", "union", "minus", "reals"}
)
"""Kinds of node that have no single value."""

INFINITY = Node("infinity")
REALS = Node("reals")


def number(value: Number) -> Node:
    """The node of an exact number."""
    if isinstance(value, Fraction) and value.denominator == 1:
        value = value.numerator
    return Node("number", (), value)


ZERO, ONE, MINUS_ONE = number(0), number(1), number(-1)


def bits(value: Number) -> int:
    """Length of the longer of numerator and denominator, in bits."""
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def exact(node: Node) -> Number | None:
    """The value of a number node; None for any other."""
    value = node.value
    return value if node.kind == "number" and not isinstance(value, str) else None


def add(terms: Sequence[Node]) -> Node:
    """The sum, its numbers added up."""
    total: Number = 0
    others: list[Node] = []
    for term in terms:
        value = exact(_scalar(term))
        if _is_infinite(term):
            raise UndefinedError("a sum with infinity")
        if value is None:
            others.append(term)
        else:
            total = _capped(total + value)
    if total or not others:
        others.append(number(total))
    return others[0] if len(others) == 1 else Node("sum", tuple(others))


def multiply(factors: Sequence[Node]) -> Node:
    """The product, its numbers multiplied."""
    total: Number = 1
    others: list[Node] = []
    for factor in factors:
        value = exact(_scalar(factor))
        if value is None:
            others.append(factor)
        else:
            total = _capped(total * value)
    if any(map(_is_infinite, others)) and (len(others) > 1 or total not in (1, -1)):
        raise UndefinedError("a product with infinity")
    if total != 1 or not others:
        others.insert(0, number(total))
    return others[0] if len(others) == 1 else Node("product", tuple(others))


def divide(dividend: Node, divisor: Node) -> Node:
    """The quotient."""
    return multiply((dividend, power(divisor, MINUS_ONE)))


def power(base: Node, exponent: Node) -> Node:
    """The power, worked out if it is a number of fewer than BITS_MAX bits."""
    below, above = exact(_scalar(base)), exact(_scalar(exponent))
    if _is_infinite(base) or _is_infinite(exponent):
        raise UndefinedError("a power with infinity")
    if below == 0 and above is not None and above <= 0:
        raise UndefinedError("division by zero")
    if below is None or above is None:
        return base if above == 1 else Node("power", (base, exponent))
    if isinstance(above, Fraction):
        inner = root(number(below), number(above.denominator))
        if inner.kind == "number":
            return power(inner, number(above.numerator))
    elif below in (0, 1, -1):
        return number(below if above % 2 else abs(below))
    elif abs(above) * bits(below) <= BITS_MAX:
        return number(Fraction(below) ** above)
    return Node("power", (base, exponent))


def root(radicand: Node, index: Node) -> Node:
    """The real root, exact where it is a whole number or a fraction."""
    below, order = exact(_scalar(radicand)), exact(_scalar(index))
    if order == 0:
        raise UndefinedError("a zeroth root")
    if below is not None and isinstance(order, int) and 1 <= order <= 64:
        if below < 0 and order % 2:
            return multiply((MINUS_ONE, root(number(-below), index)))
        inner = _exact_root(below, order) if below >= 0 else None
        if inner is not None:
            return number(inner)
    return Node("root", (radicand, index))


def factorial(argument: Node) -> Node:
    """The factorial, worked out up to 1500."""
    value = exact(_scalar(argument))
    if isinstance(value, int) and 0 <= value <= 1500:
        return number(exact_factorial(value))
    return call("factorial", argument)


def call(function: str, *arguments: Node) -> Node:
    """A function of one argument, or of an argument and a base."""
    for argument in arguments:
        _scalar(argument)
    return Node("call", arguments, function)


def folded(kind: str, parts: tuple[Node, ...], value: Number | str) -> Node:
    """The node of a kind and its parts, its numbers worked out."""
    if kind == "sum":
        return add(parts)
    if kind == "product":
        return multiply(parts)
    if kind == "power":
        return power(*parts)
    return root(*parts) if kind == "root" else Node(kind, parts, value)


def negative(node: Node) -> Node:
    """The node times -1."""
    return multiply((MINUS_ONE, node))


def subtract(left: Node, right: Node) -> Node:
    """The difference."""
    return add((left, negative(right)))


def _is_infinite(node: Node) -> bool:
    return node == INFINITY or (node.kind == "product" and INFINITY in node.parts)


def _scalar(node: Node) -> Node:
    if node.kind in STRUCTURES:
        raise FormulaError(f"a {node.kind} where a number is expected")
    return node


def _capped(value: Number) -> Number:
    if bits(value) > 2 * BITS_MAX:
        raise TooLargeError("too large: a number of thousands of digits")
    return value


def _exact_root(value: Number, order: int) -> Number | None:
    """The order-th root of a number of at least 0, if it is a whole number or a fraction."""
    if bits(value) > BITS_MAX:
        return None
    if isinstance(value, Fraction):
        above, below = _whole_root(value.numerator, order), _whole_root(value.denominator, order)
        return None if above is None or below is None else Fraction(above, below)
    return _whole_root(value, order)


def _whole_root(value: int, order: int) -> int | None:
    if order == 1 or value < 2:
        return value
    if order == 2:
        guess = isqrt(value)
    else:  # Newton from above; quadratic, so a few rounds
        guess = 1 << -(-value.bit_length() // order)
        while (better := ((order - 1) * guess + value // guess ** (order - 1)) // order) < guess:
            guess = better
    return guess if guess**order == value else None
