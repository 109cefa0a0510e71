"""Finished stages kept by content, so that changing an RL number does not repeat the SFT.

A stage's key is a hash of everything that decides its result: data, model, its own settings and the
key of the stage before it. The kept folder holds model, processor, dense head, the stage's lines of
`metrics.jsonl` and its seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vl.align import DenseHead
from vl.policy import Policy
from vl.rundir import read_metrics
from vl.stage import StageSeconds

FORMAT = 1
"""Raised when code changes what a stage computes from the same settings."""


def content_key(*parts: object) -> str:
    """Sixteen hex digits that change with any of the parts."""
    text = json.dumps([FORMAT, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class KeptStage(NamedTuple):
    """What a kept stage brings back beside the weights."""

    seconds: StageSeconds
    metrics: list[dict[str, Any]]


@dataclass(frozen=True)
class StageCache:
    """A folder of finished stages."""

    folder: Path

    def path(self, stage: str, key: str) -> Path:
        """Where the stage of this key is or would be kept."""
        return self.folder / f"{stage}-{key}"

    def load(
        self, stage: str, key: str, policy: Policy, head: DenseHead | None
    ) -> KeptStage | None:
        """Restores weights in place; None if no such stage is kept."""
        path = self.path(stage, key)
        if not (path / "done.json").exists():
            return None
        content = json.loads((path / "done.json").read_text(encoding="utf-8"))
        weights = torch.load(path / "weights.pt", weights_only=True)
        policy.model.load_state_dict(weights["model"])
        if head is not None:
            head.load_state_dict(weights["head"])
        seconds = StageSeconds(cpu_s=content["cpu_s"], wall_s=content["wall_s"])
        return KeptStage(seconds, content["metrics"])

    def save(
        self,
        stage: str,
        key: str,
        policy: Policy,
        head: DenseHead | None,
        seconds: StageSeconds,
        run_dir: Path,
    ) -> None:
        """Keeps a finished stage whole, or not at all."""
        path = self.path(stage, key)
        part = path.with_name(path.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        policy.save(part)
        torch.save(
            {"model": policy.model.state_dict(), "head": head.state_dict() if head else {}},
            part / "weights.pt",
        )
        content = {
            "cpu_s": seconds.cpu_s,
            "wall_s": seconds.wall_s,
            "metrics": read_metrics(run_dir, stage),
        }
        (part / "done.json").write_text(json.dumps(content), encoding="utf-8")
        shutil.rmtree(path, ignore_errors=True)
        os.replace(part, path)


def replay_metrics(
    lines: list[dict[str, Any]], write: Callable[[int, int, Mapping[str, float]], None]
) -> None:
    """Hands the metrics of a kept stage to a new run's log, (step, num_steps, values) a line."""
    for line in lines:
        values = {k: v for k, v in line.items() if k not in ("stage", "step", "num_steps")}
        write(line["step"], line["num_steps"], values)
