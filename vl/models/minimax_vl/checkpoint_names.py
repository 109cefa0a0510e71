"""Names and shapes of the published checkpoint, and how memory differs from them.

On disk every expert has its own w1, w2 and w3; in memory all experts of a layer are two tensors.
transformers converts between the two on loading and saving by the rules registered here. All other
names are the same in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
)

from .configuration import (
    LIGHTNING,
    MiniMaxVLConfig,
    MiniMaxVLTextConfig,
    MiniMaxVLVisionConfig,
)

IGNORED_KEYS = (
    r"vision_model\.post_layernorm\.",
    r"\.self_attn\.(slope_rate|query_decay|key_decay|diagonal_decay)$",
)
"""Tensors that other tools write and the model does not use: CLIP's last norm, decay tables."""

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def register_conversions() -> None:
    """Tells transformers how experts are fused on loading and split on saving."""
    for model_type in (MiniMaxVLConfig.model_type, MiniMaxVLTextConfig.model_type):
        experts = ".block_sparse_moe.experts"
        rules: list[WeightConverter | WeightRenaming] = [
            WeightConverter(
                source_patterns=[f"{experts}.*.w1.weight", f"{experts}.*.w3.weight"],
                target_patterns=f"{experts}.gate_up_proj",
                operations=[MergeModulelist(dim=0), Concatenate(dim=1)],
            ),
            WeightConverter(
                source_patterns=[f"{experts}.*.w2.weight"],
                target_patterns=f"{experts}.down_proj",
                operations=[MergeModulelist(dim=0)],
            ),
        ]
        register_checkpoint_conversion_mapping(model_type, rules, overwrite=True)


def missing_on_disk(config: MiniMaxVLConfig | MiniMaxVLTextConfig, folder: Path) -> list[str]:
    """Published names that the safetensors files of a folder lack; none if it has no such file."""
    found: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as shard:
            found.update(shard.keys())
    return sorted(set(published_tensors(config)) - found) if found else []


def refuse_other_keys(
    where: str, info: Mapping[str, Any], cause: RuntimeError | None = None
) -> None:
    """Checks transformers' loading report.

    Raises:
        ValueError: weights are missing, so that they would be random, or left over.
    """
    problems = [
        f"{len(info[kind])} {words}: {', '.join(sorted(info[kind])[:8])}"
        + (" ..." if len(info[kind]) > 8 else "")
        for kind, words in (("missing_keys", "missing"), ("unexpected_keys", "of no use"))
        if info[kind]
    ]
    if problems:
        raise ValueError(
            f"{where}: weights do not fit the configuration; {'; '.join(problems)}. Names must be "
            "the published ones; look whether config.json belongs to these files"
        ) from cause


def published_tensors(config: MiniMaxVLConfig | MiniMaxVLTextConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor on disk, from the configuration alone."""
    if isinstance(config, MiniMaxVLTextConfig):
        return dict(_text(config))
    found = {f"language_model.{name}": shape for name, shape in _text(config.text_config)}
    found |= {f"vision_tower.vision_model.{k}": v for k, v in _tower(config.vision_config)}
    width = config.vision_config.hidden_size * len(config.feature_layers)
    hidden = config.text_config.hidden_size
    inputs = (width * config.spatial_merge_size**2, hidden)
    for number, size in enumerate(inputs, start=1):
        found[f"multi_modal_projector.linear_{number}.weight"] = (hidden, size)
        if config.multimodal_projector_bias:
            found[f"multi_modal_projector.linear_{number}.bias"] = (hidden,)
    if config.image_grid_pinpoints:
        found["image_newline"] = (hidden,)
    return found


def _text(config: MiniMaxVLTextConfig) -> Shapes:
    hidden, inner = config.hidden_size, config.num_attention_heads * config.head_dim
    shared = config.num_key_value_heads * config.head_dim
    yield "model.embed_tokens.weight", (config.vocab_size, hidden)
    for number, kind in enumerate(config.attn_type_list):
        layer = f"model.layers.{number}"
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
        if kind == LIGHTNING:
            yield f"{layer}.self_attn.qkv_proj.weight", (3 * inner, hidden)
            yield f"{layer}.self_attn.output_gate.weight", (inner, hidden)
            yield f"{layer}.self_attn.norm.weight", (inner,)
            yield f"{layer}.self_attn.out_proj.weight", (hidden, inner)
        else:
            for name, rows in (("q", inner), ("k", shared), ("v", shared)):
                yield f"{layer}.self_attn.{name}_proj.weight", (rows, hidden)
            yield f"{layer}.self_attn.o_proj.weight", (hidden, inner)
        yield f"{layer}.block_sparse_moe.gate.weight", (config.num_local_experts, hidden)
        for expert in range(config.num_local_experts):
            name = f"{layer}.block_sparse_moe.experts.{expert}"
            yield f"{name}.w1.weight", (config.intermediate_size, hidden)
            yield f"{name}.w2.weight", (hidden, config.intermediate_size)
            yield f"{name}.w3.weight", (config.intermediate_size, hidden)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (config.vocab_size, hidden)


def _tower(config: MiniMaxVLVisionConfig) -> Shapes:
    width, inner, inputs = config.hidden_size, config.intermediate_size, config.num_channels
    for number, outputs in enumerate(config.stem_channels):
        yield f"embeddings.stem.{3 * number}.weight", (outputs, inputs, 4, 4)
        yield f"embeddings.stem.{3 * number}.bias", (outputs,)
        yield f"embeddings.stem.{3 * number + 1}.weight", (outputs,)
        yield f"embeddings.stem.{3 * number + 1}.bias", (outputs,)
        inputs = outputs
    patch = 3 if config.stem_channels else config.patch_size
    positions = config.num_patches_per_side**2 + int(config.use_class_token)
    yield "embeddings.patch_embedding.weight", (width, inputs, patch, patch)
    yield "embeddings.position_embedding.weight", (positions, width)
    if config.use_class_token:
        yield "embeddings.class_embedding", (width,)
    vectors = [("pre_layrnorm", width)]
    for number in range(config.num_hidden_layers):
        layer = f"encoder.layers.{number}"
        vectors += [(f"{layer}.layer_norm1", width), (f"{layer}.layer_norm2", width)]
        parts = [(f"self_attn.{name}_proj", width, width) for name in ("q", "k", "v", "out")]
        parts += [("mlp.fc1", inner, width), ("mlp.fc2", width, inner)]
        for name, rows, columns in parts:
            yield f"{layer}.{name}.weight", (rows, columns)
            yield f"{layer}.{name}.bias", (rows,)
    for name, size in vectors:
        yield f"{name}.weight", (size,)
        yield f"{name}.bias", (size,)
