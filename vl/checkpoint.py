"""Checkpoints of a run in progress, and finished models, written whole or not at all."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from .atomic import write_file, write_folder
from .rundir import STAGES, START, Position

if TYPE_CHECKING:
    from .stage import StageSeconds


class CheckpointError(OSError):
    """A checkpoint cannot be written or read; the message says which one and what is left."""


class Checkpoint(NamedTuple):
    """Where the run stood, the stage's state and the seconds it had cost."""

    position: Position
    state: Mapping[str, Any]
    cpu_s: float
    wall_s: float
    notes: tuple[str, ...] = ()
    """What the reader should know, e.g. that a newer checkpoint could not be read."""


@dataclass(frozen=True)
class CheckpointStore:
    """The folder `checkpoints/` of a run: `<stage>-<step>.pt`, the newest few of them.

    Beside it lies, where `save` is given an `export`, the folder `<stage>-<step>/` with the model
    in transformers' layout, for use while the run goes on.
    """

    folder: Path
    keep_last: int = 2
    """Checkpoints kept; with one alone, a newest one that is damaged leaves nothing."""

    def __post_init__(self) -> None:
        if self.keep_last < 1:
            raise ValueError(f"CheckpointStore.keep_last: found {self.keep_last!r}; keep 1 or more")

    def save(
        self,
        stage: str,
        step: int,
        state: Mapping[str, Any],
        seconds: StageSeconds,
        *,
        export: Callable[[Path], object] | None = None,
    ) -> Path:
        """Writes a checkpoint atomically and durably, then removes those beyond `keep_last`.

        Args:
            export: writes the model into the empty folder it is given, as `from_pretrained` reads.

        Raises:
            CheckpointError: it could not be written, e.g. because the disk is full. What it left
                half-written is removed, the earlier checkpoints are untouched.
        """
        path = self._path(Position(stage, step))
        content = {
            "stage": stage,
            "step": step,
            "state": dict(state),
            "cpu_s": seconds.cpu_s,
            "wall_s": seconds.wall_s,
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if export is not None:
                write_folder(path.with_suffix(""), export)
            write_file(path, lambda file: torch.save(content, file))
        except (OSError, RuntimeError) as error:  # torch's writer turns some OSErrors into these
            if export is not None and not path.exists():
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            raise CheckpointError(self._cannot_write(path, error)) from error
        self._prune(Position(stage, step))
        return path

    def load(self) -> Checkpoint | None:
        """The newest checkpoint that can be read, or None if there is none.

        Raises:
            CheckpointError: there are some, but none can be read.
        """
        notes: list[str] = []
        for path, position in reversed(self._found()):
            if not zipfile.is_zipfile(path):  # its directory stands at its end
                notes.append(f"{path}: cannot be read, it is cut short")
                continue
            try:
                content = torch.load(path, weights_only=True)
                found = Position(content["stage"], content["step"])
                state, cpu_s, wall_s = (content[key] for key in ("state", "cpu_s", "wall_s"))
            except (OSError, EOFError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
                reason = str(error).strip().partition("\n")[0]
                notes.append(f"{path}: cannot be read ({type(error).__name__}: {reason[:200]})")
                continue
            if found != position:
                notes.append(f"{path}: is of {found.stage} step {found.step}, not of its name")
                continue
            if notes:
                notes.append(f"continuing from the one before, {path.name}")
            return Checkpoint(position, state, cpu_s, wall_s, tuple(notes))
        if notes:
            raise CheckpointError(
                f"{'; '.join(notes)}; no other is left. Delete {self.folder} to start the run "
                "again from its first step"
            )
        return None

    def position(self) -> Position:
        """Where a resumed run continues."""
        found = self.load()
        return found.position if found else START

    def _path(self, position: Position) -> Path:
        return self.folder / f"{position.stage}-{position.step}.pt"

    def _found(self) -> list[tuple[Path, Position]]:
        """Checkpoints in the order of the run; other files in the folder are left alone."""
        found: list[tuple[Path, Position]] = []
        for path in self.folder.glob("*.pt"):
            stage, _, step = path.stem.rpartition("-")
            if stage in STAGES and step.isdecimal():
                found.append((path, Position(stage, int(step))))
        return sorted(found, key=lambda one: (STAGES.index(one[1].stage), one[1].step))

    def _prune(self, newest: Position) -> None:
        """Removes all but the newest few, and what a run that went back has left behind."""
        found = self._found()
        undone = [path for path, position in found if position.is_after(newest)]
        past = [path for path, position in found if not position.is_after(newest)]
        for part in self.folder.glob("*.part"):  # of a run that was killed while it wrote
            part.unlink() if part.is_file() else shutil.rmtree(part)
        for path in [*undone, *past[: -self.keep_last]]:
            path.unlink()
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)

    def _cannot_write(self, path: Path, error: Exception) -> str:
        left = [one.stem for one, _ in self._found()]
        kept = f"untouched: {', '.join(left)}" if left else "there is no earlier one"
        return (
            f"{path}: the checkpoint could not be written ({error}); {kept}. Make room on the disk "
            "or fix the path, then continue with --resume"
        )
