"""Geometry of the report's charts: numbers in, coordinates of an SVG out; the template draws.

Coordinates are in units of the SVG's viewBox, y downwards, rounded to 0.01.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vl.report.run_view import Interval
from vl.report.series import Point, smoothed, thinned, window_of


class Tick(NamedTuple):
    """A mark on an axis: where it lies and what it says."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """One series of a panel, as `points` attributes of two polylines."""

    name: str
    slot: int
    """Index of its colour."""
    raw: str
    smooth: str
    last: str
    """Last smoothed value, in words."""


@dataclass(frozen=True, kw_only=True)
class LinePanel:
    """A small chart of lines over steps."""

    title: str
    unit: str
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    """The edges of the plotting area."""
    x_domain: tuple[float, float]
    y_domain: tuple[float, float]
    """Values at left and right, at bottom and top; the page's tooltip computes back with them."""
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[Line]


class Dot(NamedTuple):
    """A mean with its interval in the dot chart."""

    phase: str
    at: float
    low: float
    high: float
    y: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class DotRow:
    """One task of the dot chart."""

    name: str
    kind: str
    top: float
    height: float
    dots: Sequence[Dot]


@dataclass(frozen=True, kw_only=True)
class DotChart:
    """Means with intervals by task, one dot a phase, on an axis in percent."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    ticks: Sequence[Tick]
    rows: Sequence[DotRow]


def line_panel(
    title: str,
    unit: str,
    series: Sequence[tuple[str, Sequence[Point]]],
    *,
    y_range: tuple[float, float] | None = None,
    size: tuple[float, float] = (300.0, 168.0),
) -> LinePanel:
    """A panel of one or more series.

    Args:
        title: what is plotted; shown above the panel.
        unit: of the y axis.
        series: (name, points in the order of steps); empty ones are left out.
        y_range: the y axis holds at least this; None fits the data.
        size: width and height of the whole panel.
    """
    width, height = size
    left, right, top, bottom = 42.0, width - 10.0, 10.0, height - 26.0
    drawn = [(slot, name, points) for slot, (name, points) in enumerate(series) if points]
    xs = [point.x for _, _, points in drawn for point in points] or [0.0, 1.0]
    ys = [point.y for _, _, points in drawn for point in points] or [0.0, 1.0]
    y_ticks = nice_ticks(*_wide_enough(*_including(ys, y_range)), count=4)
    x_domain = (min(xs), max(max(xs), min(xs) + 1))
    y_domain = (y_ticks[0], y_ticks[-1])

    def place(points: Sequence[Point]) -> str:
        return " ".join(
            f"{_scale(x, x_domain, left, right):.2f},{_scale(y, y_domain, bottom, top):.2f}"
            for x, y in points
        )

    lines: list[Line] = []
    for slot, name, points in drawn:
        smooth = smoothed(points, window_of(len(points)))
        lines.append(
            Line(
                name=name,
                slot=slot,
                raw=place(thinned(points)),
                smooth=place(thinned(smooth)),
                last=_plain(smooth[-1].y),
            )
        )
    x_ticks = [
        x
        for x in nice_ticks(*x_domain, count=4)
        if x_domain[0] <= x <= x_domain[1] and x == round(x)  # there is no step one and a half
    ]
    return LinePanel(
        title=title,
        unit=unit,
        width=width,
        height=height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        x_domain=x_domain,
        y_domain=y_domain,
        x_ticks=[Tick(_scale(x, x_domain, left, right), _plain(x)) for x in x_ticks],
        y_ticks=[Tick(_scale(y, y_domain, bottom, top), _plain(y)) for y in y_ticks],
        lines=lines,
    )


def dot_chart(
    rows: Sequence[tuple[str, str, Sequence[tuple[str, Interval | None]]]], width: float = 920.0
) -> DotChart:
    """Means with intervals, 0 to 100 %.

    Args:
        rows: (name, kind, [(phase, interval or None)]) from top to bottom.
        width: of the whole chart.
    """
    left, right, top = 120.0, width - 20.0, 8.0
    gap, margin = 9.0, 11.0
    drawn: list[DotRow] = []
    y = top
    for name, kind, values in rows:
        shown = [(phase, interval) for phase, interval in values if interval is not None]
        dots = [
            Dot(
                phase=phase,
                at=_scale(interval.mean, (0, 1), left, right),
                low=_scale(max(0.0, interval.low), (0, 1), left, right),
                high=_scale(min(1.0, interval.high), (0, 1), left, right),
                y=y + margin + gap * index,
                interval=interval,
            )
            for index, (phase, interval) in enumerate(shown)
        ]
        row_height = 2 * margin + gap * max(0, len(dots) - 1)
        drawn.append(DotRow(name=name, kind=kind, top=y, height=row_height, dots=dots))
        y += row_height
    return DotChart(
        width=width,
        height=y + 26.0,
        left=left,
        right=right,
        top=top,
        bottom=y,
        ticks=[Tick(_scale(x, (0, 100), left, right), f"{x}") for x in range(0, 101, 20)],
        rows=drawn,
    )


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers that enclose [low, high], about `count` stretches apart by 1, 2 or 5."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _including(
    values: Sequence[float], minimum_range: tuple[float, float] | None
) -> tuple[float, float]:
    low, high = min(values), max(values)
    if minimum_range is None:
        return low, high
    return min(low, minimum_range[0]), max(high, minimum_range[1])


def _wide_enough(low: float, high: float) -> tuple[float, float]:
    """The range itself, or a little around it where it has no width."""
    if high - low > 1e-9 * max(abs(low), abs(high), 1e-9):
        return low, high
    margin = abs(low) * 0.1 or 1.0
    return low - margin, high + margin


def _scale(value: float, domain: tuple[float, float], start: float, end: float) -> float:
    return start + (value - domain[0]) / (domain[1] - domain[0]) * (end - start)


def _plain(value: float) -> str:
    """A short decimal: 0.15, 12, 3400, 1e-05."""
    text = f"{value + 0.0:.3g}"
    return f"{value:.0f}" if "e+" in text else text.replace("-", "−", 1)
