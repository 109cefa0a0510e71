"""The image processor: the released pipeline bit for bit, tile order, pictures of every kind."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor

from vl.models.minimax_vl import MiniMaxVLImageProcessor
from vl.models.minimax_vl.anyres import RELEASED_PINPOINTS

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])
SIDE = 14
GRIDS = [[14, 14], [14, 28], [28, 14], [28, 28], [14, 42], [42, 14], [42, 28]]
SMALL = MiniMaxVLImageProcessor(SIDE, image_grid_pinpoints=GRIDS, resizer="pil")
FAST = MiniMaxVLImageProcessor(SIDE, image_grid_pinpoints=GRIDS)
RELEASED = MiniMaxVLImageProcessor(336, image_grid_pinpoints=RELEASED_PINPOINTS, resizer="pil")


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    shape = (height, width, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def levels(tiles) -> np.ndarray:
    """Normalised tiles (tile, 3, side, side) as (tile, side, side, 3) levels of 255."""
    return (tiles.numpy().transpose(0, 2, 3, 1).astype(float) * STD + MEAN) * 255


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Width, then height, as Pillow did it when the model was trained (13 may swap them)."""
    halfway = picture.resize((size[0], picture.height), Image.Resampling.BICUBIC)
    return halfway.resize(size, Image.Resampling.BICUBIC)


def released_tiles(picture: Image.Image, grids, side: int) -> np.ndarray:
    """The released steps one by one with PIL: uint8 (tile, side, side, 3). Sizes are (w, h)."""
    width, height = picture.size
    best, best_kept, least_waste = None, 0, float("inf")
    for grid_height, grid_width in grids:
        scale = min(grid_width / width, grid_height / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        waste = grid_width * grid_height - kept
        if kept > best_kept or (kept == best_kept and waste < least_waste):
            best, best_kept, least_waste = (grid_width, grid_height), kept, waste
    assert best is not None
    if width / height > best[0] / best[1]:
        new = (best[0], int(best[0] * height / width))
    else:
        new = (int(best[1] * width / height), best[1])
    canvas = Image.new("RGB", best)
    canvas.paste(
        resized(picture, new),
        ((best[0] - new[0]) // 2, (best[1] - new[1]) // 2),
    )
    tiles = [resized(picture, (side, side))]
    for top in range(0, best[1], side):
        for left in range(0, best[0], side):
            tiles.append(canvas.crop((left, top, left + side, top + side)))
    return np.stack([np.asarray(tile) for tile in tiles])


@pytest.mark.parametrize(
    "size",
    [(333, 517), (640, 480), (97, 613), (1023, 767), (336, 336), (1, 1), (335, 337), (701, 97)],
)
def test_the_pil_path_equals_the_released_steps_bit_for_bit(size):
    picture = noise(*size)
    expected = released_tiles(picture, RELEASED_PINPOINTS, 336)
    found = RELEASED(picture).pixel_values
    assert found.dtype == torch.float32
    assert np.array_equal(levels(found).round(), expected)
    normalised = (expected / 255 - MEAN) / STD
    assert np.abs(found.numpy() - normalised.transpose(0, 3, 1, 2)).max() < 1e-6


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(3, 90), st.integers(3, 90))
def test_small_tiles_of_any_size_equal_the_released_steps(width, height):
    picture = noise(width, height)
    expected = released_tiles(picture, GRIDS, SIDE)
    found = SMALL(picture)
    assert np.array_equal(levels(found.pixel_values).round(), expected)
    assert found.num_tiles.tolist() == [len(expected)]
    assert found.image_sizes.tolist() == [[height, width]]


@pytest.mark.parametrize("size", [(640, 480), (333, 517), (2100, 700), (50, 40)])
def test_torchvision_differs_from_pil_by_two_levels_at_most(size):
    fast = MiniMaxVLImageProcessor(336, image_grid_pinpoints=RELEASED_PINPOINTS)
    found, expected = (levels(one(noise(*size)).pixel_values) for one in (fast, RELEASED))
    difference = np.abs(found - expected)
    assert difference.max() < 2.01
    assert difference.mean() < 0.02


@pytest.mark.parametrize("processor", [SMALL, FAST])
def test_the_thumbnail_comes_first_then_tiles_row_by_row(processor):
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200), (200, 0, 200)]
    picture = Image.new("RGB", (28, 42))
    for index, colour in enumerate(colours):
        row, column = divmod(index, 2)
        picture.paste(colour, (column * 14, row * 14, column * 14 + 14, row * 14 + 14))
    found = processor(picture)
    seen = levels(found.pixel_values).round().astype(int)
    assert len(seen) == 7
    for tile, colour in zip(seen[1:], colours, strict=True):
        assert (tile == colour).all()
    squashed = np.asarray(resized(picture, (14, 14))).astype(int)
    assert np.abs(seen[0] - squashed).max() <= 2


@pytest.mark.parametrize("processor", [SMALL, FAST])
def test_bars_are_black_before_normalising_and_the_odd_line_is_below(processor):
    found = processor(Image.new("RGB", (28, 11), (255, 255, 255))).pixel_values
    black, white = torch.tensor(-MEAN / STD), torch.tensor((1 - MEAN) / STD)
    assert found.shape == (3, 3, 14, 14)  # a 14 x 28 grid: bars of 1 line above and 2 below
    for tile in found[1:]:
        expected = white[:, None, None].expand(3, 14, 14).clone()
        for line in (0, 12, 13):
            expected[:, line] = black[:, None]
        assert torch.allclose(tile.double(), expected, atol=1e-6)
    assert torch.allclose(found[0].double(), white[:, None, None].expand(3, 14, 14), atol=1e-6)


@pytest.mark.parametrize("processor", [SMALL, FAST])
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (20000, 10), (10, 20000)])
def test_extreme_pictures_are_processed(processor, size):
    found = processor(noise(*size))
    assert found.pixel_values.shape == (int(found.num_tiles[0]), 3, 14, 14)
    assert found.pixel_values.isfinite().all()
    assert found.image_sizes.tolist() == [[size[1], size[0]]]


def test_a_batch_is_its_pictures_one_after_another():
    pictures = [noise(20, 30, 1), noise(50, 14, 2), noise(9, 9, 3)]
    alone = [FAST(picture) for picture in pictures]
    for images in (pictures, [[pictures[0]], [], [pictures[1], pictures[2]]]):
        found = FAST(images)
        assert torch.equal(found.pixel_values, torch.cat([one.pixel_values for one in alone]))
        assert found.image_sizes.tolist() == [[30, 20], [14, 50], [9, 9]]
        assert found.num_tiles.tolist() == [len(one.pixel_values) for one in alone] == [7, 4, 2]


def test_padded_tiles_have_one_row_a_picture_and_end_in_zeros():
    pictures = [noise(20, 30, 1), noise(50, 14, 2)]
    flat, padded = FAST(pictures), FAST(pictures, pad_tiles=True)
    assert padded.pixel_values.shape == (2, 7, 3, 14, 14)
    assert torch.equal(padded.pixel_values[0], flat.pixel_values[:7])
    assert torch.equal(padded.pixel_values[1, :4], flat.pixel_values[7:])
    assert not padded.pixel_values[1, 4:].any()


def test_without_grids_a_picture_is_its_thumbnail():
    processor = MiniMaxVLImageProcessor(SIDE, resizer="pil")
    pictures = [noise(20, 30), noise(14, 14)]
    found = processor(pictures)
    pixels = processor.pixels(pictures)
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels[0].numpy(), np.asarray(resized(pictures[0], (14, 14))))
    assert np.array_equal(pixels[1].numpy(), np.asarray(pictures[1]))
    assert found.num_tiles.tolist() == [1, 1]
    assert torch.equal(found.pixel_values, processor.normalise(pixels))


def test_every_mode_becomes_the_rgb_levels_it_shows():
    def first(picture) -> list[int]:
        return MiniMaxVLImageProcessor(4).pixels([picture])[0, 0, 0].tolist()

    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    see_through = palette.copy()
    see_through.info["transparency"] = bytes([0, 0])
    for picture, expected in (
        (Image.new("RGBA", (4, 4), (10, 20, 30, 0)), [10, 20, 30]),
        (Image.new("LA", (4, 4), (7, 0)), [7, 7, 7]),
        (Image.new("L", (4, 4), 9), [9, 9, 9]),
        (Image.new("1", (4, 4), 1), [255, 255, 255]),
        (palette, [10, 20, 30]),
        (see_through, [10, 20, 30]),
        (Image.new("CMYK", (4, 4), (255, 0, 0, 0)), [0, 255, 255]),
        (Image.fromarray(np.full((4, 4), 0x80FF, np.uint16)), [128, 128, 128]),
        (Image.fromarray(np.full((4, 4), 0x80FF, np.int32)), [128, 128, 128]),
        (Image.fromarray(np.full((4, 4), -1, np.int32)), [0, 0, 0]),
    ):
        assert first(picture) == expected, picture.mode


def test_arrays_and_tensors_of_both_layouts_are_the_same_picture():
    picture = noise(20, 30)
    expected = SMALL(picture).pixel_values
    last = np.asarray(picture).copy()
    first = np.ascontiguousarray(last.transpose(2, 0, 1))
    alpha = np.concatenate([last, last[..., :1]], axis=2)
    for array in (last, first, alpha, torch.from_numpy(last), torch.from_numpy(first)):
        assert torch.equal(SMALL(array).pixel_values, expected)
    stack = torch.from_numpy(np.stack([first, first]))
    assert torch.equal(SMALL(stack).pixel_values, torch.cat([expected, expected]))
    grey = last[..., 0]
    for array in (grey, grey[None], grey[..., None]):
        assert torch.equal(
            SMALL(array).pixel_values, SMALL(Image.fromarray(grey).convert("RGB")).pixel_values
        )
    ambiguous = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    as_last = SMALL(Image.fromarray(ambiguous)).pixel_values
    as_first = SMALL(Image.fromarray(ambiguous.transpose(1, 2, 0).copy())).pixel_values
    assert torch.equal(SMALL(ambiguous).pixel_values, as_last)
    assert torch.equal(SMALL(torch.from_numpy(ambiguous)).pixel_values, as_first)


def test_a_path_is_turned_as_its_exif_says_and_an_open_picture_is_not(tmp_path):
    picture = noise(20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise to be upright
    picture.save(tmp_path / "turned.png", exif=exif)
    upright = picture.transpose(Image.Transpose.ROTATE_270)
    assert torch.equal(
        SMALL(str(tmp_path / "turned.png")).pixel_values, SMALL(upright).pixel_values
    )
    with Image.open(tmp_path / "turned.png") as opened:
        assert torch.equal(SMALL(opened).pixel_values, SMALL(picture).pixel_values)


def test_what_is_no_picture_is_refused():
    for images, error, message in (
        (np.zeros((4, 4, 3), np.float32), ValueError, "array of float32; give uint8"),
        (np.zeros((5, 4, 7), np.uint8), ValueError, r"shape \(5, 4, 7\)"),
        (np.zeros((4,), np.uint8), ValueError, r"shape \(4,\)"),
        (Image.fromarray(np.zeros((4, 4), np.float32)), ValueError, "floats"),
        (Image.new("RGB", (0, 4)), ValueError, "0x4 pixels"),
        ([], ValueError, "found none"),
        (3, TypeError, "int"),
    ):
        with pytest.raises(error, match=message):
            SMALL(images)
    with pytest.raises(TypeError, match="do_rescale"):
        SMALL(noise(4, 4), do_rescale=False)


def test_the_released_settings_are_read_in_every_form(tmp_path):
    grids = [list(grid) for grid in RELEASED_PINPOINTS]
    for size in (336, [336, 336], {"height": 336, "width": 336}):
        for pinpoints in (grids, str([tuple(grid) for grid in grids])):
            processor = MiniMaxVLImageProcessor(
                size, image_grid_pinpoints=pinpoints, process_image_mode="anyres", resample=3
            )
            assert processor.size == {"height": 336, "width": 336}
            assert processor.image_grid_pinpoints == grids
    processor.save_pretrained(tmp_path)
    again = AutoImageProcessor.from_pretrained(tmp_path, resizer="pil")
    assert again.to_dict() == processor.to_dict() | {"resizer": "pil"}
    assert torch.equal(again(noise(30, 20)).pixel_values, RELEASED(noise(30, 20)).pixel_values)


def test_settings_the_model_was_not_trained_with_are_refused():
    for settings_, message in (
        ({"process_image_mode": "dynamic_res"}, "process_image_mode: found 'dynamic_res'"),
        ({"do_normalize": False}, "do_normalize: found False"),
        ({"resample": 2}, "resample: found 2"),
        ({"resizer": "cv2"}, "resizer: found 'cv2'"),
        ({"size": {"shortest_edge": 336}}, "size: found"),
        ({"size": [336, 224]}, "tiles are square"),
        ({"size": 14, "image_grid_pinpoints": [[14, 20]]}, r"found \[14, 20\]"),
    ):
        with pytest.raises(ValueError, match=message):
            MiniMaxVLImageProcessor(**settings_)
