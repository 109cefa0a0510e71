"""Geometry of the charts by hand-worked numbers: smoothing, ticks, where lines and dots lie."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vl.report.charts import dot_chart, line_panel, nice_ticks
from vl.report.run_view import Interval
from vl.report.series import Point, smoothed, thinned, window_of


def test_smoothing_is_a_mean_over_the_neighbours():
    points = [Point(x, y) for x, y in enumerate([0, 3, 6, 0])]
    assert smoothed(points, 3) == [(0, 1.5), (1, 3), (2, 3), (3, 3)]
    assert smoothed(points, 1) == points


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40), st.integers(1, 10))
@settings(max_examples=40, deadline=None)
def test_thinning_keeps_the_range_and_the_limit(values, limit):
    points = [Point(x, y) for x, y in enumerate(values)]
    thin = thinned(points, limit)
    assert len(thin) <= max(limit, 1) or thin == points
    assert all(min(values) - 1e-9 <= y <= max(values) + 1e-9 for _, y in thin)
    assert [x for x, _ in thin] == sorted(x for x, _ in thin)


@pytest.mark.parametrize(("num_points", "window"), [(1, 1), (29, 1), (30, 3), (300, 21)])
def test_the_window_is_odd(num_points, window):
    assert window_of(num_points) == window


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1]),
        (0, 100, [0, 50, 100]),
        (0.3, 0.7, [0.3, 0.4, 0.5, 0.6, 0.7]),
        (1, 300, [0, 100, 200, 300]),
        (-0.2, 1.4, [-0.5, 0, 0.5, 1, 1.5]),
    ],
)
def test_ticks_are_round_and_enclose_the_data(low, high, expected):
    assert nice_ticks(low, high, 4) == pytest.approx(expected)


def test_a_line_lies_where_its_numbers_put_it():
    panel = line_panel("t", "u", [("a", [Point(1, 0.0), Point(3, 1.0)])], y_range=(0.0, 1.0))
    first, last = (tuple(map(float, pair.split(","))) for pair in panel.lines[0].smooth.split())
    assert first == (panel.left, panel.bottom)
    assert last == (panel.right, panel.top)
    assert [tick.text for tick in panel.y_ticks] == ["0", "0.5", "1"]
    assert [tick.text for tick in panel.x_ticks] == ["1", "2", "3"]


@pytest.mark.parametrize("values", [[], [0.5], [2.0, 2.0, 2.0], [-1e-7, 1e7]])
def test_any_series_makes_a_panel_inside_its_frame(values):
    panel = line_panel("t", "u", [("a", [Point(i + 1, y) for i, y in enumerate(values)])])
    pairs = [pair.split(",") for line in panel.lines for pair in line.raw.split()]
    assert len(pairs) == len(values)
    assert all(panel.left <= float(x) <= panel.right for x, _ in pairs)
    assert all(panel.top <= float(y) <= panel.bottom for _, y in pairs)


def test_a_dot_stands_at_its_mean_with_whiskers_to_its_interval():
    chart = dot_chart([("math", "task", [("sft", Interval(0.5, 0.25, 1.2, 9)), ("rl", None)])])
    ((dot,),) = (row.dots for row in chart.rows)
    width = chart.right - chart.left
    assert dot.at == chart.left + width / 2
    assert (dot.low, dot.high) == (chart.left + width / 4, chart.right)  # cut off at 100 %
