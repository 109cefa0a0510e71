import math
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_specs import Box, DataSpecError, Problem, convert, iou, is_inside


def box(x1, y1, x2, y2, space="per_mille"):
    return Box(x1, y1, x2, y2, "dog", space)


def test_iou_of_half_overlapping_squares_is_a_third():
    assert iou(box(0, 0, 10, 10), box(5, 0, 15, 10)) == pytest.approx(50 / 150)


def test_iou_is_zero_beside_each_other_and_without_area():
    assert iou(box(0, 0, 10, 10), box(10, 0, 20, 10)) == 0.0
    assert iou(box(5, 5, 5, 9), box(5, 5, 5, 9)) == 0.0


def test_iou_of_two_spaces_says_to_convert():
    with pytest.raises(ValueError, match="pixel box and a unit box: convert one first"):
        iou(box(0, 0, 1, 1, "pixel"), box(0, 0, 1, 1, "unit"))


@pytest.mark.parametrize(
    "corners", [(2, 0, 1, 1), (0, 2, 1, 1), (math.nan, 0, 1, 1), (0, 0, math.inf, 1)]
)
def test_a_box_that_is_no_rectangle_is_refused(corners):
    with pytest.raises(ValueError, match="not a rectangle"):
        box(*corners)


def test_an_unknown_space_is_refused():
    with pytest.raises(ValueError, match="'percent' is unknown; allowed: pixel"):
        box(0, 0, 1, 1, "percent")


def test_pixels_of_a_200_by_100_image_become_per_mille():
    assert convert(box(20, 10, 100, 50, "pixel"), "per_mille", image_size=(200, 100)) == box(
        100, 100, 500, 500
    )


def test_conversion_without_the_size_it_needs_says_which():
    with pytest.raises(ValueError, match="boxes in resized need resized_size"):
        convert(box(0, 0, 1, 1), "resized", image_size=(9, 9))


corner = st.floats(0, 500)


@settings(max_examples=60, deadline=None)
@given(corner, corner, st.floats(1, 500), st.floats(1, 500), st.sampled_from(["pixel", "resized"]))
def test_a_round_trip_through_another_space_changes_nothing(x, y, w, h, space):
    sizes = {"image_size": (640, 480), "resized_size": (336, 252)}
    start = box(x, y, x + w, y + h)
    back = convert(convert(start, space, **sizes), "per_mille", **sizes)
    assert back.corners == pytest.approx(start.corners, abs=1e-9)
    assert iou(start, back) == pytest.approx(1.0)


def test_inside_means_within_the_frame_of_the_space():
    assert is_inside(box(0, 0, 1000, 1000))
    assert not is_inside(box(0, 0, 1001, 1000))
    assert not is_inside(box(0, 0, 65, 64, "pixel"), image_size=(64, 64))


def test_an_error_keeps_its_problem_through_a_process_boundary():
    problem = Problem(file="a", row=3, id="x", field="f", value="'v'", allowed="w", remedy="Fix it")
    error = pickle.loads(pickle.dumps(DataSpecError.of(problem)))
    assert str(error) == "a row 3 (id x): f is 'v'; allowed: w. Fix it"
    assert error.problem == problem
