"""Tiny random transformers models with real processors, built without any download, for tests."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from vl.models.hf import HfPolicy

QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% for c in m.content %}{% if c.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAVA_TEMPLATE = (
    "<s>{% for m in messages %}{{ '[INST] ' if m.role == 'user' else '' }}"
    "{% for c in m.content %}{% if c.type == 'image' %}<image>\n{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}{{ ' [/INST]' if m.role == 'user' else '</s>' }}{% endfor %}"
)
IDEFICS_TEMPLATE = (
    "<|im_start|>{% for m in messages %}{{ m.role | capitalize }}:"
    "{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
ROW_COLS = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]


def tokenizer_with(special: list[str], **names: str) -> PreTrainedTokenizerFast:
    """One token a byte, then the special ones."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({b: i for i, b in enumerate(bytes_)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, padding_side="left", **names)
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    return tokenizer


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    special = ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
    special += ["<|video_pad|>", "<|box_start|>"]
    return tokenizer_with(special, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def qwen_ids(tokenizer) -> dict[str, int]:
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 4096,
}


def ends(tokenizer) -> dict[str, int | None]:
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def qwen25(**text):
    tokenizer = qwen_tokenizer()
    images = Qwen2VLImageProcessor(patch_size=14, min_pixels=28 * 28, max_pixels=112 * 112)
    processor = Qwen2_5_VLProcessor(
        images, tokenizer, Qwen2VLVideoProcessor(), chat_template=QWEN_TEMPLATE
    )
    config = Qwen2_5_VLConfig(
        text_config={
            **TEXT,
            "vocab_size": 320,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
            **ends(tokenizer),
            **text,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 32,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        **qwen_ids(tokenizer),
        **ends(tokenizer),
    )
    return Qwen2_5_VLForConditionalGeneration(config), processor


def qwen3():
    tokenizer = qwen_tokenizer()
    images = Qwen2VLImageProcessor(patch_size=16, min_pixels=32 * 32, max_pixels=128 * 128)
    processor = Qwen3VLProcessor(
        images, tokenizer, Qwen3VLVideoProcessor(), chat_template=QWEN_TEMPLATE
    )
    config = Qwen3VLConfig(
        text_config={
            **TEXT,
            "vocab_size": 320,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]},
            **ends(tokenizer),
        },
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        **qwen_ids(tokenizer),
        **ends(tokenizer),
    )
    return Qwen3VLForConditionalGeneration(config), processor


def llava():
    tokenizer = tokenizer_with(["<image>"], bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    images = LlavaNextImageProcessor(
        size={"shortest_edge": 28},
        crop_size={"height": 28, "width": 28},
        image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]],
    )
    processor = LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )
    config = LlavaNextConfig(
        text_config=LlamaConfig(**TEXT, **ends(tokenizer), vocab_size=320),
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        ),
        image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]],
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return LlavaNextForConditionalGeneration(config), processor


def idefics3():
    special = ["<|im_start|>", "<image>", "<fake_token_around_image>", "<global-img>"]
    tokenizer = tokenizer_with(
        [*special, "<end_of_utterance>", *ROW_COLS], eos_token="<|im_end|>", pad_token="<pad>"
    )
    images = Idefics3ImageProcessor(size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
    processor = Idefics3Processor(
        images, tokenizer, image_seq_len=4, chat_template=IDEFICS_TEMPLATE
    )
    config = Idefics3Config(
        text_config=LlamaConfig(**TEXT, **ends(tokenizer), vocab_size=320),
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 7,
        },
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = Idefics3ForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<end_of_utterance>")
    return model, processor


FAMILIES = {"qwen25": qwen25, "qwen3": qwen3, "llava": llava, "idefics3": idefics3}


def tiny(family: str, *, seed: int = 0, **text) -> HfPolicy:
    torch.manual_seed(seed)
    model, processor = FAMILIES[family](**text)
    tokenizer = processor.tokenizer
    if family != "idefics3":
        model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    for name, param in model.named_parameters():  # attention that looks, answers that differ
        if param.ndim > 1 and "norm" not in name:
            torch.nn.init.normal_(param, std=0.15)
    return HfPolicy.load(model.eval(), processor)


def picture(seed: int, width: int = 56, height: int = 56) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
