"""How large a MiniMax-VL is and what a token costs: arithmetic on its configuration.

Nothing is allocated. A multiplication with its addition counts as two operations; norms,
activations and softmax are left out, as is usual.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .anyres import num_tiles
from .checkpoint_names import published_tensors
from .configuration import LIGHTNING, SOFTMAX, MiniMaxVLConfig, MiniMaxVLTextConfig

_ROUTER = ".block_sparse_moe.gate."
_TRAINING_BYTES = 16
"""Of float32 training with Adam: weight, gradient and two moments, 4 bytes each."""


_PARTS: tuple[str, ...] = (
    "embedding",
    "lightning attention",
    "softmax attention",
    "routers",
    "experts",
    "norms",
    "head",
    "vision tower",
    "projector",
    "newline",
)


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """Parameters by part and bytes."""

    parameters: dict[str, int]
    """Part -> parameters; the parts are disjoint and complete."""
    active_per_token: int
    """Decoder parameters that one token passes through, without embedding and head."""
    weight_bytes: int
    """bfloat16, router gates in float32, as published."""
    training_bytes: int
    """Weights, gradients and Adam's two moments in float32."""
    kv_bytes_per_token: int
    """Keys and values of the softmax layers in bfloat16."""
    state_bytes: int
    """Lightning states of one sequence in float32, whatever its length."""

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(self.parameters.values())


@dataclass(frozen=True, kw_only=True)
class PictureSize:
    """What one picture costs before the decoder reads it."""

    num_tiles: int
    num_tokens: int
    vision_flops: int
    """Tower and projector over all tiles."""


def model_size(config: MiniMaxVLConfig) -> ModelSize:
    """Sizes of the model that this configuration makes."""
    tensors = {name: math.prod(shape) for name, shape in published_tensors(config).items()}
    text = config.text_config
    parameters = dict.fromkeys(_PARTS, 0)
    for name, count in tensors.items():
        parameters[_part(name, text)] += count
    gates = parameters["routers"]
    unused = 1 - text.num_experts_per_tok / text.num_local_experts
    decoder = sum(count for name, count in tensors.items() if name.startswith("language_model."))
    around = parameters["embedding"] + parameters["head"]
    num_softmax = text.attn_type_list.count(SOFTMAX)
    num_lightning = text.attn_type_list.count(LIGHTNING)
    kv_values = 2 * text.num_key_value_heads * text.head_dim
    total = sum(tensors.values())
    return ModelSize(
        parameters=parameters,
        active_per_token=decoder - around - round(parameters["experts"] * unused),
        weight_bytes=2 * total + 2 * gates,
        training_bytes=_TRAINING_BYTES * total,
        kv_bytes_per_token=2 * kv_values * num_softmax,
        state_bytes=4 * text.num_attention_heads * text.head_dim**2 * num_lightning,
    )


def _part(name: str, text: MiniMaxVLTextConfig) -> str:
    if not name.startswith("language_model."):
        parts = {"vision_tower": "vision tower", "multi_modal_projector": "projector"}
        return parts.get(name.split(".")[0], "newline")
    if "embed_tokens" in name or "lm_head" in name:
        return "head" if "lm_head" in name else "embedding"
    if "block_sparse_moe" in name:
        return "routers" if _ROUTER in name else "experts"
    if "self_attn" not in name:
        return "norms"
    kind = text.attn_type_list[int(name.split(".layers.")[1].split(".")[0])]
    return "lightning attention" if kind == LIGHTNING else "softmax attention"


def decode_flops(config: MiniMaxVLConfig, context_tokens: int) -> int:
    """Operations of one new token that looks back on `context_tokens`, its logits included."""
    text = config.text_config
    inner = text.num_attention_heads * text.head_dim
    softmax = 4 * inner * (context_tokens + 1)  # scores and their mix, over all keys
    lightning = 5 * inner * text.head_dim  # decay, update and reading of the state
    head = 2 * text.vocab_size * text.hidden_size
    return _weights_flops(config) + head + _attention_flops(text, lightning, softmax)


def prefill_flops(config: MiniMaxVLConfig, prompt_tokens: int) -> int:
    """Mean operations a token of reading a prompt of so many tokens; no logits."""
    text = config.text_config
    inner = text.num_attention_heads * text.head_dim
    softmax = 2 * inner * (prompt_tokens + 1)  # a token looks back on half the prompt
    block = min(text.lightning_block_tokens, prompt_tokens)
    lightning = 4 * inner * block + 4 * inner * text.head_dim  # inside the block, and the state
    return _weights_flops(config) + _attention_flops(text, lightning, softmax)


def picture_size(config: MiniMaxVLConfig, height: int, width: int) -> PictureSize:
    """Tiles, tokens and operations of a picture of this size in pixels."""
    vision = config.vision_config
    tiles = num_tiles(height, width, config.image_grid_pinpoints, vision.image_size)
    patches = vision.num_patches_per_side**2
    positions = patches + int(vision.use_class_token)
    attention = 4 * positions**2 * vision.hidden_size
    per_layer = 2 * positions * (4 * vision.hidden_size**2) + attention
    per_layer += 2 * positions * 2 * vision.hidden_size * vision.intermediate_size
    depth = max(layer % (vision.num_hidden_layers + 1) for layer in config.feature_layers)
    tensors = published_tensors(config)
    projector = sum(
        math.prod(shape)
        for name, shape in tensors.items()
        if name.startswith("multi_modal_projector") and name.endswith("weight")
    )
    stem, side = 0, vision.image_size
    for name, shape in tensors.items():
        convolution = "embeddings.stem" in name or "patch_embedding" in name
        if convolution and len(shape) == 4:
            side = side // 2 if "stem" in name else vision.num_patches_per_side
            stem += 2 * side**2 * math.prod(shape)
    per_tile = stem + depth * per_layer + 2 * config.num_image_tokens * projector
    return PictureSize(
        num_tiles=tiles,
        num_tokens=config.num_picture_tokens(height, width),
        vision_flops=tiles * per_tile,
    )


def _weights_flops(config: MiniMaxVLConfig) -> int:
    """Two operations for every weight of a matrix that a token passes through."""
    size = model_size(config)
    text = config.text_config
    lightning_norms = (
        text.num_attention_heads * text.head_dim * text.attn_type_list.count(LIGHTNING)
    )
    return 2 * (size.active_per_token - size.parameters["norms"] - lightning_norms)


def _attention_flops(text: MiniMaxVLTextConfig, lightning: int, softmax: int) -> int:
    kinds = text.attn_type_list
    return lightning * kinds.count(LIGHTNING) + softmax * kinds.count(SOFTMAX)
