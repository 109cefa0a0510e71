import ast
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_specs import Box, ImageRef, is_inside
from data_specs.box_answer import box_items
from data_specs.convert_boxes import (
    BoxRules,
    box_reward,
    check_rules,
    place_box,
    read_corners,
)
from data_specs.convert_images import LoadedImage, check_size
from data_specs.convert_log import Fault
from verifiers import parse_boxes

QUICK = settings(max_examples=300, deadline=None, derandomize=True)


def image(width=100, height=200):
    return LoadedImage(ImageRef(data=b"x"), width, height)


def placed(corners, space="per_mille", frame=(100.0, 200.0), of=None, given="pixel"):
    box, is_cut = place_box(
        corners, "dog", of or image(), rules=BoxRules(space=space), frame=frame, given=given
    )
    return box.corners, is_cut


def test_corner_and_size_become_thousandths_of_each_side():
    corners = read_corners([10, 20, 30, 40], "xywh")
    assert corners == (10, 20, 40, 60)
    assert placed(corners) == ((100, 100, 400, 300), False)
    assert placed(corners, "pixel") == ((10, 20, 40, 60), False)


def test_boxes_annotated_on_a_larger_copy_are_scaled_to_the_image():
    assert placed((20, 40, 80, 120), "pixel", (200.0, 400.0)) == ((10, 20, 40, 60), False)
    assert placed((20, 40, 80, 120), "per_mille", (200.0, 400.0)) == ((100, 100, 400, 300), False)


@pytest.mark.parametrize(
    ("given", "corners"),
    [("unit", (0.1, 0.1, 0.4, 0.3)), ("per_mille", (100, 100, 400, 300))],
)
def test_boxes_in_other_spaces_mean_the_same_pixels(given, corners):
    assert placed(corners, "pixel", given=given) == ((10, 20, 40, 60), False)


def test_a_little_beyond_the_image_is_cut_off_and_more_is_a_fault():
    # 50 x 100 px of which 2 px in x reach out: 96 % is inside
    assert placed((-2, 10, 48, 110)) == ((0, 50, 480, 550), True)
    with pytest.raises(Fault) as caught:
        placed((-6, 10, 44, 110))  # 88 % is inside
    assert caught.value.kind == "box outside the image"
    with pytest.raises(Fault, match="outside"):
        placed((500, 500, 600, 600))


def test_a_box_that_rounds_to_nothing_is_a_fault():
    with pytest.raises(Fault) as caught:
        placed((9, 20, 9.9, 60), of=image(4000, 200), frame=(4000.0, 200.0))
    assert caught.value.kind == "box too small"  # 2.25 to 2.475 thousandths


@pytest.mark.parametrize(
    ("value", "layout", "kind"),
    [
        (None, "xywh", "not a box"),
        ([], "xywh", "not a box"),
        ([1, 2, 3], "xywh", "not a box"),
        ([1, 2, 3, "x"], "xywh", "not a box"),
        ([1, 2, 3, None], "xywh", "not a box"),
        ([True, 2, 3, 4], "xywh", "not a box"),
        ([1, 2, math.nan, 4], "xywh", "not a box"),
        ([1, 2, math.inf, 4], "xywh", "not a box"),
        ("1,2,3,4", "xywh", "not a box"),
        ({"x": 1}, "xywh", "not a box"),
        ([1, 2, 0, 4], "xywh", "degenerate box"),
        ([1, 2, 3, -4], "xywh", "degenerate box"),
        ([5, 2, 3, 4], "xyxy", "degenerate box"),
        ([5, 2, 5, 4], "xyxy", "degenerate box"),
    ],
)
def test_what_is_no_box_is_told_by_kind(value, layout, kind):
    with pytest.raises(Fault) as caught:
        read_corners(value, layout)
    assert caught.value.kind == kind


def test_numbers_written_as_text_count():
    assert read_corners(["1", "2.5", 3, 4], "xywh") == (1, 2.5, 4, 6.5)


sizes = st.integers(1, 4000)
shares = st.floats(0, 1, allow_nan=False)


@QUICK
@given(sizes, sizes, shares, shares, shares, shares, st.sampled_from(["per_mille", "pixel"]))
def test_every_box_inside_its_image_is_placed_to_half_a_unit_or_refused(
    width, height, left, top, right, low, space
):
    x1, x2 = sorted((left * width, right * width))
    y1, y2 = sorted((top * height, low * height))
    side = (1000, 1000) if space == "per_mille" else (width, height)
    exact = (x1 * side[0] / width, y1 * side[1] / height)
    exact += (x2 * side[0] / width, y2 * side[1] / height)
    try:
        corners = read_corners([x1, y1, x2 - x1, y2 - y1], "xywh")
        box, _ = place_box(
            corners,
            "dog",
            image(width, height),
            rules=BoxRules(space=space),
            frame=(float(width), float(height)),
        )
    except Fault as fault:
        assert fault.kind in ("degenerate box", "box too small")
        assert min(exact[2] - exact[0], exact[3] - exact[1]) <= 1.0 + 1e-9
        return
    assert is_inside(box, image_size=(width, height))
    assert all(value == int(value) for value in box.corners)
    for value, wanted in zip(box.corners, exact, strict=True):
        assert abs(value - wanted) <= 0.5 + 1e-9


@QUICK
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8"), min_size=1, max_size=30),
            st.tuples(*[st.integers(0, 400)] * 2, *[st.integers(401, 1000)] * 2),
        ),
        max_size=5,
    )
)
def test_a_list_of_boxes_is_read_back_whatever_the_labels(items):
    text = f"[{box_items(items)}]"
    assert [(e["label"], tuple(e["bbox_2d"])) for e in ast.literal_eval(text)] == items


def test_a_label_with_quotes_reaches_the_verifier():
    items = [("driver's seat", (1, 2, 3, 4)), ('a "big" dog', (5, 6, 7, 8))]
    boxes = parse_boxes(f"<answer>[{box_items(items)}]</answer>")
    assert [box.label for box in boxes] == ["driver's seat", 'a "big" dog']


def test_the_reference_lists_boxes_from_top_to_bottom_then_from_left_to_right():
    corners = [(500, 300, 600, 400), (100, 300, 200, 400), (700, 0, 800, 100)]
    spec = box_reward([Box(*box, "cat", "per_mille") for box in corners])
    assert [box.x1 for box in parse_boxes(spec.ground_truth)] == [700, 100, 500]
    assert spec.ground_truth == f"<answer>{spec.answer}</answer>"
    assert (spec.accuracy_ratio, spec.format_ratio) == (0.9, 0.1)
    assert box_reward([]).ground_truth == "<answer>[]</answer>"


def test_the_papers_rules_leave_out_many_boxes_and_large_ones():
    small, large = Box(0, 0, 10, 10, "a", "pixel"), Box(0, 0, 100, 101, "a", "pixel")
    check_rules([small] * 10, image(), BoxRules(space="pixel", boxes_max=10, box_frac_max=0.5))
    for boxes, kind in (([small] * 11, "too many boxes"), ([large], "box too large")):
        with pytest.raises(Fault) as caught:
            check_rules(boxes, image(), BoxRules(space="pixel", boxes_max=10, box_frac_max=0.5))
        assert caught.value.kind == kind and caught.value.by_rule
    with pytest.raises(ValueError, match="above 0, up to 1"):
        BoxRules(box_frac_max=1.5)


def test_a_stated_size_may_be_a_scaled_copy_but_not_a_turned_one():
    assert check_size(image(), 50, 100) == (50.0, 100.0)
    assert check_size(image(), None, 100) == (100.0, 200.0)
    assert check_size(image(), "100", 0) == (100.0, 200.0)
    with pytest.raises(Fault) as caught:
        check_size(image(), 200, 100)
    assert caught.value.kind == "image size differs"
