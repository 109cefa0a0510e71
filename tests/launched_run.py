"""Tiny stages in one process, or in those of `accelerate launch`: python launched_run.py OUT."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from tests.tiny_vl import corpus_of, judge_by_length, pose, stream_of, tiny_policy
from vl import groups
from vl.checkpoint import CheckpointStore
from vl.optim import AdamWConfig
from vl.parallel import Shards
from vl.processes import ALONE, Processes, launched_processes
from vl.rl import RlConfig, RlStage
from vl.rollout import SamplingConfig
from vl.rundir import read_metrics
from vl.runlog import RunLog
from vl.sft import SftConfig, SftStage
from vl.stage import run_stage

NUM_SHARDS = 2


def stages(processes: Processes):
    """An SFT and an RL stage, each on a model of its own."""
    corpus = corpus_of(1, 2, 1, 3)
    config = SftConfig(num_steps=3, pictures_per_step=4, optimizer=AdamWConfig(lr=3e-3))
    policy = tiny_policy()
    if not processes.is_main:  # what another process starts from must not matter
        policy.model.apply(
            lambda module: torch.nn.init.zeros_(getattr(module, "weight", torch.zeros(1)))
        )
    processes.broadcast(policy.model.state_dict().values())
    shards = Shards(NUM_SHARDS, processes)
    yield SftStage(policy, None, corpus, stream_of(corpus), pose, lambda _: None, config, shards)
    rl = RlConfig(
        num_steps=3,
        pictures_per_step=4,
        sampling=SamplingConfig(num_rollouts=4, max_new_tokens=6),
        optimizer=AdamWConfig(lr=3e-3),
        updates_per_rollout=2,
    )
    yield RlStage(tiny_policy(1), corpus, stream_of(corpus), pose, rl, shards, seed=1)


def run(out: Path, processes: Processes = ALONE) -> None:
    """Trains both stages; the first process writes their logs and weights."""
    groups.score_with = judge_by_length
    for stage in stages(processes):
        folder = out / f"{stage.name}-{processes.rank}"
        with RunLog(folder, make_writer=None) as log:
            log.write_config({})
            run_stage(
                stage,
                log=log,
                checkpoints=CheckpointStore(folder / "checkpoints"),
                on_step=lambda *_: None,
                checkpoint_every=2,
                processes=processes,
            )
        weights = stage.policy.model.state_dict()
        total = sum(value.double().abs().sum().item() for value in weights.values())
        content = {"lines": read_metrics(folder), "weights": total, "size": processes.size}
        (folder / "result.json").write_text(json.dumps(content))


if __name__ == "__main__":
    torch.set_num_threads(1)
    launched = launched_processes()
    run(Path(sys.argv[1]), launched)
    launched.wait()
    launched.leave()
