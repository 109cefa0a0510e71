"""What lies in a run directory: names, the form of each JSON line, and how to read it back.

`vl.runlog` writes the directory; the report and everything else that looks at a run reads it
through here. The format is described in `docs/run_directory.md`.

Readers allow for a run that is still going on: a missing file reads as "nothing yet", and a last
line that is torn (the writer was killed, or is writing now) is left out. A broken line anywhere
else is a `RunDirError`, because then something other than a kill has happened to the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict, cast
from urllib.parse import quote

STAGES = ("align", "sft", "rl", "control")
"""Training stages in the order in which a run passes through them."""

PHASES = ("init", "sft", "rl", "control")
"""Evaluations in order: before SFT, after SFT, after RL, after the control's extra SFT."""

MACRO_TASKS = ("math", "puzzle", "chart", "science", "grounding", "detection", "counting", "ocr")
"""Task kinds that the macro average weighs alike; others are shown apart."""

CORRECT_FROM = 0.5
"""Least score of a correct answer, for pass@k and the gallery: exact verifiers give 0 or 1, box
verifiers the IoU where it reaches the evaluation's threshold, else 0."""


class RunDirError(ValueError):
    """A run directory cannot be used as asked; the message says where, what and the remedy."""


class Position(NamedTuple):
    """A point in a run: `step` optimizer steps of `stage` are done. Compare with `is_after`."""

    stage: str
    step: int

    def is_after(self, other: Position) -> bool:
        """True if this position comes later in the run than the other."""
        return (STAGES.index(self.stage), self.step) > (STAGES.index(other.stage), other.step)


START = Position("align", 0)
"""Nothing done yet: what a run that died before its first checkpoint resumes at."""


class Answer(TypedDict):
    """One rollout with its verdict. `score`, `format` and `reward` are None where unscored."""

    response: str
    score: float | None
    format: float | None
    reward: float | None
    status: str
    reason: str
    parts: Mapping[str, float]
    num_tokens: int
    advantage: NotRequired[float | None]


class GroupLine(TypedDict):
    """A line of `rollouts.jsonl`: one training sample and the group of its rollouts."""

    stage: str
    step: int
    id: str
    source: str
    task: str
    image_id: str | None
    question: str
    prompt: str
    reference: str
    ground_truth: str
    group: list[Answer]


class EvalLine(TypedDict):
    """A line of `eval/<phase>/rollouts.jsonl`: one held-out row, its greedy answer and samples."""

    phase: str
    id: str
    source: str
    task: str
    image_id: str | None
    question: str
    prompt: str
    reference: str
    ground_truth: str
    greedy: Answer
    samples: list[Answer]


def image_path(run_dir: Path, image_id: str) -> Path:
    """Where the held-out image lies; characters that a file name cannot hold are percent-coded."""
    return run_dir / "eval" / "images" / f"{quote(image_id, safe=' ')}.png"


def eval_rollouts_path(run_dir: Path, phase: str) -> Path:
    """Where the held-out answers of one phase lie."""
    if phase not in PHASES:
        raise RunDirError(f"{run_dir}: phase {phase!r} is unknown; known: {', '.join(PHASES)}")
    return run_dir / "eval" / phase / "rollouts.jsonl"


def read_lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each complete line with its object; nothing if the file is absent.

    Raises: RunDirError for a line, other than a torn last one, that is not a JSON object.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.endswith(b"\n"):
                return  # torn, or being written at this moment
            try:
                line: object = json.loads(raw)
            except ValueError as error:
                raise RunDirError(
                    f"{path} line {number}: {raw[:60]!r} is not JSON ({error}); every line must "
                    "be one JSON object. Delete the line, or the run directory, and start again"
                ) from error
            if not isinstance(line, dict):
                raise RunDirError(
                    f"{path} line {number}: found {raw[:60]!r}; every line must be one JSON "
                    "object. Delete the line, or the run directory, and start again"
                )
            yield raw, cast("dict[str, Any]", line)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None if there is no such file.

    Raises: RunDirError if the file holds anything else. (The writer replaces these files whole,
        so a run in progress never shows half of one.)
    """
    if not path.exists():
        return None
    try:
        content: object = json.loads(path.read_bytes())
    except ValueError as error:
        raise RunDirError(f"{path}: not JSON ({error}). Delete it and run that part again") from (
            error
        )
    if not isinstance(content, dict):
        raise RunDirError(
            f"{path}: found a {type(content).__name__}; a JSON object is needed. "
            "Delete it and run that part again"
        )
    return cast("dict[str, Any]", content)


def read_config(run_dir: Path) -> dict[str, Any] | None:
    """The resolved configuration, or None before it is written."""
    return read_json(run_dir / "config.json")


def read_eval(run_dir: Path) -> dict[str, Any] | None:
    """The evaluations with their intervals (`eval.json`), or None before the first."""
    return read_json(run_dir / "eval.json")


def read_metrics(run_dir: Path, stage: str | None = None) -> list[dict[str, Any]]:
    """Lines of `metrics.jsonl` in the order of the run, of one stage or of all."""
    lines = [line for _, line in read_lines(run_dir / "metrics.jsonl")]
    return [line for line in lines if stage is None or line.get("stage") == stage]


def read_rollouts(run_dir: Path) -> list[GroupLine]:
    """The logged groups of training rollouts."""
    return [cast("GroupLine", line) for _, line in read_lines(run_dir / "rollouts.jsonl")]


def read_eval_rollouts(run_dir: Path, phase: str) -> list[EvalLine]:
    """The held-out rows of one phase with their answers; empty before that evaluation."""
    lines = read_lines(eval_rollouts_path(run_dir, phase))
    return [cast("EvalLine", line) for _, line in lines]
