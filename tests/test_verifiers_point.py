import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verifiers_cases import make

from verifiers import check_spec, score
from verifiers.box_text import ANYWHERE
from verifiers.point import read_points

ROW = make("point", "<answer>[100, 100, 200, 300]</answer>")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_a_point_is_right_exactly_within_the_box(x, y):
    expected = float(100 <= x <= 200 and 100 <= y <= 300)
    verdict = score(ROW, f"<answer>[{x}, {y}]</answer>")
    assert verdict.score == verdict.parts["inside"] == expected
    assert (verdict.format, verdict.status) == (1.0, "ok")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=1, max_size=5))
def test_a_point_more_never_helps_and_the_order_does_not_matter(points):
    def worth(listed):
        return score(ROW, f"<answer>{[list(point) for point in listed]}</answer>").score

    assert worth(points) == worth(points[::-1]) <= worth(points[:1])


@pytest.mark.parametrize(
    ("response", "status", "form"),
    [
        ("", "no_answer", 0.0),
        ("<answer></answer>", "no_answer", 0.0),
        ("<answer>on the left</answer>", "unparseable", 0.0),
        ("<answer>[nan, 3]</answer>", "unparseable", 0.0),
        ("<answer>" + "[1, 1], " * 600 + "</answer>", "unparseable", 0.0),
        (r"\boxed{[150, 150]} or \boxed{[1, 1]}", "unparseable", 0.0),
        ("<answer>[]</answer>", "ok", 0.0),
        ("<answer>[1, 1]</answer>", "ok", 1.0),
    ],
)
def test_each_failure_has_its_status_and_form(response, status, form):
    verdict = score(ROW, response)
    assert (verdict.score, verdict.status, verdict.format) == (0.0, status, form)
    assert verdict.reason
    assert set(verdict.parts) == {"inside", "num_pred", "num_ref"}


@pytest.mark.parametrize(
    "reference",
    ["", "here", "<answer>[150, 150]</answer>", "<answer>[200, 200, 100, 100]</answer>"],
)
def test_a_reference_that_is_no_box_is_unscored(reference):
    verdict = score(make("point", reference), "<answer>[150, 150]</answer>")
    assert (verdict.score, verdict.status) == (None, "bad_reference")


def test_a_wrong_parameter_is_named():
    assert "predicted_space is 'px'" in check_spec(make("point", "", predicted_space="px").reward)
    assert "'iou' is unknown" in check_spec(make("point", "", iou=1).reward)
    verdict = score(make("point", ROW.reward.ground_truth, predicted_space="px"), "")
    assert (verdict.score, verdict.status) == (None, "bad_reference")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="[](){}<>|,.'\"0123456789eE+-:point_2dbox anse/\n", max_size=80))
def test_any_text_is_points_or_nothing(text):
    for point in read_points(text, ANYWHERE) or ():
        assert all(math.isfinite(value) for value in point.corners)
    verdict = score(ROW, f"<answer>{text}</answer>")
    assert verdict.score in (0.0, 1.0)
