"""The decoder to and from transformers' own MiniMax.

On disk both have the same names for weights; what differs is config.json, and the decay tables
that transformers stores and we compute.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

import torch
from transformers import MiniMaxConfig

from .causal import MiniMaxTextForCausalLM
from .config_forms import to_minimax
from .configuration import MiniMaxVLTextConfig
from .modeling import MiniMaxVLForConditionalGeneration


def load_transformers_minimax(
    folder: str | PathLike[str], **options: Any
) -> MiniMaxTextForCausalLM:
    """Our decoder with the weights of a folder that `MiniMaxForCausalLM` wrote.

    Logits equal transformers' where that rotates heads as configured: it ignores `rotary_dim` and
    `partial_rotary_factor` (5.23), we do not. `options` as of `from_pretrained`.
    """
    found = MiniMaxConfig.from_pretrained(folder)
    config = MiniMaxVLTextConfig.from_transformers_minimax(found)
    return MiniMaxTextForCausalLM.from_pretrained(folder, config=config, **options)


def save_for_transformers(
    model: MiniMaxTextForCausalLM | MiniMaxVLForConditionalGeneration, folder: str | PathLike[str]
) -> None:
    """Writes the decoder so that `MiniMaxForCausalLM.from_pretrained` reads it.

    Raises:
        ValueError: the decoder has something that transformers' MiniMax has not.
    """
    text = text_part(model) if isinstance(model, MiniMaxVLForConditionalGeneration) else model
    config = to_minimax(text.config)
    text.save_pretrained(folder)
    config.architectures = ["MiniMaxForCausalLM"]
    config.dtype = text.dtype
    config.save_pretrained(folder)


def text_part(model: MiniMaxVLForConditionalGeneration) -> MiniMaxTextForCausalLM:
    """The decoder of a MiniMax-VL as a model of its own; the two share their weights."""
    with torch.device("meta"):
        text = MiniMaxTextForCausalLM(model.config.text_config)
    text.model = model.language_model.model
    text.lm_head = model.language_model.lm_head
    return text.train(model.training)
