"""A saved model as a policy: MiniMax-VL, or any image-text-to-text model of transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from vl.lora import LoraConfig, add_lora
from vl.models.hf import HfPolicy
from vl.models.minimax_policy import MiniMaxPolicy
from vl.models.minimax_vl import MiniMaxVLForConditionalGeneration
from vl.policy import Policy
from vl.rundir import read_json

from .progress import quiet_transformers


def load_policy(
    path: Path,
    *,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    lora: LoraConfig | None = None,
    gradient_checkpointing: bool = False,
    autocast: bool = False,
) -> Policy:
    """Model and processor of a saved folder, of a run directory's `final/`, or of a hub name.

    Raises:
        FileNotFoundError: there is no model in the folder, and no such name on the hub.
        ValueError: the model is of a kind that the trainer cannot drive.
    """
    if path == Path():
        raise FileNotFoundError(
            "model.path: found nothing; give a folder with a saved model, a finished run's "
            "directory, or a hub name"
        )
    if (path / "final" / "config.json").exists():
        path = path / "final"
    if path.exists() and "model_type" not in (read_json(path / "config.json") or {}):
        raise FileNotFoundError(
            f"--model: found no saved model in {path}; give the folder final/ of a finished run"
        )
    quiet_transformers()
    try:
        AutoConfig.from_pretrained(path)
    except OSError as error:
        reason = str(error).strip().partition("\n")[0]
        raise FileNotFoundError(
            f"--model: {path} is no folder here and could not be fetched ({reason}); give a folder "
            "with a saved model, or a hub name on a machine that reaches the hub"
        ) from error
    weights = "auto" if dtype == "auto" else getattr(torch, dtype)
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=weights).eval()
    processor = AutoProcessor.from_pretrained(path)
    policy: MiniMaxPolicy | HfPolicy
    if isinstance(model, MiniMaxVLForConditionalGeneration):
        policy = MiniMaxPolicy.build(model, processor)
    else:
        policy = HfPolicy.load(model, processor)
    if autocast:
        policy = replace(policy, autocast=True)
    if lora is not None:
        add_lora(policy.model, policy.parts, lora)
    if gradient_checkpointing:
        policy.model.activation_checkpointing_enable()
        policy.model.train()
    return policy
