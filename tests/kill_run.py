"""A small RL stage that trains in a process of its own and dies at a chosen moment, for tests."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import NamedTuple

import torch

from tests.tiny_vl import corpus_of, judge_by_length, pose, stream_of, tiny_policy
from vl import atomic, groups, rl, runlog
from vl.checkpoint import CheckpointStore
from vl.optim import AdamWConfig, Optimizers
from vl.parallel import Shards
from vl.rl import RlConfig, RlStage
from vl.rollout import SamplingConfig
from vl.rundir import START
from vl.runlog import RunLog
from vl.stage import StageSeconds, run_stage

NUM_STEPS = 5

MOMENTS = {
    "sampling": (rl, "sample_rollouts", "before"),
    "judging": (groups, "score_with", "after"),
    "before the update": (Optimizers, "step", "before"),
    "after the update": (Optimizers, "step", "after"),
    "within a line of the log": (runlog, "_append", "half a line"),
    "after a line of the log": (runlog, "_append", "after"),
    "within a checkpoint": (torch, "save", "half a file"),
    "checkpoint written, not moved": (atomic.os, "replace", "before"),
    "checkpoint moved": (atomic.os, "replace", "after"),
    "removing old checkpoints": (Path, "unlink", "before"),
}
"""Where a run can be killed: (owner, function, when)."""


class Death(NamedTuple):
    """Kill the process at the n-th time (from 1) that it comes to a moment."""

    moment: str
    number: int


def train(folder: str, death: Death | None) -> None:
    """Starts or resumes the run in `folder`; with a death, it ends by SIGKILL if it gets there."""
    torch.set_num_threads(1)
    out = Path(folder)
    groups.score_with = judge_by_length
    store = CheckpointStore(out / "checkpoints")
    resume = (out / "config.json").exists()
    found = store.load() if resume else None
    if death is not None:
        _arm(death)
    policy, corpus = tiny_policy(), corpus_of(1, 2, 1)
    config = RlConfig(
        num_steps=NUM_STEPS,
        pictures_per_step=2,
        sampling=SamplingConfig(num_rollouts=4, max_new_tokens=6),
        optimizer=AdamWConfig(lr=1e-3),
    )
    stage = RlStage(policy, corpus, stream_of(corpus), pose, config, Shards(2), seed=1)
    start_step, spent = 0, StageSeconds(cpu_s=0.0, wall_s=0.0)
    if found is not None:
        stage.load_state_dict(found.state)
        start_step = found.position.step
    position = (found.position if found else START) if resume else None
    with RunLog(out, resume_at=position, make_writer=None) as log:
        if not resume:
            log.write_config({})
        run_stage(
            stage,
            log=log,
            checkpoints=store,
            on_step=lambda *_: None,
            start_step=start_step,
            spent=spent,
            checkpoint_every=1,
        )
    torch.save(policy.model.state_dict(), out / "final.pt")


def _arm(death: Death) -> None:
    owner, name, when = MOMENTS[death.moment]
    original = getattr(owner, name)
    count = 0

    def deadly(*arguments, **options):
        nonlocal count
        count += 1
        if count < death.number:
            return original(*arguments, **options)
        if when == "half a line":
            arguments[0].write('{"stage":"rl","st')
            arguments[0].flush()
        elif when == "half a file":
            whole = io.BytesIO()
            original(arguments[0], whole)
            arguments[1].write(whole.getvalue()[: whole.tell() // 2])
            arguments[1].flush()
        elif when == "after":
            original(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    setattr(owner, name, deadly)
