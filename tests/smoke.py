"""Small runs of the embedded recipe through the command line, for tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from recipes.cli import main

TIMES = ("time_s", "cpu_s", "tokens_per_s", "seconds/")
SMALL = [
    "--control=false",
    "--evaluation.num_samples=0",
    "--align.num_steps=2",
    "--rl.num_steps=4",
]
"""Shrinks the smoke recipe further."""


def train(out: Path, cache: Path, *words: str) -> int:
    """Exit code of `vl train orsta_tiny --smoke`."""
    return main(
        ["train", "orsta_tiny", "--smoke", "--out", str(out), "--cache", str(cache), *words]
    )


def data_only(cache: Path, to: Path) -> Path:
    """A cache with the drawn data of another one, but without its finished stages."""
    for folder in cache.glob("data-*"):
        shutil.copytree(folder, to / folder.name)
    return to


def numbers(run: Path) -> list[dict]:
    """Lines of metrics.jsonl without the times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(TIMES)} for line in lines]
