"""Checkpoints of a run in progress, and finished models, written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from .models.minimax_vl import MiniMaxVLForConditionalGeneration, MiniMaxVLProcessor
from .rundir import START, Position

if TYPE_CHECKING:
    from .stage import StageSeconds


class Checkpoint(NamedTuple):
    """Where the run stood, the stage's state and the seconds it had cost."""

    position: Position
    state: Mapping[str, Any]
    cpu_s: float
    wall_s: float


@dataclass(frozen=True)
class CheckpointStore:
    """The folder `checkpoints/` of a run; keeps the newest one only."""

    folder: Path

    def save(self, stage: str, step: int, state: Mapping[str, Any], seconds: StageSeconds) -> Path:
        """Writes `<stage>-<step>.pt` atomically, then removes older ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{stage}-{step}.pt"
        part = path.with_suffix(".part")
        content = {
            "stage": stage,
            "step": step,
            "state": dict(state),
            "cpu_s": seconds.cpu_s,
            "wall_s": seconds.wall_s,
        }
        torch.save(content, part)
        os.replace(part, path)
        for other in self.folder.glob("*.pt"):
            if other != path:
                other.unlink()
        return path

    def load(self) -> Checkpoint | None:
        """The newest checkpoint, or None if there is none."""
        paths = sorted(self.folder.glob("*.pt"), key=lambda path: path.stat().st_mtime)
        if not paths:
            return None
        content = torch.load(paths[-1], weights_only=True)
        position = Position(content["stage"], content["step"])
        return Checkpoint(position, content["state"], content["cpu_s"], content["wall_s"])

    def position(self) -> Position:
        """Where a resumed run continues."""
        found = self.load()
        return found.position if found else START


def save_model(
    model: MiniMaxVLForConditionalGeneration, processor: MiniMaxVLProcessor, folder: Path
) -> None:
    """Writes model and processor into `folder` in transformers' layout, atomically."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    processor.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
