r"""Sets of real numbers as pieces of the line: `[1,3)\cup\{5\}`, `x>2`, `x\ne 1`."""

# Values are mpmath numbers, which have no types.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
from __future__ import annotations

from typing import NamedTuple

from verifiers.math_node import Node
from verifiers.math_numeric import Real, names_of
from verifiers.math_value import real_value

_KINDS = frozenset(("union", "minus", "reals", "relation"))
_PIECES_MAX = 50
_END = Node("infinity")


class _Point(NamedTuple):
    """An end of a piece. Ends sort along the line: just below a number, at it, just above it."""

    infinite: int
    """-1 and 1 at the ends of the line, 0 elsewhere."""
    value: Real
    side: int
    """-1, 0 or 1."""


class _Piece(NamedTuple):
    start: _Point
    end: _Point


def same_region(left: Node, right: Node) -> bool:
    """Whether both are sets of real numbers, and the same one."""
    if not (_is_region(left) or _is_region(right)):
        return False  # sets, lists and tuples of numbers are compared part by part
    if len(names_of(left) | names_of(right)) > 1:
        return False
    first, second = _region(left), _region(right)
    if first is None or second is None:
        return False
    return len(first) == len(second) and all(
        _same_point(a.start, b.start) and _same_point(a.end, b.end)
        for a, b in zip(first, second, strict=True)
    )


def _is_region(node: Node) -> bool:
    return node.kind in _KINDS or (node.kind == "list" and any(map(_is_region, node.parts)))


def _region(node: Node) -> list[_Piece] | None:
    """The pieces of a set in order, none touching the next; None if it is no such set."""
    pieces = _pieces(node)
    return None if pieces is None or len(pieces) > _PIECES_MAX else _joined(pieces)


def _pieces(node: Node) -> list[_Piece] | None:
    if node.kind == "reals":
        return [_Piece(_Point(-1, 0, 0), _Point(1, 0, 0))]
    if node.kind == "tuple" and len(node.parts) == 2:
        return _interval(node.parts[0], node.parts[1], str(node.value))
    if node.kind == "relation":
        return _solutions(node)
    if node.kind in ("set", "list", "union"):
        return _together(node)
    if node.kind == "minus":
        whole, rest = (_region(part) for part in node.parts)
        return None if whole is None or rest is None else _common(whole, _complement(rest))
    value = _value(node)
    return None if value is None else [_Piece(_Point(0, value, 0), _Point(0, value, 0))]


def _together(node: Node) -> list[_Piece] | None:
    """All parts of a union, set or list; inequalities that overlap mean what they share."""
    regions = [_region(part) for part in node.parts]
    known = [region for region in regions if region is not None]
    if len(known) < len(regions):
        return None
    if node.kind == "list":
        if not all(part.kind == "relation" for part in node.parts) or len(known) > 8:
            return None
        shared = known[0]
        for region in known[1:]:
            shared = _common(shared, region)
        if shared:
            return shared
    return [piece for region in known for piece in region]


def _interval(low: Node, high: Node, brackets: str) -> list[_Piece] | None:
    start, end = _end(low, brackets[0] == "(", 1), _end(high, brackets[1] == ")", -1)
    if start is None or end is None or not _before(start, end):
        return None
    return [_Piece(start, end)]


def _end(node: Node, is_open: bool, side: int) -> _Point | None:
    if node == _END:
        return _Point(1, 0, 0)
    if node.kind == "product" and len(node.parts) == 2 and node.parts[1] == _END:
        return _Point(-1, 0, 0)
    value = _value(node)
    return None if value is None else _Point(0, value, side if is_open else 0)


def _value(node: Node) -> Real | None:
    if node.kind in ("tuple", "set", "list", "matrix", "relation", "union", "minus", "reals"):
        return None
    return real_value(node)


def _solutions(node: Node) -> list[_Piece] | None:
    """Where a chain such as `1 < x <= 3` holds, the name standing alone."""
    signs = str(node.value).split()
    if signs == ["in"]:
        return _region(node.parts[1]) if node.parts[0].kind == "name" else None
    pieces = [_Piece(_Point(-1, 0, 0), _Point(1, 0, 0))]
    for sign, left, right in zip(signs, node.parts, node.parts[1:], strict=False):
        if left.kind != "name" or not names_of(left):
            left, right = right, left
            sign = sign.translate(_FLIPPED)
        if left.kind != "name" or not names_of(left) or names_of(right):
            return None
        half = _half_line(sign, right)
        if half is None:
            return None
        pieces = _common(pieces, half)
    return pieces


_FLIPPED = str.maketrans("<>", "><")


def _half_line(sign: str, bound: Node) -> list[_Piece] | None:
    is_open = sign in ("<", ">")
    if sign in ("<", "<="):
        end = _end(bound, is_open, -1)
        return None if end is None else [_Piece(_Point(-1, 0, 0), end)]
    if sign in (">", ">="):
        start = _end(bound, is_open, 1)
        return None if start is None else [_Piece(start, _Point(1, 0, 0))]
    value = _value(bound)
    if value is None or sign not in ("=", "!="):
        return None
    point = [_Piece(_Point(0, value, 0), _Point(0, value, 0))]
    return point if sign == "=" else _complement(point)


# --- pieces


def _same_point(a: _Point, b: _Point) -> bool:
    if a.infinite or b.infinite:
        return a.infinite == b.infinite
    return a.side == b.side and _same_number(a.value, b.value)


def _same_number(a: Real, b: Real) -> bool:
    return bool(abs(a - b) <= 1e-45 * (abs(a) + abs(b)))


def _before(a: _Point, b: _Point) -> bool:
    """Whether a comes before b or is it."""
    if a.infinite != b.infinite:
        return a.infinite < b.infinite
    if a.infinite or _same_number(a.value, b.value):
        return a.side <= b.side
    return bool(a.value < b.value)


def _joined(pieces: list[_Piece]) -> list[_Piece]:
    """The pieces in order; those that overlap or touch made one."""
    result: list[_Piece] = []
    for piece in _sorted(pieces):
        if result and _touches(result[-1].end, piece.start):
            if _before(result[-1].end, piece.end):
                result[-1] = _Piece(result[-1].start, piece.end)
        else:
            result.append(piece)
    return result


def _sorted(pieces: list[_Piece]) -> list[_Piece]:
    from functools import cmp_to_key

    def order(a: _Piece, b: _Piece) -> int:
        return 0 if _same_point(a.start, b.start) else -1 if _before(a.start, b.start) else 1

    return sorted(pieces, key=cmp_to_key(order))


def _touches(end: _Point, start: _Point) -> bool:
    """Whether nothing lies between: [1,2) and [2,3] touch, [1,2) and (2,3] do not."""
    if _before(start, end):
        return True
    is_same = not end.infinite and not start.infinite and _same_number(end.value, start.value)
    return is_same and start.side - end.side <= 1


def _common(some: list[_Piece], others: list[_Piece]) -> list[_Piece]:
    result: list[_Piece] = []
    for a in some:
        for b in others:
            start = b.start if _before(a.start, b.start) else a.start
            end = a.end if _before(a.end, b.end) else b.end
            if _before(start, end):
                result.append(_Piece(start, end))
    return result


def _complement(pieces: list[_Piece]) -> list[_Piece]:
    """The rest of the line."""
    result: list[_Piece] = []
    start = _Point(-1, 0, 0)
    for piece in _joined(pieces):
        if piece.start.infinite == 0:
            end = piece.start._replace(side=piece.start.side - 1)
            if _before(start, end):
                result.append(_Piece(start, end))
        if piece.end.infinite:
            return result
        start = piece.end._replace(side=piece.end.side + 1)
    return [*result, _Piece(start, _Point(1, 0, 0))]
