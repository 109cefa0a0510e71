"""Expressions as numbers of 60 digits at a few points; every step is bounded."""

# mpmath has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownLambdaType=false
from __future__ import annotations

import random
import threading
from functools import lru_cache
from typing import Any, NamedTuple

from verifiers import math_node as m
from verifiers.math_node import FormulaError, Node, TooLargeError

DIGITS, MORE_DIGITS = 60, 120
NODES_MAX = 400
"""Largest expression that is evaluated, in parts."""
NUM_POINTS = 4
"""Points where names have values off the whole numbers; as many with whole ones follow."""

_NOISE = 1e-45  # an imaginary part this much smaller than the value is rounding
_MAGNITUDE_MAX = 60_000  # bits before or behind the point; bounds what one step costs
_FACTORIAL_MAX, _ANGLE_MAX = 5000, 2**200
# Both signs, and both sides of 1: |x| is not x, and arcsin needs small numbers.
_RANGES = ((0.1, 0.9), (-0.9, -0.1), (1.1, 3.0), (-3.0, -1.1))

Real = Any  # an mpmath number: mpf, or mpc if it is not real


class At(NamedTuple):
    """Where and how a formula is evaluated."""

    point: int = 0
    log_base: str = "e"
    """Base of a logarithm that names none: "e" or "10"."""
    is_real: bool = True
    """Whether what is not real has no value, parts of the formula included."""
    digits: int = DIGITS


CONSTANTS = frozenset(("\\pi", "e", "i"))


def names_of(node: Node) -> set[str]:
    """The names in a formula, constants such as pi and e aside."""
    if node.kind == "name":
        return set() if node.value in CONSTANTS else {str(node.value)}
    return set[str]().union(*map(names_of, node.parts))


@lru_cache(maxsize=4096)
def size_of(node: Node) -> int:
    """Number of parts of a formula."""
    return 1 + sum(map(size_of, node.parts))


@lru_cache(maxsize=4096)
def value_of(node: Node, at: At) -> Real | None:
    """The value at a point; None if it has none there.

    Raises: TooLargeError if it is too large to work out.
    """
    if size_of(node) > NODES_MAX:
        raise TooLargeError(f"too long: more than {NODES_MAX} parts to evaluate")
    try:
        return _Values(_context(at.digits), at).of(node)
    except TooLargeError:
        raise
    except (FormulaError, ValueError, ArithmeticError):
        return None


def nearest_whole(value: Real) -> int:
    """A real value, rounded."""
    return int(_context(DIGITS).nint(value))


_LOCAL = threading.local()


def _context(digits: int) -> Any:
    """The thread's own mpmath context of so many digits; mpmath's is shared and not safe."""
    contexts: dict[int, Any] | None = getattr(_LOCAL, "contexts", None)
    if contexts is None:
        contexts = _LOCAL.contexts = {}
    if digits not in contexts:
        from mpmath.ctx_mp import MPContext

        contexts[digits] = MPContext()
        contexts[digits].dps = digits
    return contexts[digits]


class _Values:
    """Evaluates to mpmath numbers."""

    def __init__(self, context: Any, at: At) -> None:
        self.context = context
        self.at = at

    def of(self, node: Node) -> Real:
        value = self._of(node)
        if not self.context.isfinite(value):
            raise ArithmeticError("not finite")
        if value.imag == 0 or abs(value.imag) < _NOISE * abs(value):
            value = value.real
        elif self.at.is_real:
            raise ArithmeticError("not real")
        if value and abs(self.context.mag(value)) > _MAGNITUDE_MAX:
            raise TooLargeError("too large to work out")
        return value

    def _of(self, node: Node) -> Real:
        kind, context = node.kind, self.context
        if kind == "number":
            value = m.exact(node) or 0
            return context.mpf(value.numerator) / value.denominator
        if kind == "name":
            return self._name(str(node.value))
        parts = [self.of(part) for part in node.parts]
        if kind == "sum":
            return sum(parts[1:], parts[0])
        if kind == "product":
            result = parts[0]
            for part in parts[1:]:
                result *= part
            return result
        if kind == "power":
            return self._power(parts[0], parts[1])
        if kind == "root":
            return self._root(parts[0], parts[1])
        if kind == "call":
            return self._call(str(node.value), parts[0])
        raise FormulaError(f"a {kind} has no value")

    def _name(self, name: str) -> Real:
        """The value of a constant, or that of a name at this point."""
        if name in CONSTANTS:
            return self.context.mpc(0, 1) if name == "i" else +getattr(self.context, name[-2:])
        draw = random.Random(f"{self.at.point} {name}")
        if self.at.point >= NUM_POINTS:
            return self.context.mpf(draw.randrange(2, 12))
        return self.context.mpf(draw.uniform(*_RANGES[self.at.point]))

    def _power(self, base: Real, exponent: Real) -> Real:
        context = self.context
        if base == 0:
            if exponent.imag != 0 or exponent <= 0:
                raise ArithmeticError("a power of zero")
            return base
        if abs(exponent) * max(1, abs(context.mag(base))) > _MAGNITUDE_MAX:
            raise TooLargeError("too large an exponent")
        if context.isint(exponent):
            return base ** int(exponent.real)
        return context.exp(exponent * context.log(base))

    def _root(self, radicand: Real, index: Real) -> Real:
        if index.imag != 0:
            raise ArithmeticError("a complex root")
        is_odd = self.context.isint(index) and index % 2
        if is_odd and radicand.imag == 0 and radicand < 0:
            return -self._root(-radicand, index)
        return self._power(radicand, 1 / index) if radicand else radicand

    def _call(self, function: str, argument: Real) -> Real:
        context = self.context
        if function == "abs":
            return abs(argument)
        if function in ("floor", "ceil"):
            return getattr(context, function)(argument)
        if function == "factorial":
            if abs(argument) > _FACTORIAL_MAX:
                raise TooLargeError("too large a factorial")
            return context.gamma(argument + 1)
        if function == "ln":
            return context.log(argument)
        if function == "log":
            return context.log(argument) / (context.log(10) if self.at.log_base == "10" else 1)
        if abs(argument) > _ANGLE_MAX:
            raise TooLargeError("too large an angle")
        return getattr(context, _MPMATH_NAMES.get(function, function))(argument)


_MPMATH_NAMES = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot"}
