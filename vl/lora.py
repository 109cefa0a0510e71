"""Low-rank adapters on chosen parts of a model, through peft: added, saved, merged, reloaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import peft
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

_ADAPTER = "default"


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Two thin matrices beside each chosen linear layer; nothing else trains.

    No dropout: sampling and update must compute the same probabilities.
    """

    rank: int = 16
    """Columns of the first matrix, rows of the second."""
    alpha: int = 32
    """The product is scaled by alpha / rank."""
    layers: tuple[str, ...] | None = None
    """Last pieces of layer names, e.g. ("q_proj", "v_proj"); None = every linear layer."""
    parts: tuple[str, ...] = ("llm",)
    """Parts whose layers are adapted: vit, connector, llm."""

    def __post_init__(self) -> None:
        """Refuses settings without meaning."""
        if self.rank < 1 or self.alpha < 1:
            raise ValueError(
                f"lora: found rank {self.rank!r} and alpha {self.alpha!r}; rank must be at least 1 "
                "and alpha too"
            )


def add_lora(
    model: PreTrainedModel, parts: Mapping[str, Sequence[str]], config: LoraConfig
) -> list[str]:
    """Adapts the layers in place and freezes all other parameters; returns the layers' names.

    Args:
        parts: leading pieces of parameter names for each part, as `Policy.parts`.

    Raises:
        ValueError: an unknown part, or no layer is left to adapt.
    """
    unknown = sorted(set(config.parts) - set(parts))
    if unknown:
        raise ValueError(f"lora.parts: found {unknown!r}; allowed are {sorted(parts)}")
    prefixes = tuple(prefix for part in config.parts for prefix in parts[part])
    head = model.get_output_embeddings()
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module is not head  # it is applied in float32, outside its module
        and f"{name}.".startswith(prefixes)
        and (config.layers is None or name.rsplit(".", 1)[-1] in config.layers)
    ]
    if not names:
        linear = {
            name.rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and f"{name}.".startswith(prefixes)
        }
        raise ValueError(
            f"lora.layers: found {config.layers!r}, which no linear layer of {config.parts} ends "
            f"with; there are {sorted(linear)}"
        )
    model.add_adapter(
        peft.LoraConfig(
            r=config.rank, lora_alpha=config.alpha, lora_dropout=0.0, target_modules=names
        ),
        adapter_name=_ADAPTER,
    )
    return names


def save_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Writes the adapter only, in peft's layout."""
    model.save_pretrained(folder)


def load_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Puts a saved adapter, to be trained on, into the model it was made from."""
    model.load_adapter(str(folder), adapter_name=_ADAPTER, is_trainable=True)


def save_merged(model: PreTrainedModel, folder: Path) -> None:
    """Writes the whole model with its adapter added in; the model itself stays as it is.

    Weights are not merged and unmerged in place: that would round them.
    """
    merged = dict(_merged_weights(model))
    settings = cast("Any", model)
    settings._hf_peft_config_loaded = False  # else transformers saves the adapter only
    try:
        model.save_pretrained(folder, state_dict=merged)
    finally:
        settings._hf_peft_config_loaded = True


def _merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    adapted = {name: m for name, m in model.named_modules() if isinstance(m, LoraLayer)}
    for name, value in model.state_dict().items():
        owner = name.split(".base_layer.")[0]
        if owner in adapted and name.endswith(".base_layer.weight"):
            delta = cast("Any", adapted[owner]).get_delta_weight(_ADAPTER)
            yield f"{owner}.weight", value + delta
        elif ".lora_" not in name:
            yield name.replace(".base_layer.", "."), value
