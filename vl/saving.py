"""Finished weights as transformers reads them, whether all of them or adapters were trained."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel


def save_weights(model: PreTrainedModel, folder: Path) -> None:
    """Writes a whole model; adapters are added in, the model itself stays as it is."""
    if getattr(model, "_hf_peft_config_loaded", False):
        from .lora import save_merged  # peft is loaded only where it is used

        save_merged(model, folder)
    else:
        model.save_pretrained(folder)
