"""Writes a run directory while the run goes on, so that a kill at any moment loses no line.

Lines are appended and flushed one by one; whole files (`config.json`, `eval.json`, an evaluation's
rollouts, an image) are written beside their place and moved there. A resumed run first drops what
was logged after its checkpoint, so that each step stands in the logs once.

    with RunLog(out) as log:                                 # a new run: `out` must be empty
        log.write_config(config)
        log.log_metrics(stage="rl", step=1, num_steps=300, values={"reward": 0.41})
    with RunLog(out, resume_at=Position("rl", 40)) as log:   # steps after rl 40 are dropped
        ...
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from vl.rundir import (
    STAGES,
    EvalLine,
    GroupLine,
    Position,
    RunDirError,
    eval_rollouts_path,
    image_path,
    read_lines,
)

if TYPE_CHECKING:
    from PIL import Image


class ScalarWriter(Protocol):
    """The part of TensorBoard's `SummaryWriter` that the log uses."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """Record one number."""
        ...

    def close(self) -> object:
        """Flush and release the event file."""
        ...


WriterFactory = Callable[[Path, int | None], ScalarWriter | None]
"""Folder and first step to be written again (None: a new folder) -> writer, or None for none."""


def tensorboard_writer(folder: Path, purge_step: int | None) -> ScalarWriter | None:
    """TensorBoard's writer, or None where torch or tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(log_dir=str(folder), purge_step=purge_step)


class RunLog:
    """The open log of one run; use as a context manager or call `close`.

    Args:
        run_dir: made if absent. Without `resume_at` it must be empty; with it, it must hold a
            run's `config.json`.
        resume_at: the checkpoint's position (`vl.rundir.START` if there is no checkpoint yet).
        make_writer: makes the tracker of one stage in `tensorboard/<stage>`; None for no tracker.

    Raises: RunDirError if the directory does not fit, before anything is written.
    """

    def __init__(
        self,
        run_dir: str | Path,
        *,
        resume_at: Position | None = None,
        make_writer: WriterFactory | None = tensorboard_writer,
    ) -> None:
        self.run_dir = Path(run_dir)
        self._resume_at = resume_at
        self._make_writer = make_writer
        self._writers: dict[str, ScalarWriter | None] = {}
        _check_directory(self.run_dir, resuming=resume_at is not None)
        if resume_at is not None:
            _check_stage(self.run_dir, resume_at.stage)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        metrics_path, rollouts_path = (
            self.run_dir / name for name in ("metrics.jsonl", "rollouts.jsonl")
        )
        if resume_at is not None:
            _drop_lines_after(metrics_path, resume_at)
            _drop_lines_after(rollouts_path, resume_at)
        self._metrics = metrics_path.open("a", encoding="utf-8")
        self._rollouts = rollouts_path.open("a", encoding="utf-8")

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def sync(self) -> None:
        """Bring all lines so far to the disk, so that a power cut does not lose them."""
        for file in (self._metrics, self._rollouts):
            os.fsync(file.fileno())

    def close(self) -> None:
        """Close the files and the tracker. Calling it twice does no harm."""
        self._metrics.close()
        self._rollouts.close()
        for writer in self._writers.values():
            if writer is not None:
                writer.close()
        self._writers.clear()

    def write_config(self, config: Mapping[str, object]) -> None:
        """Write `config.json`, from which alone the run can be repeated; before the first step."""
        _replace_json(self.run_dir / "config.json", config)

    def log_metrics(
        self, *, stage: str, step: int, num_steps: int, values: Mapping[str, float | None]
    ) -> None:
        """Append one step's numbers; a value of None was not measured and is left out.

        Args:
            step: 1-based within the stage.
            values: `loss`, `reward`, `source/<source>/<metric>` ... (docs/run_directory.md).

        Raises: RunDirError for NaN or infinity: a number that is not one is never logged.
        """
        _check_stage(self.run_dir, stage)
        measured = {key: value for key, value in values.items() if value is not None}
        for key, value in measured.items():
            if not math.isfinite(value):
                raise RunDirError(
                    f"{self.run_dir}: metric {key!r} of {stage} step {step} is {value!r}; only "
                    "finite numbers are logged. If it was not measured leave it out; otherwise "
                    "the training has diverged: lower the learning rate"
                )
        _append(self._metrics, {"stage": stage, "step": step, "num_steps": num_steps, **measured})
        writer = self._writer(stage)
        if writer is not None:
            for key, value in measured.items():
                writer.add_scalar(key, value, step)

    def log_rollout_group(self, group: GroupLine) -> None:
        """Append one training sample with all rollouts of its group to `rollouts.jsonl`."""
        _check_stage(self.run_dir, group["stage"])
        _append(self._rollouts, group)

    def write_eval_rollouts(self, phase: str, lines: Iterable[EvalLine]) -> None:
        """Write a phase's held-out rows with their answers, replacing an earlier evaluation."""
        path = eval_rollouts_path(self.run_dir, phase)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            file.writelines(_to_json(line) + "\n" for line in lines)
        os.replace(part, path)

    def write_eval_image(self, image_id: str, image: Image.Image) -> None:
        """Write the image that held-out rows refer to by `image_id`, unless it is there."""
        path = image_path(self.run_dir, image_id)
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        image.save(part, format="PNG")
        os.replace(part, path)

    def write_eval(self, evaluation: Mapping[str, object]) -> None:
        """Write `eval.json`: phases and their differences with intervals."""
        _replace_json(self.run_dir / "eval.json", evaluation)

    def _writer(self, stage: str) -> ScalarWriter | None:
        if self._make_writer is None:
            return None
        if stage not in self._writers:
            purge_step = None
            if self._resume_at is not None:
                # TensorBoard then hides what the killed run wrote from this step on
                same = stage == self._resume_at.stage
                purge_step = self._resume_at.step + 1 if same else 1
            folder = self.run_dir / "tensorboard" / stage
            self._writers[stage] = self._make_writer(folder, purge_step)
        return self._writers[stage]


def _check_stage(run_dir: Path, stage: str) -> None:
    if stage not in STAGES:
        raise RunDirError(
            f"{run_dir}: stage {stage!r} is unknown; known: {', '.join(STAGES)}. "
            "Name one of them, or add the new stage in vl/rundir.py"
        )


def _check_directory(run_dir: Path, *, resuming: bool) -> None:
    if run_dir.exists() and not run_dir.is_dir():
        raise RunDirError(f"{run_dir}: is a file; a run needs a directory. Choose another --out")
    found = sorted(path.name for path in run_dir.iterdir()) if run_dir.exists() else []
    if resuming and "config.json" not in found:
        raise RunDirError(
            f"{run_dir}: found {found or 'nothing'}, but no config.json, so there is no run to "
            "resume. Check the path, or start a new run without --resume"
        )
    if found and not resuming:
        raise RunDirError(
            f"{run_dir}: not empty, found {', '.join(found[:4])}; a new run needs an empty or "
            "absent directory. Choose another --out, continue this run with --resume, or delete it"
        )


def _drop_lines_after(path: Path, position: Position) -> None:
    """Keep the lines up to the position, byte for byte; a torn last line goes too."""
    if not path.exists():
        return
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        for raw, line in read_lines(path):
            if not Position(line["stage"], line["step"]).is_after(position):
                file.write(raw)
    os.replace(part, path)


def _to_json(line: object) -> str:
    return json.dumps(line, allow_nan=False, separators=(",", ":"))


def _append(file: IO[str], line: object) -> None:
    file.write(_to_json(line) + "\n")
    file.flush()


def _replace_json(path: Path, content: Mapping[str, object]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)
