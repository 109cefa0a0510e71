"""The loop that every stage shares: step, log, checkpoint, stop cleanly.

A stage supplies `run_step`; the loop holds nothing else. Ctrl-C ends the run after the step that is
being computed, with a checkpoint; a second Ctrl-C ends it at once. A number that is none ends it
before it is logged or saved, so that the last checkpoint is a good one.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from .checkpoint import CheckpointStore
from .processes import ALONE, Processes
from .rundir import Position
from .runlog import RunLog


class Stage(Protocol):
    """One stage of training, advanced step by step."""

    name: str
    """align, sft, rl or control."""
    num_steps: int

    def run_step(self, step: int) -> Mapping[str, float]:
        """Does optimizer step `step` (0-based) and returns its numbers for the log."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed stage needs: weights and optimizer."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        ...


class Interrupted(Exception):
    """Ctrl-C: the run stopped after a whole step and left a checkpoint."""

    def __init__(self, stage: str, step: int, num_steps: int) -> None:
        self.stage, self.step, self.num_steps = stage, step, num_steps
        super().__init__(f"stopped after step {step} of {num_steps} of stage {stage}")


class EarlyStop(RuntimeError):
    """A step gave numbers that are none; the run stopped, its last good checkpoint is kept."""

    def __init__(self, stage: str, step: int, num_steps: int, why: str, kept: Position) -> None:
        self.stage, self.step, self.num_steps, self.kept = stage, step, num_steps, kept
        left = (
            f"the checkpoint of {kept.stage} step {kept.step} is kept"
            if kept.step
            else "there is no checkpoint yet"
        )
        super().__init__(
            f"stopped in step {step} of {num_steps} of stage {stage}: {why}; {left}. The same "
            "settings would come to the same step: start a new run with a lower learning rate, or "
            "with this checkpoint's weights"
        )


OnStep = Callable[[str, int, int, Mapping[str, float]], None]
"""Called after each step with (stage, steps done, steps in all, the step's numbers)."""


@dataclass(frozen=True, kw_only=True)
class StageSeconds:
    """What a stage has cost so far, resumed parts included."""

    cpu_s: float
    wall_s: float


def run_stage(
    stage: Stage,
    *,
    log: RunLog,
    checkpoints: CheckpointStore,
    on_step: OnStep,
    start_step: int = 0,
    spent: StageSeconds = StageSeconds(cpu_s=0.0, wall_s=0.0),
    checkpoint_every: int = 50,
    export: Callable[[Path], object] | None = None,
    measure: Callable[[int], Mapping[str, float]] | None = None,
    processes: Processes = ALONE,
) -> StageSeconds:
    """Runs steps `start_step` ... to the end; returns the seconds of the whole stage.

    Args:
        export: writes the model into a folder, for `CheckpointStore.save`.
        measure: further numbers for the log after so many steps, e.g. of held-out rows; its time
            is not the stage's.
        processes: of several, the first alone logs and saves, and Ctrl-C in any stops all.

    Raises:
        Interrupted: after Ctrl-C, when the checkpoint is written.
        EarlyStop: a gradient or a number of the step is none.
    """
    cpu_start = time.process_time() - spent.cpu_s
    wall_start = time.monotonic() - spent.wall_s
    with _deferred_interrupt() as interrupted:
        for step in range(start_step, stage.num_steps):
            values = _finite_step(stage, step, checkpoints)
            if measure is not None:
                clocks = time.process_time(), time.monotonic()
                values |= measure(step + 1)
                cpu_start += time.process_time() - clocks[0]
                wall_start += time.monotonic() - clocks[1]
            seconds = StageSeconds(
                cpu_s=time.process_time() - cpu_start, wall_s=time.monotonic() - wall_start
            )
            values |= {"time_s": seconds.wall_s, "cpu_s": seconds.cpu_s}
            done = step + 1
            if processes.is_main:
                log.log_metrics(
                    stage=stage.name, step=done, num_steps=stage.num_steps, values=values
                )
                on_step(stage.name, done, stage.num_steps, values)
            stop = processes.agree(interrupted())
            if stop or (done % checkpoint_every == 0 and done < stage.num_steps):
                if processes.is_main:
                    log.sync()  # no checkpoint may be ahead of the lines that lead to it
                    checkpoints.save(stage.name, done, stage.state_dict(), seconds, export=export)
                processes.wait()
            if stop:
                raise Interrupted(stage.name, done, stage.num_steps)
    return StageSeconds(cpu_s=time.process_time() - cpu_start, wall_s=time.monotonic() - wall_start)


def _finite_step(stage: Stage, step: int, checkpoints: CheckpointStore) -> dict[str, float]:
    """The numbers of a step, all of them finite."""
    why = ""
    values: dict[str, float] = {}
    try:
        values = dict(stage.run_step(step))
    except FloatingPointError as error:
        why = str(error)
    bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    why = why or ", ".join(bad[:3])
    if why:
        kept = checkpoints.position()
        raise EarlyStop(stage.name, step + 1, stage.num_steps, why, kept)
    return values


@contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C into a flag; the second one interrupts as usual."""
    seen = False

    def handle(signum: int, frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            raise KeyboardInterrupt
        seen = True

    try:
        previous = signal.signal(signal.SIGINT, handle)
    except ValueError:  # not the main thread: nothing to defer
        yield lambda: False
        return
    try:
        yield lambda: seen
    finally:
        signal.signal(signal.SIGINT, previous)
