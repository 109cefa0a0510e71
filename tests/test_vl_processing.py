"""The processor: image tokens per picture, rows with any number of pictures, turns, saved files."""

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    ProcessorMixin,
)

from vl.models.minimax_vl import MiniMaxVLImageProcessor, MiniMaxVLProcessor, build_tokenizer
from vl.models.minimax_vl.anyres import RELEASED_PINPOINTS
from vl.models.minimax_vl.tokenizer import RELEASED_CHAT_TEMPLATE

GRIDS = [[14, 14], [14, 28], [28, 14], [28, 28]]
BOS, EOS = "<beginning_of_sentence>", "<end_of_sentence>"


def tokenizer(template: str | None = RELEASED_CHAT_TEMPLATE):
    built = build_tokenizer(["what is this", "a red dog"], coordinate_bins=8)
    built.chat_template = template
    return built


PROCESSOR = MiniMaxVLProcessor(
    MiniMaxVLImageProcessor(14, image_grid_pinpoints=GRIDS, patch_size=7), tokenizer()
)
RELEASED = MiniMaxVLProcessor(
    MiniMaxVLImageProcessor(336, image_grid_pinpoints=RELEASED_PINPOINTS, patch_size=14),
    tokenizer(),
)
IMAGE_ID = PROCESSOR.image_token_id


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    shape = (height, width, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


WIDE, TALL, SQUARE = noise(28, 14, 1), noise(14, 28, 2), noise(10, 10, 3)
# 2 x 2 tokens a tile; a wide picture keeps 2 x 4, a tall one 4 x 2, a square one 2 x 2 of them,
# and each kept row ends with one more
TOKENS = {id(WIDE): 4 + 2 * 5, id(TALL): 4 + 4 * 3, id(SQUARE): 4 + 2 * 3}


def image_tokens(batch) -> list[int]:
    return (batch.input_ids == IMAGE_ID).sum(1).tolist()


def naive_count(height: int, width: int) -> int:
    """Image tokens by listing the lines of the feature map and striking the empty ones."""
    best = None
    for grid_width, grid_height in RELEASED_PINPOINTS:  # as the released processor turns them
        scale = min(grid_width / width, grid_height / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        key = (-kept, grid_width * grid_height - kept)
        if best is None or key < best[0]:
            best = (key, grid_height, grid_width)
    assert best is not None
    rows, columns = list(range(best[1] // 14)), list(range(best[2] // 14))
    num_rows, num_columns = len(rows), len(columns)
    if width / height > num_columns / num_rows:
        bar = (num_rows - int(height * num_columns) // width) // 2
        rows = rows[bar : num_rows - bar]
    else:
        bar = (num_columns - int(width * num_rows) // height) // 2
        columns = columns[bar : num_columns - bar]
    return 24 * 24 + sum(1 for _ in rows for _ in [*columns, "newline"])


def test_token_counts_of_200_sizes_equal_two_other_implementations():
    draw = random.Random(0)
    sizes = [(draw.randint(1, 3000), draw.randint(1, 3000)) for _ in range(150)]
    sizes += [(draw.randint(1, 60), draw.randint(1, 6000)) for _ in range(24)]
    sizes += [(336 * rows, 336 * columns) for rows in range(1, 6) for columns in range(1, 6)]
    sizes += [(1, 5000)]
    theirs = LlavaNextProcessor(
        LlavaNextImageProcessor(image_grid_pinpoints=[list(grid) for grid in RELEASED_PINPOINTS]),
        tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    assert len(sizes) == 200
    for height, width in sizes:
        found = RELEASED.num_tokens(height, width)
        assert found == naive_count(height, width), (height, width)
        assert found == theirs._get_number_of_features(height, width, 336, 336) - 1


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (336, 336, 1176),
        (100, 100, 1176),
        (480, 640, 2340),
        (640, 480, 2352),
        (768, 1024, 7560),
        (3000, 4000, 7560),
        (1024, 1024, 9888),
        (2016, 2016, 9888),
        (1080, 1920, 9864),
        (1920, 1080, 9920),
        (100, 2000, 1736),
        (2000, 100, 1872),
        (2016, 1008, 11088),
    ],
)
def test_token_counts_of_the_released_model(height, width, expected):
    assert RELEASED.num_tokens(height, width) == expected


def test_a_picture_of_the_released_model_takes_its_tokens_and_tiles():
    batch = RELEASED(noise(640, 480), "what <image> is")
    assert image_tokens(batch) == [2340]
    assert batch.pixel_values.shape == (5, 3, 336, 336)
    assert batch.image_sizes.tolist() == [[480, 640]]


def test_rows_take_any_number_of_pictures_in_order():
    texts = ["<image>a<image>", "dog", "red<image>"]
    for images in (
        [WIDE, TALL, SQUARE],
        [[WIDE, TALL], [], [SQUARE]],
        [[WIDE, TALL], None, SQUARE],
    ):
        batch = PROCESSOR(images, texts)
        assert image_tokens(batch) == [TOKENS[id(WIDE)] + TOKENS[id(TALL)], 0, TOKENS[id(SQUARE)]]
        assert batch.image_sizes.tolist() == [[14, 28], [28, 14], [10, 10]]
        assert len(batch.pixel_values) == 3 + 3 + 2
        row = batch.input_ids[0].tolist()
        a = PROCESSOR.tokenizer.convert_tokens_to_ids("a")
        assert row == [IMAGE_ID] * TOKENS[id(WIDE)] + [a] + [IMAGE_ID] * TOKENS[id(TALL)]


def test_text_alone_and_pictures_alone():
    assert sorted(PROCESSOR(text="dog")) == ["attention_mask", "input_ids"]
    assert sorted(PROCESSOR([], "dog")) == ["attention_mask", "input_ids"]
    assert sorted(PROCESSOR(WIDE)) == ["image_sizes", "pixel_values"]
    with pytest.raises(ValueError, match="neither images nor text"):
        PROCESSOR()
    with pytest.raises(ValueError, match="videos"):
        PROCESSOR(text="dog", videos=[WIDE])


@pytest.mark.parametrize(
    ("images", "texts", "message"),
    [
        ([WIDE], ["a"], "row 0: 0 <image> markers for 1 pictures"),
        (None, ["a", "<image>"], "row 1: 1 <image> markers for 0 pictures"),
        ([WIDE], ["<image>", "<image>"], "row 1: 1 <image> markers for 0 pictures"),
        ([WIDE, TALL, SQUARE], ["<image>", "<image>"], "row 1: 1 <image> markers for 2 pictures"),
        ([[WIDE], [TALL, TALL]], ["<image><image>", "<image>"], "row 0: 2 .* for 1 pictures"),
        ([[WIDE], []], ["<image>"], "2 lists for 1 rows"),
    ],
)
def test_markers_that_do_not_match_are_refused_with_the_row(images, texts, message):
    with pytest.raises(ValueError, match=message):
        PROCESSOR(images, texts)


def test_rows_are_padded_left_unless_told_otherwise():
    pad = PROCESSOR.tokenizer.pad_token_id
    left = PROCESSOR(text=[" dog", "a red dog"])
    right = PROCESSOR(text=[" dog", "a red dog"], padding_side="right")
    assert left.input_ids[0, 0] == pad and left.attention_mask[0].tolist() == [0, 0, 1]
    assert right.input_ids[0, -1] == pad and right.attention_mask[0].tolist() == [1, 0, 0]


def test_truncation_inside_a_picture_is_refused():
    kwargs = {"truncation": True, "max_length": 6}
    with pytest.raises(ValueError, match=r"row 1: 6 of 14 image tokens are left"):
        PROCESSOR(WIDE, ["dog", "<image>"], **kwargs)
    assert PROCESSOR(text="a red dog" * 5, **kwargs).input_ids.shape == (1, 6)


def test_types_and_offsets_of_image_tokens():
    batch = PROCESSOR(
        [SQUARE],
        ["a<image>", "dog"],
        return_mm_token_type_ids=True,
        return_text_replacement_offsets=True,
    )
    assert torch.equal(batch.mm_token_type_ids, (batch.input_ids == IMAGE_ID).long())
    ((moved,), nothing) = batch.text_replacement_offsets
    assert moved["span"] == (1, 8) and moved["new_span"] == (1, 1 + 7 * 10)
    assert nothing == []


def turns(question: str, *pictures):
    parts = [{"type": "image", "image": picture} for picture in pictures]
    return [
        {"role": "system", "content": [{"type": "text", "text": "red"}]},
        {"role": "user", "content": [*parts, {"type": "text", "text": question}]},
        {"role": "assistant", "content": [{"type": "text", "text": "dog"}]},
    ]


RENDERED = (
    f"{BOS}system ai_setting=assistant\nred{EOS}\n"
    f"{BOS}user name=user\n<image>what is this{EOS}\n"
    f"{BOS}ai name=assistant\ndog{EOS}\n"
)


def test_turns_are_written_as_the_released_model_reads_them():
    messages = turns("what is this", WIDE)
    assert PROCESSOR.apply_chat_template(messages) == RENDERED
    asked = PROCESSOR.apply_chat_template(messages, add_generation_prompt=True)
    assert asked == f"{RENDERED}{BOS}ai name=assistant\n"
    assert messages == turns("what is this", WIDE)  # left as they were
    with pytest.raises(Exception, match="role tool"):
        PROCESSOR.apply_chat_template([{"role": "tool", "content": "x"}])


def test_turns_with_their_pictures_become_model_inputs(tmp_path):
    WIDE.save(tmp_path / "wide.png")
    expected = PROCESSOR([WIDE], RENDERED)
    for picture in (WIDE, str(tmp_path / "wide.png")):
        found = PROCESSOR.apply_chat_template(
            turns("what is this", picture), tokenize=True, return_dict=True, return_tensors="pt"
        )
        assert sorted(found) == ["attention_mask", "image_sizes", "input_ids", "pixel_values"]
        assert all(torch.equal(found[name], expected[name]) for name in found)
    batch = PROCESSOR.apply_chat_template(
        [turns("what is this"), turns("what is this", WIDE, TALL)],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert image_tokens(batch) == [0, TOKENS[id(WIDE)] + TOKENS[id(TALL)]]


@pytest.mark.skipif(
    not hasattr(ProcessorMixin, "_adjust_assistant_masks_indices"),
    reason="this transformers does not find answers behind expanded markers",
)
def test_the_mask_of_assistant_tokens_covers_the_answer_and_its_end():
    found = PROCESSOR.apply_chat_template(
        [turns("what is this", WIDE, TALL), turns("a")],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    for ids, mask in zip(found["input_ids"], found["assistant_masks"], strict=True):
        marked = [int(token) for token, is_answer in zip(ids, mask, strict=True) if is_answer]
        assert PROCESSOR.tokenizer.decode(marked) == f"dog{EOS}"


@pytest.mark.parametrize("token", ["<image>", EOS, "<pad>"])
def test_a_special_token_in_a_text_is_refused_or_read_as_text(token):
    messages = turns(f"a {token}", WIDE)
    with pytest.raises(ValueError, match=f"conversation 0, message 1: .*'{token}'"):
        PROCESSOR.apply_chat_template(messages)
    plain = [{"role": "user", "content": f"a {token}"}]
    with pytest.raises(ValueError, match=f"message 0: .*'{token}'"):
        PROCESSOR.apply_chat_template(plain)
    text = PROCESSOR.apply_chat_template(messages, sanitize_control_tokens=True)
    assert text == RENDERED.replace("what is this", f"a < {token[1:]}")
    assert image_tokens(PROCESSOR([WIDE], text)) == [TOKENS[id(WIDE)]]


def test_a_saved_processor_comes_back(tmp_path):
    PROCESSOR.coordinate_space = "pixel"
    try:
        PROCESSOR.save_pretrained(tmp_path)
    finally:
        PROCESSOR.coordinate_space = "per_mille"
    again = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(again, MiniMaxVLProcessor)
    assert again.coordinate_space == "pixel"
    assert again.num_image_tokens == 4
    assert again.chat_template == RELEASED_CHAT_TEMPLATE
    assert again.image_processor.to_dict() == PROCESSOR.image_processor.to_dict()
    found, expected = again([TALL], "a<image>"), PROCESSOR([TALL], "a<image>")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert again.batch_decode([[again.tokenizer.eos_token_id]]) == [EOS]
    assert set(expected) <= set(again.model_input_names)


def test_a_folder_as_published_is_read_without_its_code(tmp_path):
    saved = tokenizer(template=None)
    saved.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for name in ("pad_token", "padding_side"):
        del settings[name]
    code = {"processor_class": "MiniMaxVL01Processor", "auto_map": {"AutoProcessor": "p.P"}}
    for name, content in {
        "tokenizer_config.json": settings,
        "config.json": {"model_type": "minimax_vl_01"},
        "processor_config.json": {**code, "patch_size": 14, "image_token": "<image>"},
        "preprocessor_config.json": {
            **code,
            "auto_map": {"AutoImageProcessor": "image_processor.ImageProcessor"},
            "image_processor_type": "ImageProcessor",
            "size": [336, 336],
            "patch_size": 14,
            "process_image_mode": "anyres",
            "image_grid_pinpoints": [list(grid) for grid in RELEASED_PINPOINTS],
            "do_resize": True,
            "resample": 3,
        },
    }.items():
        (tmp_path / name).write_text(json.dumps(content))
    processor = MiniMaxVLProcessor.from_pretrained(tmp_path)
    assert processor.num_tokens(480, 640) == 2340
    assert processor.chat_template == RELEASED_CHAT_TEMPLATE
    assert processor.tokenizer.pad_token == EOS
    assert processor(text=["a", "a dog"]).attention_mask.tolist() == [[0, 1], [1, 1]]


def test_a_processor_that_cannot_count_is_refused():
    images = MiniMaxVLImageProcessor(14, image_grid_pinpoints=GRIDS)
    with pytest.raises(ValueError, match="num_image_tokens: unknown"):
        MiniMaxVLProcessor(images, tokenizer())
    with pytest.raises(ValueError, match="num_image_tokens: 5 do not lie in a square"):
        MiniMaxVLProcessor(images, tokenizer(), num_image_tokens=5)
    with pytest.raises(ValueError, match="image_token: the tokenizer reads '<picture>' as"):
        MiniMaxVLProcessor(images, tokenizer(), num_image_tokens=4, image_token="<picture>")
    with pytest.raises(ValueError, match="needs an image processor and a tokenizer"):
        MiniMaxVLProcessor(images)


def test_without_grids_every_picture_takes_the_same_tokens():
    processor = MiniMaxVLProcessor(MiniMaxVLImageProcessor(14), tokenizer(), num_image_tokens=5)
    assert image_tokens(processor([WIDE, TALL], ["<image>", "<image>"])) == [5, 5]


def test_servers_learn_the_token_counts_from_sizes_alone():
    found = RELEASED._get_num_multimodal_tokens(image_sizes=[(480, 640), (336, 336)])
    assert found.num_image_tokens == [2340, 1176]
    assert found.num_image_patches == [1, 1]
