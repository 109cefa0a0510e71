from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verifiers_cases import make

from data_specs import SPACES, Box, convert
from verifiers import score
from verifiers.box_text import ANYWHERE
from verifiers.boxes_frame import Frame, read_frame

IMAGE, RESIZED = (640, 480), (336, 252)
SIZES = {
    "image_width": IMAGE[0],
    "image_height": IMAGE[1],
    "resized_width": RESIZED[0],
    "resized_height": RESIZED[1],
}


def answer(*corners, label="dog"):
    return f"<answer>[{{'bbox_2d': {list(corners)}, 'label': '{label}'}}]</answer>"


def row(reference, extra, verifier="detection", **params):
    return replace(make(verifier, reference, **params), extra=extra)


coordinate = st.integers(0, 900)


@settings(max_examples=100, deadline=None)
@given(
    coordinate,
    coordinate,
    st.integers(5, 100),
    st.integers(5, 100),
    st.sampled_from(SPACES),
    st.sampled_from(SPACES),
)
def test_an_exact_answer_in_another_space_scores_one(x, y, w, h, space, predicted_space):
    exact = Box(x, y, x + w, y + h, "dog", "per_mille")
    reference, found = (
        convert(exact, to, image_size=IMAGE, resized_size=RESIZED)
        for to in (space, predicted_space)
    )
    sample = row(
        answer(*reference.corners),
        {"coordinate_space": space, **SIZES},
        predicted_space=predicted_space,
        iou_threshold=0.99,
    )
    assert score(sample, answer(*found.corners)).score == pytest.approx(1.0, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(0, 1)] * 4), st.sampled_from(SPACES), st.sampled_from(SPACES))
def test_the_way_to_another_space_and_back_changes_nothing(corners, space, other):
    def bring(boxes, there, back):
        frame = read_frame(row("", {"coordinate_space": there, **SIZES}, predicted_space=back))
        return frame.bring(boxes)

    there = bring([corners], other, space)
    assert bring(there, space, other)[0] == pytest.approx(corners, abs=1e-12)


def test_a_pixel_reference_judges_a_per_mille_answer():
    # In a picture of 200 x 100 pixels.
    sample = row(
        answer(20, 10, 100, 50),
        {"coordinate_space": "pixel", "image_width": 200, "image_height": 100},
        predicted_space="per_mille",
        iou_threshold=0.5,
    )
    assert score(sample, answer(100, 100, 500, 500)).score == 1.0
    assert score(sample, answer(100, 100, 500, 300)).score == pytest.approx(0.5)
    assert score(sample, answer(20, 10, 100, 50)).score == 0.0


def test_the_answer_is_in_the_space_of_the_row_unless_it_says_otherwise():
    sample = row(answer(0.1, 0.1, 0.5, 0.5), {"coordinate_space": "unit"}, iou_threshold=0.5)
    assert score(sample, answer(0.1, 0.1, 0.5, 0.5)).score == 1.0
    assert score(sample, answer(100, 100, 500, 500)).score == 0.0


def test_rows_of_our_own_are_per_mille_with_the_size_of_the_picture():
    extra = {"coordinate_space": "per_mille", "image_width": 64, "image_height": 64}
    sample = row(answer(100, 100, 500, 500), extra, det_verifier_normalized=False)
    assert score(sample, answer(100, 100, 500, 500)).score == 1.0


def test_pixels_without_a_size_are_compared_as_they_stand():
    sample = row(answer(20, 10, 4000, 50), {"coordinate_space": "pixel"})
    assert score(sample, answer(20, 10, 4000, 50)).score == 1.0


def test_a_row_without_a_space_may_hold_pixels():
    sample = make("detection", answer(20, 10, 1900, 1050), iou_threshold=0.5)
    assert score(sample, answer(20, 10, 1900, 1050)).score == 1.0


@pytest.mark.parametrize(
    ("space", "inside", "outside"),
    [
        ("per_mille", 1010, 1010.1),
        ("unit", 1.01, 1.011),
        ("pixel", 646.4, 646.5),
        ("resized", 339.36, 339.4),
    ],
)
def test_numbers_more_than_a_hundredth_outside_the_frame_make_no_box(space, inside, outside):
    extra = {"coordinate_space": space, **SIZES}
    side = {"per_mille": 1000, "unit": 1, "pixel": 640, "resized": 336}[space]
    sample = row(answer(0, 0, side, side / 4), extra, iou_threshold=0.5)
    assert score(sample, answer(0, 0, inside, side / 4)).score == pytest.approx(side / inside)
    verdict = score(sample, answer(0, 0, outside, side / 4))
    assert (verdict.score, verdict.status) == (0.0, "unparseable")
    low = score(sample, answer(-(outside - side), 0, side, side / 4))
    assert (low.score, low.status) == (0.0, "unparseable")


@pytest.mark.parametrize(
    ("extra", "params", "message"),
    [
        ({"coordinate_space": "pixel"}, {"predicted_space": "unit"}, "give extra image_width"),
        ({}, {"predicted_space": "pixel"}, "give extra image_width"),
        ({}, {"predicted_space": "resized"}, "give extra resized_width"),
        ({}, {"det_verifier_normalized": True}, "give extra resized_width"),
        ({"image_width": 0, "image_height": 9}, {"predicted_space": "pixel"}, "image_width"),
        ({"image_width": True, "image_height": 9}, {"predicted_space": "pixel"}, "image_width"),
        ({"coordinate_space": "percent"}, {}, "coordinate_space is 'percent'; allowed: pixel"),
        ({"coordinate_space": "unit"}, {}, "no boxes within the picture"),
        ({"coordinate_space": "pixel"}, {"shaping": "giou"}, "shaping needs the picture's size"),
        ({"coordinate_space": ["unit"]}, {}, "coordinate_space is ['unit']"),
    ],
)
def test_what_a_row_lacks_is_named_and_unscored(extra, params, message):
    verdict = score(row(answer(20, 10, 100, 50), extra, **params), answer(20, 10, 100, 50))
    assert (verdict.score, verdict.status) == (None, "bad_reference")
    assert message in verdict.reason


def test_shaping_of_a_row_without_a_space_needs_numbers_per_mille():
    verdict = score(make("detection", answer(20, 10, 1900, 50), shaping="giou"), "")
    assert (verdict.status, verdict.score) == ("bad_reference", None)


def test_resized_pixels_are_brought_to_whole_per_mille():
    sample = make(
        "detection",
        answer(100, 500, 333, 900),
        det_verifier_normalized=True,
        image_grid_thw=[[1, 200, 300]],  # one frame, 200 px high, 300 px wide
    )
    assert score(sample, answer(30, 100, 100, 180)).score == 1.0
    kept = row(
        answer(100, 500, 333, 900),
        {"resized_width": 300, "resized_height": 200},
        predicted_space="resized",
    )
    # Without upstream's parameter the third of 300 px stays 333.33 per mille.
    assert score(kept, answer(30, 100, 100, 180)).parts["iou"] == pytest.approx(233 / (700 / 3))


def test_the_size_the_model_saw_is_looked_up_in_three_places():
    params = {"det_verifier_normalized": True}
    for extra, grid in (
        ({**SIZES, "resized_width": 9, "resized_height": 9}, [[1, 252, 336]]),
        (SIZES, None),
        ({"image_width": 336.0, "image_height": 252.0}, []),
    ):
        sample = row(answer(0, 0, 500, 500), extra, **params, image_grid_thw=grid)
        assert score(sample, answer(0, 0, 168, 126)).score == 1.0


def test_a_frame_in_the_answers_own_space_changes_nothing():
    frame = Frame("unit", True, (1.0, 1.0), ANYWHERE)
    assert frame.bring([(0.1, 0.2, 0.3, 0.4)]) == [(0.1, 0.2, 0.3, 0.4)]


def test_a_click_is_converted_like_a_box():
    sample = row(
        "<answer>[20, 10, 100, 50]</answer>",
        {"coordinate_space": "pixel", "image_width": 200, "image_height": 100},
        "point",
        predicted_space="per_mille",
    )
    assert score(sample, "<answer>[300, 300]</answer>").score == 1.0
    assert score(sample, "<answer>[300, 501]</answer>").score == 0.0
    assert score(sample, "<answer>[60, 30]</answer>").score == 0.0
