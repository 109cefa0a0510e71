"""What a run costs in memory and time, from one measured step of each stage."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tasks.captions import caption
from tasks.prompts import pose
from vl.evaluate import evaluate
from vl.models.minimax_policy import MiniMaxPolicy
from vl.optim import Optimizers
from vl.rl import VISION_PARTS, RlStage
from vl.sft import AlignStage, SftStage
from vl.sight import LIMIT_BYTES, Sight, num_bytes
from vl.stage import Stage

from .prepare import Run

_PICTURES_PER_SHARD = 16  # of the measured part of an evaluation


@dataclass(frozen=True, kw_only=True)
class Part:
    """Seconds of one unit of work, and how often a run does it."""

    seconds: float
    times: int
    unit: str = "steps"

    @property
    def total_s(self) -> float:
        """Seconds in all."""
        return self.seconds * self.times


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Bytes and seconds of a run."""

    weight_bytes: int
    gradient_bytes: int
    """Of the stage that trains most weights."""
    optimizer_bytes: int
    """State after a step, of the stage that keeps most."""
    pixel_bytes: int
    """Encoded pictures, and the training pictures' pixels that a stage remembers."""
    feature_bytes: int
    """Picture features that RL will have kept at its end; 0 where it trains the vision part."""
    activation_bytes: int
    """By how much the steps raised the peak of the process: a lower bound, as memory that was
    free before is taken first."""
    peak_bytes: int
    """Most memory that this process had resident, all of the above but features included."""
    machine_bytes: int
    times: dict[str, Part]

    @property
    def total_bytes(self) -> int:
        """Estimate for the run: this process, RL's features, and the SFT weights kept beside."""
        return self.peak_bytes + self.feature_bytes + self.weight_bytes


def measure_cost(run: Run) -> Cost:
    """Takes a step of every stage and answers some held-out rows; the model is of no use after."""
    recipe, model = run.recipe, run.policy.model
    before = _peak_bytes()
    stages: list[AlignStage | SftStage] = []
    times: dict[str, Part] = {}
    policy, head, sft = run.policy, run.head, recipe.sft
    assert isinstance(policy, MiniMaxPolicy) and head is not None and sft is not None
    parts = (policy, head, run.train)
    if head.labels and recipe.align is not None:  # else a run leaves this stage out
        order = run.stream("align", run.unannotated)
        stages.append(AlignStage(*parts, order, recipe.align, run.shards))
        times["align"] = Part(seconds=_second_step(stages[-1]), times=recipe.align.num_steps)
    order = run.stream("sft", recipe.data.sft_weights)
    stages.append(SftStage(*parts, order, run.pose, caption, sft, run.shards))
    times["sft"] = Part(seconds=_second_step(stages[-1]), times=sft.num_steps)
    order = run.stream("rl", recipe.data.rl_weights)
    rl_parts = (run.policy, run.train, order, run.pose, recipe.rl, run.shards)
    rl = RlStage(*rl_parts, seed=recipe.seed)
    times["rl"] = Part(seconds=_rl_step(rl), times=recipe.rl.num_steps)
    if recipe.control:
        times["control"] = Part(seconds=times["rl"].total_s, times=1, unit="as long as rl")
    optimizers = [stage.optimizers for stage in (*stages, rl)]
    times["evaluations"] = _evaluations(run)
    peak = _peak_bytes()
    features = 0
    if set(VISION_PARTS) <= set(recipe.rl.frozen_parts):
        num_kept = min(len(run.train.pictures), recipe.rl.num_steps * recipe.rl.pictures_per_step)
        features = min(num_bytes(rl.sight.features([0])) * num_kept, LIMIT_BYTES)
    return Cost(
        weight_bytes=_bytes(model.parameters()),
        gradient_bytes=max(_bytes(one.params) for one in optimizers),
        optimizer_bytes=max(map(_state_bytes, optimizers)),
        pixel_bytes=_pixel_bytes(run),
        feature_bytes=features,
        activation_bytes=peak - before,
        peak_bytes=peak,
        machine_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        times=times,
    )


def _second_step(stage: Stage) -> float:
    """Seconds of the second of two steps: the first one also starts threads."""
    stage.run_step(0)
    start = time.perf_counter()
    stage.run_step(1)
    return time.perf_counter() - start


def _rl_step(stage: RlStage) -> float:
    """Seconds of one step, with an update even where no group has spread."""
    start = time.perf_counter()
    values = stage.run_step(0)
    if "grad_norm" not in values:
        # an untrained model's groups teach nothing: made-up advantages cost what real ones would
        size = stage.config.sampling.num_rollouts
        made_up: list[float | None] = [(-1.0) ** number for number in range(size)]
        stage.update([group._replace(advantages=made_up) for group in stage.last_groups], 0)
    return time.perf_counter() - start


def _evaluations(run: Run) -> Part:
    """All evaluations of a run, by the seconds of an answer to some held-out rows."""
    config, corpus, seed = run.recipe.evaluation, run.heldout, run.recipe.seed
    size = min(_PICTURES_PER_SHARD, config.pictures_per_batch)
    pictures = corpus.pictures[: size * run.shards.num_shards]
    start = time.perf_counter()
    evaluate(
        run.policy,
        corpus,
        lambda sample: pose(sample, seed=seed, epoch=0, heldout=True),
        replace(config, pictures_per_batch=size),
        phase="init",
        seed=seed,
        shards=run.shards,
        pictures=pictures,
    )
    num_rows = sum(len(picture.samples) for picture in pictures)
    seconds = time.perf_counter() - start
    per_row = 1 + config.num_samples
    num_whole = 3 if run.recipe.control else 2  # sft, rl, control; init is greedy only
    return Part(
        seconds=seconds / (num_rows * per_row),
        times=corpus.num_samples * (1 + num_whole * per_row),
        unit="answers",
    )


def _pixel_bytes(run: Run) -> int:
    pictures = (*run.train.pictures, *run.heldout.pictures)
    encoded = sum(len(image.data or b"") for picture in pictures for image in picture.images)
    one = num_bytes(Sight(run.policy, run.train).pixels([0]))
    return encoded + min(one * len(run.train.pictures), LIMIT_BYTES)


def _state_bytes(optimizers: Optimizers) -> int:
    states = [state for part in optimizers.parts for state in part.state.values()]
    kept = [value for state in states for value in state.values()]
    return _bytes(value for value in kept if isinstance(value, torch.Tensor))


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _peak_bytes() -> int:
    """Most memory that the process had resident so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
