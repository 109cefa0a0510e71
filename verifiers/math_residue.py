"""Expressions modulo a prime: equal expressions have equal residues, and nothing can grow.

Each name stands for a random number. Two rational functions with equal residues are equal
(Schwartz-Zippel; wrong once in 10^15), and ones with different residues are different. A root or a
function counts as a name of its own, so that for them only equality is sure.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import lru_cache

from verifiers.math_node import Node, UndefinedError, exact

PRIME = (1 << 61) - 1


class Residues:
    """Evaluates expressions modulo the prime, at one of several points."""

    def __init__(self, point: int = 0, given: Mapping[str, int] | None = None) -> None:
        self.point = point
        self.given = given or {}
        """Values of names that are not drawn."""
        self.is_exact = True
        """Whether different residues mean different values, for what was evaluated so far."""

    def of(self, node: Node) -> int:
        """The residue of an expression.

        Raises: UndefinedError where it divides by zero.
        """
        kind = node.kind
        if kind == "number":
            value = exact(node) or 0
            if isinstance(value, int):
                return value % PRIME
            return value.numerator * _inverse(value.denominator) % PRIME
        if kind == "name":
            name = str(node.value)
            self.is_exact &= name != "i"  # its square is -1
            return self.given[name] if name in self.given else _drawn(name, self.point)
        if kind == "sum":
            return sum(map(self.of, node.parts)) % PRIME
        if kind == "product":
            result = 1
            for part in node.parts:
                result = result * self.of(part) % PRIME
            return result
        if kind == "power":
            base, exponent = self.of(node.parts[0]), exact(node.parts[1])
            if isinstance(exponent, int):
                return pow(base if exponent >= 0 else _inverse(base), abs(exponent), PRIME)
        self.is_exact = False
        return hash((kind, node.value, *map(self.of, node.parts))) % PRIME


def linear_root(node: Node, name: str) -> int | None:
    """Where an expression of first degree in a name is zero; None if it is of another degree."""
    at = [Residues(0, {name: value}).of(node) for value in (1, 2, 3)]
    slope = (at[1] - at[0]) % PRIME
    if slope == 0 or (at[2] - at[1] - slope) % PRIME:
        return None
    return (1 - at[0] * _inverse(slope)) % PRIME


def _inverse(value: int) -> int:
    if value % PRIME == 0:
        raise UndefinedError("division by zero")
    return pow(value, -1, PRIME)


@lru_cache(maxsize=4096)
def _drawn(name: str, point: int) -> int:
    """A number that is the name's own, the same in every run."""
    return random.Random(f"{point} {name}").randrange(1, PRIME)
