"""A metric over steps: smoothing, and thinning of long series, for the curves of the report."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

MAX_POINTS = 240
"""Longest line drawn, in points; longer ones are averaged in equal stretches of steps."""


class Point(NamedTuple):
    """A step and the number measured in it."""

    x: float
    y: float


def window_of(num_points: int) -> int:
    """Width of the moving mean, in points: a fifteenth of the line, odd, at least 1."""
    return max(1, num_points // 15) | 1


def smoothed(points: Sequence[Point], window: int) -> list[Point]:
    """Centred moving mean; cut off, not shifted, where the window reaches past an end."""
    half = window // 2
    result: list[Point] = []
    for index, (x, _) in enumerate(points):
        near = points[max(0, index - half) : index + half + 1]
        result.append(Point(x, sum(point.y for point in near) / len(near)))
    return result


def thinned(points: Sequence[Point], limit: int = MAX_POINTS) -> list[Point]:
    """At most `limit` points: means over equal stretches of a longer line."""
    if len(points) <= limit:
        return list(points)
    edges = [round(index * len(points) / limit) for index in range(limit + 1)]
    stretches = [points[a:b] for a, b in itertools.pairwise(edges)]
    return [
        Point(sum(p.x for p in part) / len(part), sum(p.y for p in part) / len(part))
        for part in stretches
    ]
