"""Whether two expressions have the same value: by residues, else numerically; no algebra."""

# departs from V-Triune: there math-verify rounds to six places and lets sympy simplify, which takes
# 1/2^99 for 1/2^98 and works on large powers until it is stopped.

# Values are mpmath numbers, which have no types.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false
from __future__ import annotations

from fractions import Fraction

from verifiers import math_node as m
from verifiers.math_node import Node, TooLargeError, UndefinedError
from verifiers.math_numeric import (
    DIGITS,
    MORE_DIGITS,
    NODES_MAX,
    NUM_POINTS,
    At,
    Real,
    names_of,
    nearest_whole,
    size_of,
    value_of,
)
from verifiers.math_residue import PRIME, Residues, linear_root
from verifiers.numerals import Number

_RELATIVE_GAP_MAX = 1e-50  # of values worked out to 60 digits
_DECIMAL_PLACES = 6  # as math-verify: 1.414214 is the root of 2, 1.41 is not
_ROUNDED_MIN = Fraction(1, 1000)  # below it, six places say too little
_NAMES_SOLVED_MAX = 6


def same_value(left: Node, right: Node) -> bool:
    """Whether two expressions are equal wherever both are real.

    Raises: FormulaError if one has no value; TooLargeError if both are too large to tell.
    """
    a, b = m.exact(left), m.exact(right)
    if a is not None and b is not None:
        return a == b or same_rounded(a, b)
    if left == right:
        return True
    residues = Residues()
    if residues.of(left) == residues.of(right):
        return True
    if residues.is_exact and not _may_round(left, right):
        return False
    # A logarithm without a base is read both ways: log 100 is 2, and log 2 is ln 2.
    bases = ("e", "10") if _uses(left, "log") or _uses(right, "log") else ("e",)
    return any(_same_numerically(left, right, base) for base in bases)


def same_rounded(a: Number, b: Number) -> bool:
    """Whether one is a decimal that stands for the other, a fraction that never ends."""
    return (
        _is_decimal(a) != _is_decimal(b)
        and min(abs(a), abs(b)) >= _ROUNDED_MIN
        and round(Fraction(a), _DECIMAL_PLACES) == round(Fraction(b), _DECIMAL_PLACES)
    )


def proportional(left: Node, right: Node) -> bool:
    """Whether one expression is a constant multiple of the other, neither being zero."""
    first, second = Residues(0), Residues(1)
    a, b = first.of(left), first.of(right)
    c, d = second.of(left), second.of(right)
    if 0 in (a, b, c, d):
        return False
    if a * d % PRIME == b * c % PRIME:
        return True
    if first.is_exact or size_of(left) + size_of(right) > NODES_MAX:
        return False
    ratios = [
        x / y
        for x, y in (values_at(left, right, point) for point in range(NUM_POINTS))
        if x is not None and y is not None and x and y
    ]
    return len(ratios) > 1 and all(_is_close(ratios[0], ratio) for ratio in ratios[1:])


def same_solution(left: Node, right: Node) -> bool:
    """Whether two expressions of first degree in some name are zero for the same value of it."""
    names = sorted(names_of(left) & names_of(right))[:_NAMES_SOLVED_MAX]
    return any(
        (root := linear_root(left, name)) is not None and root == linear_root(right, name)
        for name in names
    )


def is_defined(node: Node) -> bool:
    """Whether no part of a formula divides by zero everywhere."""
    if node.kind in m.STRUCTURES or node.kind == "pm":
        return all(map(is_defined, node.parts))
    try:
        Residues().of(node)
    except UndefinedError:
        return False
    return True


def has_value(node: Node) -> bool:
    """Whether every part of a formula can be worked out, and is not too large for it."""
    if node.kind in m.STRUCTURES or node.kind == "pm":
        return all(map(has_value, node.parts))
    try:
        value_of(node, At())
    except TooLargeError:
        return False
    return is_defined(node)


def real_value(node: Node) -> Real | None:
    """The value of a constant to 60 digits; None if it has names or is not real."""
    return None if names_of(node) else value_of(node, At())


def values_at(left: Node, right: Node, point: int) -> tuple[Real | None, Real | None]:
    """The values of both at one of the points; None where there is none or it is not real."""
    return _pair(left, right, At(point))


def _same_numerically(left: Node, right: Node, log_base: str) -> bool:
    is_constant = not (names_of(left) or names_of(right))
    some = (0,) if is_constant else range(NUM_POINTS)
    whole = range(NUM_POINTS, 2 * NUM_POINTS)
    # Over the reals, as school has it: 2 ln x is ln x^2 where both are defined. Then at whole
    # numbers, where (-1)^n lives; complex only if nothing else is left.
    plans = ((some, True), (whole, True), (some, False))
    if _uses(left, "i") or _uses(right, "i"):
        plans = ((some, False),)
    for points, is_real in plans:
        met = [_meet(left, right, At(point, log_base, is_real)) for point in points]
        if False in met:
            return False
        if all(met) if points is whole else any(met):
            return True
    return False


def _meet(left: Node, right: Node, at: At) -> bool | None:
    """Whether two expressions agree at a point; None if one has no value there."""
    a, b = _pair(left, right, at)
    if a is None or b is None:
        return None
    if _is_close(a, b) or _is_rounded(left, b) or _is_rounded(right, a):
        return True
    size, gap = abs(a) + abs(b), abs(a - b)
    if gap > 1e-10 * size and size > 1e-10:
        return False
    # Nearly everything cancelled. If the difference shrinks with more digits, it is zero.
    c, d = _pair(left, right, at._replace(digits=MORE_DIGITS))
    return c is not None and d is not None and bool(abs(c - d) < gap * 1e-20)


def _pair(left: Node, right: Node, at: At) -> tuple[Real | None, Real | None]:
    """The values of both; a value too large to work out is none, and not the other's."""
    values: list[Real | None] = []
    num_too_large = 0
    for node in (left, right):
        try:
            values.append(value_of(node, at))
        except TooLargeError:
            num_too_large += 1
            values.append(None)
    if num_too_large == 2:
        raise TooLargeError("too large: both sides are too large to work out")
    return values[0], values[1]


def _is_close(a: Real, b: Real) -> bool:
    return bool(abs(a - b) <= _RELATIVE_GAP_MAX * (abs(a) + abs(b)))


def _is_rounded(decimal: Node, value: Real) -> bool:
    """Whether a written decimal is the value to six places."""
    exact = m.exact(decimal)
    if not isinstance(exact, Fraction) or not _is_decimal(exact) or abs(exact) < _ROUNDED_MIN:
        return False
    if value.imag != 0 or abs(value) > 10**DIGITS:
        return False
    scale = 10**_DECIMAL_PLACES
    return nearest_whole(value * scale) == round(exact * scale)


def _may_round(left: Node, right: Node) -> bool:
    """Whether one is a decimal, and the other a multiple of pi or the like."""
    has_decimal = any(isinstance(m.exact(node), Fraction) for node in (left, right))
    return has_decimal and not names_of(left) and not names_of(right)


def _is_decimal(value: Number) -> bool:
    """Whether a number has finitely many decimal places."""
    rest = value.denominator
    if rest.bit_length() > 2000:
        return False
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _uses(node: Node, word: str) -> bool:
    """Whether a function or a name occurs in a formula."""
    return node.value == word or any(_uses(part, word) for part in node.parts)
