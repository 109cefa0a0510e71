"""Tiles of a picture become image tokens: published counts, order, and the errors of a mismatch."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPVisionConfig, CLIPVisionModel, LlavaNextModel

from vl.models.minimax_vl import MiniMaxVLConfig, MiniMaxVLForConditionalGeneration
from vl.models.minimax_vl.anyres import (
    RELEASED_PINPOINTS,
    fit_size,
    kept_cells,
    num_image_tokens,
    num_tiles,
    read_pinpoints,
    select_grid,
)
from vl.models.minimax_vl.vision import VisionTower, pack_picture

TILE, PATCH = 336, 14
SIDES = st.integers(1, 5000)
TINY = MiniMaxVLConfig(
    text_config={
        "vocab_size": 97,
        "hidden_size": 16,
        "intermediate_size": 8,
        "num_hidden_layers": 2,
        "attn_type_list": [0, 1],
        "head_dim": 8,
        "rotary_dim": 4,
    },
    vision_config={
        "hidden_size": 16,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
        "use_class_token": True,
    },
    image_grid_pinpoints=[[28, 28], [28, 56], [28, 84], [56, 28], [56, 56]],
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MiniMaxVLForConditionalGeneration(TINY).eval()


@pytest.mark.parametrize(
    ("height", "width", "grid", "kept", "tokens"),
    [
        (336, 336, (336, 336), (24, 24), 1176),
        (200, 200, (336, 336), (24, 24), 1176),
        (480, 640, (672, 672), (36, 48), 2340),
        (640, 480, (672, 672), (48, 36), 2352),
        (768, 1024, (1008, 1344), (72, 96), 7560),
        (3000, 4000, (1008, 1344), (72, 96), 7560),
        (1024, 1024, (1344, 1344), (96, 96), 9888),
        (2016, 2016, (1344, 1344), (96, 96), 9888),
        (1080, 1920, (1008, 2016), (72, 128), 9864),
        (1920, 1080, (2016, 1008), (128, 72), 9920),
        (100, 2000, (336, 2016), (8, 144), 1736),
        (2000, 100, (2016, 336), (144, 8), 1872),
        (2016, 1008, (2016, 1008), (144, 72), 11088),
    ],
)
def test_published_token_counts(height, width, grid, kept, tokens):
    assert select_grid(height, width, RELEASED_PINPOINTS) == grid
    assert kept_cells(height, width, grid, TILE, PATCH) == kept
    assert num_image_tokens(height, width, RELEASED_PINPOINTS, TILE, PATCH) == tokens
    assert tokens == 576 + kept[0] * (kept[1] + 1)


def test_the_released_grids_are_28_and_none_has_more_than_18_tiles():
    assert len(set(RELEASED_PINPOINTS)) == 28
    assert RELEASED_PINPOINTS[:2] == ((336, 336), (336, 672))
    assert RELEASED_PINPOINTS[-1] == (2016, 1008)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(SIDES, SIDES)
def test_a_fitted_picture_touches_one_side_of_its_grid_and_keeps_its_proportions(height, width):
    grid = select_grid(height, width, RELEASED_PINPOINTS)
    found = fit_size(height, width, grid)
    assert found[0] == grid[0] or found[1] == grid[1]
    assert 1 <= found[0] <= grid[0] and 1 <= found[1] <= grid[1]
    exact = min(grid[0] / height, grid[1] / width)
    assert max(1, exact * height) - 1 < found[0] <= max(1, exact * height) + 1e-6
    assert max(1, exact * width) - 1 < found[1] <= max(1, exact * width) + 1e-6


@settings(derandomize=True, max_examples=200, deadline=None)
@given(SIDES, SIDES)
def test_the_kept_part_covers_the_picture_and_loses_the_same_on_both_sides(height, width):
    grid = select_grid(height, width, RELEASED_PINPOINTS)
    rows, columns = kept_cells(height, width, grid, TILE, PATCH)
    whole = (grid[0] // PATCH, grid[1] // PATCH)
    assert (whole[0] - rows) % 2 == 0 and (whole[1] - columns) % 2 == 0
    assert rows == whole[0] or columns == whole[1]
    assert rows >= height * min(whole[0] / height, whole[1] / width) - 1
    assert columns >= width * min(whole[0] / height, whole[1] / width) - 1
    assert num_tiles(height, width, RELEASED_PINPOINTS, TILE) == 1 + whole[0] * whole[1] // 576


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200))
def test_packing_gives_the_counted_tokens_and_equals_llava_next(height, width):
    tiles = num_tiles(height, width, TINY.image_grid_pinpoints, 28)
    features = torch.arange(tiles * 4 * 2.0).view(tiles, 4, 2)
    newline = torch.tensor([-1.0, -2.0])
    found = pack_picture(features, (height, width), newline, TINY)
    assert len(found) == TINY.num_picture_tokens(height, width)
    config = SimpleNamespace(
        vision_config=TINY.vision_config, image_grid_pinpoints=TINY.image_grid_pinpoints
    )
    expected, lengths = LlavaNextModel.pack_image_features(
        SimpleNamespace(config=config),
        [features],
        torch.tensor([[height, width]]),
        "default",
        newline,
    )
    assert lengths.tolist() == [len(found)]
    assert torch.equal(found, expected[0])


def test_tokens_are_thumbnail_then_rows_over_all_tiles_each_with_a_newline():
    # 14 x 42 px into 28 x 84: two rows of cells, six columns, padding lines above and below
    features = torch.arange(4 * 4.0).view(4, 4, 1)
    found = pack_picture(features, (28, 84), torch.tensor([-1.0]), TINY)
    thumbnail = [0, 1, 2, 3]
    first = [4, 5, 8, 9, 12, 13, -1]
    second = [6, 7, 10, 11, 14, 15, -1]
    assert found.flatten().tolist() == thumbnail + first + second


@torch.no_grad()
def test_the_tower_equals_clip_without_its_last_norm():
    torch.manual_seed(0)
    theirs = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=20,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
            hidden_act="quick_gelu",
        )
    ).eval()
    pixels = torch.randn(2, 3, 28, 28)
    hidden = theirs(pixels, output_hidden_states=True).hidden_states
    weights = {k.removeprefix("vision_model."): v for k, v in theirs.state_dict().items()}
    weights = {f"vision_model.{k}": v for k, v in weights.items() if "post_layernorm" not in k}
    for layer, strategy, expected in (
        (-1, "default", hidden[3][:, 1:]),
        (-2, "full", hidden[2]),
        ([-3, 3], "default", torch.cat([hidden[1], hidden[3]], -1)[:, 1:]),
    ):
        config = MiniMaxVLConfig(
            vision_config=theirs.config,
            vision_feature_layer=layer,
            vision_feature_select_strategy=strategy,
        )
        ours = VisionTower(config).eval()
        wanted = {k: v for k, v in weights.items() if not k.endswith("position_ids")}
        ours.load_state_dict(wanted)
        torch.testing.assert_close(ours(pixels), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_flat_and_padded_tiles_give_the_same_features(model):
    sizes = [(28, 84), (20, 20), (50, 50)]
    counts = [num_tiles(*size, TINY.image_grid_pinpoints, 28) for size in sizes]
    assert counts == [4, 2, 5]
    flat = torch.randn(sum(counts), 3, 28, 28)
    padded = torch.zeros(3, 5, 3, 28, 28)
    for row, part in enumerate(flat.split(counts)):
        padded[row, : counts[row]] = part
    found = model.get_image_features(flat, torch.tensor(sizes))
    assert [len(one) for one in found] == [TINY.num_picture_tokens(*size) for size in sizes]
    for one, other in zip(found, model.get_image_features(padded, sizes), strict=True):
        torch.testing.assert_close(one, other)
    alone = model.get_image_features(flat[4:6], sizes[1:2])
    torch.testing.assert_close(alone[0], found[1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_batch_of_rows_with_different_pictures_equals_the_rows_alone(model):
    sizes = [(28, 84), (20, 20), (50, 50)]
    counts = [num_tiles(*size, TINY.image_grid_pinpoints, 28) for size in sizes]
    pixels = torch.randn(sum(counts), 3, 28, 28)
    lengths = [TINY.num_picture_tokens(*size) for size in sizes]
    image = TINY.image_token_index
    rows = [[7] + [image] * lengths[0] + [8, 9], [5] + [image] * (lengths[1] + lengths[2])]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    together = model(ids, mask, pixel_values=pixels, image_sizes=torch.tensor(sizes)).logits
    parts = ((pixels[:4], sizes[:1]), (pixels[4:], sizes[1:]))
    for row, (tiles, of) in enumerate(parts):
        alone = model(torch.tensor([rows[row]]), pixel_values=tiles, image_sizes=of).logits
        found = together[row, mask[row].bool()]
        torch.testing.assert_close(found, alone[0], rtol=1e-5, atol=1e-5)


def test_generation_reads_a_tiled_picture_once_and_never_draws_its_marker(model):
    sizes = torch.tensor([[28, 84]])
    pixels = torch.randn(4, 3, 28, 28)
    ids = torch.tensor([[7] + [TINY.image_token_index] * TINY.num_picture_tokens(28, 84) + [8]])
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    found = model.generate(ids, pixel_values=pixels, image_sizes=sizes, **options)
    assert found.shape[1] == ids.shape[1] + 6
    assert model.generation_config.suppress_tokens == [TINY.image_token_index]
    wanted = ids
    with torch.no_grad():
        for _ in range(6):
            logits = model(wanted, pixel_values=pixels, image_sizes=sizes).logits[:, -1]
            logits[:, TINY.image_token_index] = -torch.inf
            wanted = torch.cat([wanted, logits.argmax(-1)[:, None]], 1)
    assert found.tolist() == wanted.tolist()


ROWS = [[(60, 20), (28, 28)], [(50, 50)], []]
"""Pictures of three rows, (height, width) in pixels."""


def rows_of_pictures():
    """Left-padded ids and mask, tiles and sizes of `ROWS`; and the same for each row alone."""
    generator = torch.Generator().manual_seed(5)
    marker, alone = TINY.image_token_index, []
    for sizes in ROWS:
        ids = torch.randint(5, 90, (7,), generator=generator).tolist()
        for size in sizes:
            ids += [marker] * TINY.num_picture_tokens(*size) + [9]
        tiles = sum(num_tiles(*size, TINY.image_grid_pinpoints, 28) for size in sizes)
        pixels = torch.randn(tiles, 3, 28, 28, generator=generator)
        alone.append((torch.tensor([ids]), pixels, torch.tensor(sizes).view(-1, 2)))
    longest = max(ids.shape[1] for ids, _, _ in alone)
    padding = [longest - ids.shape[1] for ids, _, _ in alone]
    each = zip(alone, padding, strict=True)
    ids = torch.cat([torch.nn.functional.pad(one[0], (n, 0)) for one, n in each])
    mask = torch.stack([(torch.arange(longest) >= n).long() for n in padding])
    together = {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": torch.cat([pixels for _, pixels, _ in alone]),
        "image_sizes": torch.cat([sizes for _, _, sizes in alone]),
    }
    return together, alone


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_beams_over_rows_with_different_numbers_of_pictures_equal_the_rows_alone(
    model, use_cache, padded
):
    batch, alone = rows_of_pictures()
    options = {"num_beams": 2, "num_return_sequences": 2, "max_new_tokens": 4}
    options |= {"do_sample": False, "use_cache": use_cache, "pad_token_id": 0}
    if padded:
        counts = [num_tiles(*size, TINY.image_grid_pinpoints, 28) for row in ROWS for size in row]
        parts = batch["pixel_values"].split(counts)
        batch["pixel_values"] = torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
    tiles = []
    hook = model.vision_tower.register_forward_pre_hook(lambda _, args: tiles.append(len(args[0])))
    found = model.generate(**batch, **options)[:, batch["input_ids"].shape[1] :]
    hook.remove()
    assert set(tiles) == {sum(len(pixels) for _, pixels, _ in alone)}  # not once for each beam
    for row, (ids, pixels, sizes) in enumerate(alone):
        pictures = {"pixel_values": pixels, "image_sizes": sizes} if len(sizes) else {}
        wanted = model.generate(ids, **pictures, **options)[:, ids.shape[1] :]
        assert found[2 * row : 2 * row + 2].tolist() == wanted.tolist()


@torch.no_grad()
def test_a_continued_cache_takes_the_pictures_of_the_whole_text_or_of_the_new_text(model):
    batch, _ = rows_of_pictures()
    first = model(**batch).past_key_values
    size, marker = (56, 28), TINY.image_token_index
    new = torch.randint(5, 90, (3, 6 + TINY.num_picture_tokens(*size)))
    new[1, 2:-4] = marker  # a new picture in the second row only
    pixels = torch.randn(num_tiles(*size, TINY.image_grid_pinpoints, 28), 3, 28, 28)
    ids = torch.cat([batch["input_ids"], new], 1)
    mask = torch.cat([batch["attention_mask"], torch.ones_like(new)], 1)
    whole = {
        "pixel_values": torch.cat([batch["pixel_values"], pixels]),
        "image_sizes": torch.cat([batch["image_sizes"], torch.tensor([size])]),
    }
    latest = {"pixel_values": pixels, "image_sizes": torch.tensor([size])}
    options = {"attention_mask": mask, "max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(ids, **whole, **options)
    for pictures in (whole, latest):
        for copies in (1, 2):
            found = model.generate(
                ids,
                **pictures,
                **options,
                past_key_values=first,
                num_beams=copies,
                num_return_sequences=copies,
            )
            if copies == 1:
                assert found.tolist() == expected.tolist()
            assert found.shape[0] == 3 * copies


def test_markers_and_pictures_that_do_not_fit_are_refused_by_row(model):
    image = TINY.image_token_index
    pixels, sizes = torch.randn(6, 3, 28, 28), torch.tensor([[28, 84], [20, 20]])
    first, second = (TINY.num_picture_tokens(*size) for size in sizes.tolist())
    assert (first, second) == (18, 10)
    ids = torch.full((2, 18), image)
    ids[1, 10:] = 7
    assert model(ids, pixel_values=pixels, image_sizes=sizes).logits.shape == (2, 18, 97)
    with pytest.raises(ValueError, match=r"holds 27 .* give 28 .* by row .* \[18, 9\]"):
        model(
            ids.index_fill(1, torch.tensor([9]), 7)[[0, 1]].where(
                torch.tensor([[False], [True]]), ids
            ),
            pixel_values=pixels,
            image_sizes=sizes,
        )
    with pytest.raises(ValueError, match=r"row 0 holds 10 .* \[18\] features"):
        model(ids.flip(0), pixel_values=pixels, image_sizes=sizes)
    with pytest.raises(ValueError, match="image_sizes is needed"):
        model(ids, pixel_values=pixels)
    with pytest.raises(ValueError, match=r"pixel_values holds 5 tiles, .* need \[4, 2\]"):
        model(ids, pixel_values=pixels[:5], image_sizes=sizes)
    with pytest.raises(ValueError, match=r"2 pictures of up to 3 tiles, .* need \[4, 2\]"):
        model(ids, pixel_values=pixels.view(2, 3, 3, 28, 28), image_sizes=sizes)


def test_grids_are_read_from_lists_and_text_and_wrong_ones_refused():
    assert read_pinpoints("[(336, 672)]", 336) == [[336, 672]]
    assert read_pinpoints(None, 336) == [] == read_pinpoints("[]", 336)
    for wrong in ([[336, 100]], [[336]], "[[0, 336]]"):
        with pytest.raises(ValueError, match="positive multiples of the tile's 336 pixels"):
            read_pinpoints(wrong, 336)
    with pytest.raises(ValueError, match=r"found the text '\(1x1\)'"):
        read_pinpoints("(1x1)", 336)
    with pytest.raises(ValueError, match="picture of 0x5"):
        select_grid(0, 5, RELEASED_PINPOINTS)
