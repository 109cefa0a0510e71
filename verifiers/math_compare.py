"""Whether two formulas say the same: sets in any order, tuples not, equations on either side."""

# Values are mpmath numbers, which have no types.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from verifiers import math_node as m
from verifiers.math_node import STRUCTURES, FormulaError, Node, TooLargeError
from verifiers.math_numeric import names_of
from verifiers.math_region import same_region
from verifiers.math_value import proportional, same_solution, same_value, values_at

UNLIKE_PARTS_MAX = 24
"""Longest set or list whose parts are compared pair by pair; numbers are counted instead."""

_ORDERED = ("tuple", "matrix")


def same_formula(reference: Node, answer: Node) -> bool:
    """Whether two formulas say the same.

    Raises: FormulaError if that cannot be told.
    """
    left, right = _spread(reference), _spread(answer)
    if left.kind == "set" and right.kind not in ("set", "list", "union", "minus"):
        left = _alone(left)  # {5} for 5
    if right.kind == "set" and left.kind not in ("set", "list", "union", "minus"):
        right = _alone(right)
    return _same(left, right)


def _same(left: Node, right: Node) -> bool:
    left, right = _spread(left), _spread(right)
    if left == right:
        return True
    left, right = _unnamed(left, right)
    if left.kind not in STRUCTURES and right.kind not in STRUCTURES:
        return same_value(left, right)
    if left.kind == right.kind == "relation":
        return _same_relation(left, right) or same_region(left, right)
    if left.kind in ("set", "list") and right.kind in ("set", "list"):
        return _same_collection(left, right) or same_region(left, right)
    if left.kind in _ORDERED or right.kind in _ORDERED:
        same = _same_ordered(left, right)
        if same is not None:
            return same
    return same_region(left, right)


# --- plus-minus, single sets, names


def _spread(node: Node) -> Node:
    """The formula with both values of each plus-minus."""
    if not _has_sign(node):
        return node
    if node.kind in ("set", "list"):
        return Node(node.kind, tuple(part for item in node.parts for part in _both(item)))
    return Node("list", _both(node))


def _both(node: Node) -> tuple[Node, ...]:
    return (_signed(node, "+"), _signed(node, "-")) if _has_sign(node) else (node,)


def _alone(node: Node) -> Node:
    return node.parts[0] if len(node.parts) == 1 else node


def _has_sign(node: Node) -> bool:
    return node.kind == "pm" or any(map(_has_sign, node.parts))


def _signed(node: Node, sign: str) -> Node:
    if not _has_sign(node):
        return node
    parts = tuple(_signed(part, sign) for part in node.parts)
    if node.kind == "pm":
        return parts[0] if node.value == sign else m.negative(parts[0])
    return m.folded(node.kind, parts, node.value)


def _unnamed(left: Node, right: Node) -> tuple[Node, Node]:
    """Both without `x =` if only one of them has it."""
    if _is_assignment(left) and not _is_assignment(right):
        return _assigned(left, right), right
    if _is_assignment(right) and not _is_assignment(left):
        return left, _assigned(right, left)
    return left, right


def _is_assignment(node: Node) -> bool:
    if node.kind == "list":  # x=1, y=2, and also x=1, 2
        first, *rest = node.parts
        return _is_assignment(first) and all(
            _is_assignment(part) or part.kind not in STRUCTURES for part in rest
        )
    return node.kind == "relation" and set(str(node.value).split()) <= {"=", "in"}


def _assigned(node: Node, other: Node) -> Node:
    """What is said to be equal: 5 of `x = 5`, (2, 3) of `x = 2, y = 3`; else the node itself."""
    if other.kind == "relation":
        return node
    if node.kind == "relation":
        return _last_side(node) or node
    values = [_last_side(part) if part.kind == "relation" else part for part in node.parts]
    names = [str(part.parts[0]) for part in node.parts if part.kind == "relation"]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return node
    if len(set(names)) == 1 or len(names) < len(values):
        return Node(other.kind if other.kind == "set" else "list", tuple(known))
    in_order = sorted(zip(names, known, strict=True), key=lambda pair: pair[0])
    return Node("tuple", tuple(value for _, value in in_order), "()")


def _last_side(node: Node) -> Node | None:
    """The last side of a chain of equal sides, the first of which may be what was asked for."""
    first, *rest = node.parts
    if not _is_unknown(first):
        rest = [first, *rest]
    last = rest[-1]
    return last if all(_same(last, side) for side in rest[:-1]) else None


def _is_unknown(node: Node) -> bool:
    r"""Whether a side names what was asked for: `x`, `f(2)`, `a+b`, `\frac{a}{b}`; not `2x`."""
    return bool(names_of(node)) and not _has_number(node)


def _has_number(node: Node) -> bool:
    value = m.exact(node)
    return (value is not None and value != -1) or any(map(_has_number, node.parts))


# --- sets, lists, tuples, matrices


def _same_collection(left: Node, right: Node) -> bool:
    """Whether two sets or lists have the same parts; in two lists, as often."""
    is_set = "set" in (left.kind, right.kind)
    exact = [[m.exact(part) for part in node.parts] for node in (left, right)]
    if None not in exact[0] and None not in exact[1]:
        if Counter(exact[0]) == Counter(exact[1]) or (is_set and set(exact[0]) == set(exact[1])):
            return True
        if is_set:
            left, right = _once(left), _once(right)
    if len(left.parts) != len(right.parts) and not is_set:
        return False
    if max(len(left.parts), len(right.parts)) > UNLIKE_PARTS_MAX:
        if None not in exact[0] and None not in exact[1]:
            return False
        raise TooLargeError(f"too many parts: more than {UNLIKE_PARTS_MAX} that are no numbers")
    if is_set:
        return _within(left.parts, right.parts) and _within(right.parts, left.parts)
    rest = list(right.parts)
    for part in left.parts:
        found = next((i for i, other in enumerate(rest) if _same(part, other)), None)
        if found is None:
            return False
        del rest[found]
    return True


def _once(node: Node) -> Node:
    return Node(node.kind, tuple(dict.fromkeys(node.parts)), node.value)


def _within(some: Sequence[Node], others: Sequence[Node]) -> bool:
    return all(any(_same(part, other) for other in others) for part in some)


def _same_ordered(left: Node, right: Node) -> bool | None:
    """Whether two tuples, vectors or matrices are the same part by part; None if neither fits."""
    first, second = _ordered(left, right), _ordered(right, left)
    if first is None or second is None:
        return None
    if first.shape != second.shape and first.shape and second.shape:
        return False
    return len(first.parts) == len(second.parts) and all(
        _same(a, b) for a, b in zip(first.parts, second.parts, strict=True)
    )


class _Ordered(NamedTuple):
    shape: str
    """What must agree: the brackets of a pair, the form of a matrix; empty if nothing."""
    parts: tuple[Node, ...]


def _ordered(node: Node, other: Node) -> _Ordered | None:
    if node.kind == "matrix":
        rows, columns = len(node.parts), len(node.parts[0].parts)
        cells = tuple(cell for row in node.parts for cell in row.parts)
        is_vector = min(rows, columns) == 1 and other.kind != "matrix"
        return _Ordered("vector" if is_vector else f"{rows}x{columns}", cells)
    if node.kind == "list":
        if any(part.kind == "relation" for part in node.parts):
            return None
        shape = "vector" if other.kind == "matrix" else "()" if len(node.parts) == 2 else ""
        return _Ordered(shape, node.parts)
    if node.kind != "tuple":
        return None
    inner = [part.parts for part in node.parts if part.kind == "tuple"]
    if other.kind == "matrix" and len(inner) == len(node.parts):
        shape = f"{len(inner)}x{len(inner[0])}" if len(set(map(len, inner))) == 1 else "ragged"
        return _Ordered(shape, tuple(cell for row in inner for cell in row))
    if other.kind == "matrix":
        return _Ordered("vector", node.parts)
    # A pair in brackets may be an interval, so its brackets count; longer ones cannot.
    return _Ordered(str(node.value) if len(node.parts) == 2 else "", node.parts)


# --- equations and inequalities


def _same_relation(left: Node, right: Node) -> bool:
    """Whether two chains hold the same relations, each written from either side."""
    first, second = _links(left), _links(right)
    if len(first) != len(second) or len(first) > 8:
        return False
    rest = list(second)
    for link in first:
        found = next((i for i, other in enumerate(rest) if _same_link(link, other)), None)
        if found is None:
            return False
        del rest[found]
    return True


class _Link(NamedTuple):
    sign: str
    less: Node
    more: Node


def _links(node: Node) -> list[_Link]:
    signs = str(node.value).split()
    links: list[_Link] = []
    for sign, left, right in zip(signs, node.parts, node.parts[1:], strict=False):
        if sign in (">", ">="):
            sign, left, right = sign.replace(">", "<"), right, left
        links.append(_Link(sign, left, right))
    return links


def _same_link(left: _Link, right: _Link) -> bool:
    if left.sign != right.sign:
        return False
    if _same(left.less, right.less) and _same(left.more, right.more):
        return True
    is_symmetric = left.sign not in ("<", "<=", "in", "to")
    if is_symmetric and _same(left.less, right.more) and _same(left.more, right.less):
        return True
    if left.sign not in ("=", "!=", "<", "<="):
        return False
    try:
        one, two = m.subtract(left.less, left.more), m.subtract(right.less, right.more)
    except FormulaError:
        return False  # between sets or tuples
    if is_symmetric:
        return proportional(one, two) or same_solution(one, two)
    if not proportional(one, two):
        return False
    for point in range(4):
        a, b = values_at(one, two, point)
        if a is not None and b is not None and a and b:
            return bool((a > 0) == (b > 0))
    return False
