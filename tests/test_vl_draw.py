"""Boxes are drawn where they are, on a copy that is enlarged without blur."""

import pytest
from PIL import Image, ImageColor

from data_specs import Box
from vl.draw import COLOURS, draw_boxes, fitting_scale

FIRST, SECOND = (ImageColor.getrgb(colour) for colour in COLOURS[:2])


def colours_of(image):
    return {colour for _, colour in image.getcolors(maxcolors=1 << 24)}


def test_the_outline_runs_along_the_box_and_nowhere_else():
    image = Image.new("RGB", (64, 64), "white")
    drawn = draw_boxes(image, [Box(250, 500, 750, 1000, "", "per_mille")], scale=10)
    assert drawn.size == (640, 640)
    # per mille 250..750 of 640 px: columns 160 and 479, rows 320 and 639
    for point in [(160, 320), (479, 320), (160, 639), (479, 639), (320, 320), (160, 480)]:
        assert drawn.getpixel(point) == FIRST
    for point in [(320, 480), (100, 480), (540, 480), (320, 200)]:
        assert drawn.getpixel(point) == (255, 255, 255)
    assert image.getcolors() == [(64 * 64, (255, 255, 255))]  # the original is untouched


@pytest.mark.parametrize(
    "box",
    [
        Box(16, 32, 48, 64, "", "pixel"),
        Box(0.25, 0.5, 0.75, 1.0, "", "unit"),
    ],
)
def test_every_space_that_needs_no_second_size_draws_the_same(box):
    image = Image.new("RGB", (64, 64), "white")
    per_mille = draw_boxes(image, [Box(250, 500, 750, 1000, "", "per_mille")])
    assert draw_boxes(image, [box]).tobytes() == per_mille.tobytes()


def test_a_box_of_the_resized_picture_is_refused():
    with pytest.raises(ValueError, match="resized"):
        draw_boxes(Image.new("RGB", (64, 64)), [Box(1, 1, 2, 2, "", "resized")])


def test_each_label_has_its_colour():
    image = Image.new("RGB", (64, 64), "white")
    boxes = [
        Box(100, 300, 300, 500, "cat", "per_mille"),
        Box(600, 600, 900, 900, "dog", "per_mille"),
        Box(400, 300, 500, 500, "cat", "per_mille"),
    ]
    drawn = draw_boxes(image, boxes)
    assert {FIRST, SECOND} <= colours_of(drawn)
    assert ImageColor.getrgb(COLOURS[2]) not in colours_of(drawn)


@pytest.mark.parametrize(
    ("size", "scale"), [((64, 64), 6), ((64, 200), 6), ((380, 400), 1), ((2000, 1500), 1)]
)
def test_only_small_pictures_are_enlarged(size, scale):
    assert fitting_scale(size) == scale
    assert draw_boxes(Image.new("L", size), []).size == (size[0] * scale, size[1] * scale)


def test_enlarging_repeats_pixels():
    image = Image.new("RGB", (2, 1))
    image.putpixel((1, 0), (9, 8, 7))
    drawn = draw_boxes(image, [], scale=3)
    assert [drawn.getpixel((x, 2)) for x in range(6)] == [(0, 0, 0)] * 3 + [(9, 8, 7)] * 3


@pytest.mark.parametrize(
    "box",
    [
        Box(-500, -500, 5000, 5000, "huge", "per_mille"),
        Box(500, 500, 500, 500, "no area", "per_mille"),
        Box(5000, 5000, 6000, 6000, "outside", "per_mille"),
        Box(1, 1, 9, 9, "long " * 100, "per_mille"),
    ],
)
def test_odd_boxes_do_not_stop_the_drawing(box):
    assert draw_boxes(Image.new("RGB", (64, 64)), [box]).size == (384, 384)


def test_a_scale_below_one_is_refused():
    with pytest.raises(ValueError, match="scale 0"):
        draw_boxes(Image.new("RGB", (64, 64)), [], scale=0)
