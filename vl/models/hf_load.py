"""What a transformers image-text-to-text model is made of, and what of it cannot be used."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import DynamicCache, DynamicLayer, PreTrainedModel, ProcessorMixin

from .hf_attention import ATTENTION_NAME, Recording, register

_VISION_MARK = re.compile(
    r"(^|[<|_\-])(image|img|video|vision|fake_token_around_image|global-img|row_\d+_col_\d+)([_\-|>]|$)",
    re.IGNORECASE,
)
_ID_NAMES = (
    *("image_token_id", "image_token_index", "video_token_id", "video_token_index"),
    *("vision_start_token_id", "vision_end_token_id", "vision_token_id"),
)
_REFUSED = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Settings that change logits after the head, which is applied here directly."""


@dataclass(frozen=True)
class Sharing:
    """Whether answers can continue their prompt's memory, or each prompt is read for each."""

    works: bool
    reason: str
    """Why not; empty if it works."""

    def __bool__(self) -> bool:
        return self.works


def text_model_of(model: PreTrainedModel) -> PreTrainedModel:
    """The decoder without its head.

    Raises:
        ValueError: the model is of a kind that the trainer cannot drive.
    """
    inner = model.base_model
    text = getattr(inner, "language_model", None) or getattr(inner, "text_model", None)
    name = type(model).__name__
    if text is None or not hasattr(inner, "get_image_features"):
        raise ValueError(
            f"{name}: found no decoder (`language_model` or `text_model`) or no "
            "`get_image_features`; allowed are image-text-to-text models that have both"
        )
    if "mm_encoder_outputs" not in inspect.signature(inner.forward).parameters:
        raise ValueError(
            f"{name} takes no picture features (`mm_encoder_outputs`) in this version of "
            "transformers; upgrade transformers (5.23 has it for some 80 families)"
        )
    if not isinstance(model.get_output_embeddings(), nn.Linear):
        raise ValueError(
            f"{name}: the head is a {type(model.get_output_embeddings()).__name__}, allowed is a "
            "plain linear layer; put no adapter on it"
        )
    config = text.config
    odd = [key for key in _REFUSED if getattr(config, key, None) not in (None, 1, 1.0)]
    if odd:
        raise ValueError(f"{name}: {odd} change the logits after the head; not supported")
    return cast("PreTrainedModel", text)


def prepare_sharing(text: PreTrainedModel) -> Sharing:
    """Puts the sharing attention into a decoder if all its layers can use it."""
    config = text.config
    kinds = {type(layer).__name__ for layer in _cache_layers(config)} - {DynamicLayer.__name__}
    if kinds:
        return Sharing(False, f"its cache has layers of another kind: {sorted(kinds)}")
    if config._attn_implementation not in ("sdpa", ATTENTION_NAME):
        return Sharing(
            False, f"its attention is {config._attn_implementation!r}; load it with 'sdpa'"
        )
    parameters = inspect.signature(text.forward).parameters.values()
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return Sharing(False, "its forward pass hands no further arguments to its layers")
    register()
    text.set_attn_implementation(ATTENTION_NAME)
    recording = Recording()
    with torch.no_grad():
        text(
            input_ids=torch.zeros(1, 2, dtype=torch.long, device=text.device),
            use_cache=False,
            **{"tree": recording},
        )
    if sorted(recording.layers) != list(range(config.num_hidden_layers)):
        text.set_attn_implementation("sdpa")
        return Sharing(False, "its layers do not go through transformers' attention interface")
    return Sharing(True, "")


def _cache_layers(config: Any) -> list[Any]:
    layers = DynamicCache(config=config).layers
    return layers or [DynamicLayer()]


def forbidden_ids(model: PreTrainedModel, processor: ProcessorMixin) -> list[int]:
    """Tokens that stand for pictures and videos or mark where they start and end, rising."""
    tokenizer = cast("Any", processor).tokenizer
    places: Iterable[Any] = (model.config, processor)
    found = {getattr(place, name, None) for place in places for name in _ID_NAMES}
    added = tokenizer.added_tokens_decoder.items()
    found |= {index for index, token in added if _VISION_MARK.search(token.content)}
    size = cast("Any", model.get_output_embeddings()).weight.shape[0]
    return sorted(index for index in found if index is not None and 0 <= index < size)


def end_ids_of(model: PreTrainedModel, processor: ProcessorMixin) -> frozenset[int]:
    """Tokens that end an answer: the generation config's, else the tokenizer's."""
    config = model.generation_config
    ids = None if config is None else config.eos_token_id
    if ids is None:
        ids = cast("Any", processor).tokenizer.eos_token_id
    if ids is None:
        raise ValueError(
            f"{type(model).__name__}: neither generation config nor tokenizer has an end token; "
            "set `eos_token_id`"
        )
    return frozenset([ids] if isinstance(ids, int) else ids)
