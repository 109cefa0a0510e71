"""One decoder, several spellings: released config.json, transformers' MiniMax, CLIP's vision part.

Each function turns what a file says into arguments of our configuration classes, or back.
"""

from __future__ import annotations

from typing import Any

from transformers import CLIPVisionConfig, MiniMaxConfig, PretrainedConfig

LIGHTNING = 0
SOFTMAX = 1

_LAYER_NAMES = {LIGHTNING: "linear_attention", SOFTMAX: "full_attention"}
_RENAMED = {
    f"layernorm_{ours}_{kind}": f"{theirs}_{kind}_factor"
    for ours, theirs in (
        ("full_attention", "full_attn"),
        ("linear_attention", "linear_attn"),
        ("mlp", "mlp"),
    )
    for kind in ("alpha", "beta")
} | {"lightning_block_tokens": "block_size"}
_SAME = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "num_local_experts",
    "num_experts_per_tok",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "output_router_logits",
    "hidden_act",
    "attention_dropout",
    "rms_norm_eps",
    "initializer_range",
    "max_position_embeddings",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def read_text_config(found: dict[str, Any] | PretrainedConfig | None) -> dict[str, Any]:
    """Arguments of our text configuration, from the released form, from transformers' or ours."""
    config = _as_dict(found)
    if config.get("model_type") == "minimax" or "layer_types" in config:
        return from_minimax(config)
    return {key: value for key, value in config.items() if key != "model_type"}


def read_vision_config(found: dict[str, Any] | PretrainedConfig | None) -> dict[str, Any]:
    """Arguments of our vision configuration, from CLIP's form (with its defaults) or ours."""
    config = _as_dict(found)
    if config.get("model_type") == "clip_vision_model":
        config = {**CLIPVisionConfig().to_dict(), "use_class_token": True, **config}
    return {key: value for key, value in config.items() if key != "model_type"}


def from_minimax(found: dict[str, Any]) -> dict[str, Any]:
    """Arguments of our text configuration for what transformers' `MiniMaxConfig` describes.

    A `rotary_dim` in the file counts; without one the heads are rotated whole, which is what
    transformers does.
    """
    config = MiniMaxConfig(**{k: v for k, v in found.items() if k != "model_type"}).to_dict()
    head_dim = config["head_dim"] or config["hidden_size"] // config["num_attention_heads"]
    rope = config["rope_parameters"]
    if rope.get("rope_type", "default") != "default":
        raise ValueError(
            f"rope_parameters: found {rope!r}; only rope_type 'default' is built, use that"
        )
    rotary_dim = found.get("rotary_dim", int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    codes = {name: code for code, name in _LAYER_NAMES.items()}
    unknown = set(config["layer_types"]) - set(codes)
    if unknown:
        raise ValueError(f"layer_types: found {sorted(unknown)}; allowed are {sorted(codes)}")
    return {
        **{name: config[name] for name in _SAME},
        **{ours: config[theirs] for ours, theirs in _RENAMED.items()},
        "attn_type_list": [codes[name] for name in config["layer_types"]],
        "head_dim": head_dim,
        "rotary_dim": rotary_dim,
        "rope_theta": rope["rope_theta"],
    }


def to_minimax(config: PretrainedConfig) -> MiniMaxConfig:
    """The configuration that transformers has for a decoder of ours.

    Raises:
        ValueError: the decoder has something that transformers' MiniMax has not.
    """
    ours = config.to_dict()
    if not ours["postnorm"]:
        raise ValueError("postnorm: False has no counterpart in transformers' MiniMax")
    partial = ours["rotary_dim"] / ours["head_dim"]
    extra: dict[str, Any] = {"rotary_dim": ours["rotary_dim"]}  # as the released config says it
    return MiniMaxConfig(
        **extra,
        **{name: ours.get(name) for name in _SAME if name != "initializer_range"},
        **{theirs: ours[name] for name, theirs in _RENAMED.items()},
        initializer_range=ours["initializer_range"] or 0.02,
        layer_types=[_LAYER_NAMES[kind] for kind in ours["attn_type_list"]],
        head_dim=ours["head_dim"],
        rope_parameters={
            "rope_type": "default",
            "rope_theta": ours["rope_theta"],
            "partial_rotary_factor": partial,
        },
    )


def _as_dict(found: dict[str, Any] | PretrainedConfig | None) -> dict[str, Any]:
    return found.to_dict() if isinstance(found, PretrainedConfig) else dict(found or {})
