"""One run from a recipe to its report: stages and evaluations in order, resumable anywhere.

align -> [evaluate init] -> SFT -> [evaluate sft] -> RL -> [evaluate rl]
-> control (RL's seconds of more SFT, from the SFT weights) -> [evaluate control] -> report
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from tasks.captions import caption
from vl.atomic import write_folder
from vl.checkpoint import Checkpoint, CheckpointStore
from vl.evaluate import to_answer
from vl.groups import Group
from vl.models.minimax_policy import MiniMaxPolicy
from vl.processes import ALONE, Processes
from vl.report import render_report
from vl.rl import RlStage
from vl.rundir import STAGES, START, GroupLine, Position, read_metrics
from vl.runlog import RunLog
from vl.sft import AlignStage, SftConfig, SftStage
from vl.stage import Stage, StageSeconds, run_stage

from .data import Dataset
from .phases import evaluate_phase, online_scores, write_summary
from .plan import plan_lines
from .prepare import Run, Stream, prepare
from .progress import Progress, quiet_transformers
from .recipe import ModelConfig, Recipe, recipe_to_json
from .stages import StageCache, content_key, replay_metrics


def run_recipe(
    recipe: Recipe,
    out: Path,
    dataset: Dataset,
    *,
    cache_dir: Path,
    resume: bool,
    progress: Progress,
    processes: Processes = ALONE,
) -> Path:
    """Runs every stage that is not yet done and returns the path of the report.

    Args:
        processes: of several, each computes its share, and the first alone writes into `out`.

    Raises:
        RunDirError: `out` is in use and `resume` is False, or there is nothing to resume.
        Interrupted: Ctrl-C; a checkpoint is left.
    """
    torch.set_num_threads(1)  # cores compute shards; spinning OpenMP threads would fight them
    quiet_transformers()
    checkpoints = CheckpointStore(out / "checkpoints")
    checkpoint = checkpoints.load() if resume else None
    for note in checkpoint.notes if checkpoint else ():
        progress.note(note)
    position = (checkpoint.position if checkpoint else START) if resume else None
    with ExitStack() as stack:
        if not processes.is_main:  # computes its share; what it logs is nobody's
            out, position = Path(stack.enter_context(TemporaryDirectory())) / "run", None
        log = stack.enter_context(RunLog(out, resume_at=position))
        if position is None:
            log.write_config({**recipe_to_json(recipe), "files": dataset.as_json()})
        parts = (log, StageCache(cache_dir), checkpoints, progress)
        run = prepare(recipe, dataset, *parts, processes=processes)
        for line in plan_lines(run):
            progress.note(line)
        _Stages(run, checkpoint).run_all()
        return render_report(out) if processes.is_main else out


@dataclass
class _Stages:
    """The stages of one run and where a resumed run re-enters them."""

    run: Run
    checkpoint: Checkpoint | None

    def run_all(self) -> None:
        """Every stage and evaluation in order, then `eval.json`."""
        run, recipe = self.run, self.run.recipe
        content = recipe_to_json(recipe)
        align_key = content_key(
            run.dataset.key, recipe.seed, content["model"], content["align"], recipe.num_shards
        )
        sft_key = content_key(align_key, content["sft"], content["data"]["sft_weights"])
        seconds: dict[str, StageSeconds] = {}

        # stages are made where they run and dropped after it, with the pictures they remember
        if self._is_aligned():
            seconds["align"] = self._kept_stage(self._align_stage(), align_key)
        evaluate_phase(run, "init")

        if recipe.sft is not None:
            order = run.stream("sft", recipe.data.sft_weights)
            sft = self._sft_stage
            seconds["sft"] = self._kept_stage(sft(order, recipe.sft, "sft"), sft_key)
            evaluate_phase(run, "sft")
        start = _copy(run.policy.model.state_dict()) if recipe.control else {}

        seconds["rl"] = self._rl()
        if recipe.control and recipe.sft is not None:
            run.policy.model.load_state_dict(start)
            seconds["control"] = self._control(seconds, recipe.sft)
        if run.processes.is_main:
            write_summary(run, seconds)

    def _is_aligned(self) -> bool:
        """Whether stage 1 is asked for, and has something to learn from."""
        run = self.run
        if run.recipe.align is None or run.head is None:
            return False
        if not run.head.labels:
            run.progress.note("align: left out, no training row says in `objects` what is shown")
        return bool(run.head.labels)

    def _align_stage(self) -> AlignStage:
        run, config = self.run, self.run.recipe.align
        head, policy = run.head, run.policy
        assert config is not None and head is not None and isinstance(policy, MiniMaxPolicy)
        annotated = run.stream("align", run.unannotated)
        return AlignStage(policy, head, run.train, annotated, config, run.shards)

    def _sft_stage(self, order: Stream, config: SftConfig, name: str) -> SftStage:
        run = self.run
        parts = (run.policy, run.head, run.train, order, run.pose, caption)
        return SftStage(*parts, config, run.shards, name=name)

    def _rl(self) -> StageSeconds:
        run, recipe = self.run, self.run.recipe
        order = run.stream("rl", recipe.data.rl_weights)
        stage = RlStage(
            run.policy, run.train, order, run.pose, recipe.rl, run.shards, seed=recipe.seed
        )
        for line in stage.describe():
            run.progress.note(line)
        seconds = self._stage(stage)
        if self._reached("rl"):
            evaluate_phase(run, "rl")
            if run.processes.is_main:
                write_folder(run.log.run_dir / "final", run.policy.save)
        return seconds

    def _control(self, seconds: Mapping[str, StageSeconds], sft: SftConfig) -> StageSeconds:
        """As many CPU seconds of SFT as RL took, in a fresh order, with a decay of its own."""
        run, recipe = self.run, self.run.recipe
        run.policy.model.requires_grad_(True)
        num_steps = max(1, round(seconds["rl"].cpu_s / self._sft_seconds_per_step()))
        config = replace(
            sft, num_steps=num_steps, caption_frac=0.0, schedule=recipe.control_schedule
        )
        order = run.stream("control", recipe.data.sft_weights)
        stage = self._sft_stage(order, config, "control")
        spent = self._stage(stage)
        evaluate_phase(run, "control")
        return spent

    def _sft_seconds_per_step(self) -> float:
        """CPU seconds of a step at the end of SFT, where no caption is read any more."""
        lines = self.run.processes.gather(read_metrics(self.run.log.run_dir, "sft"))
        first = lines[max(0, len(lines) - 101)]
        steps = lines[-1]["step"] - first["step"]
        spent = lines[-1]["cpu_s"] - (first["cpu_s"] if steps else 0.0)
        return max(spent / max(steps, 1), 1e-9)

    def _reached(self, stage: str) -> bool:
        """False if the resumed run stands in a later stage: this one's weights are not loaded."""
        return self.checkpoint is None or not _is_before(stage, self.checkpoint.position)

    def _kept_stage(self, stage: Stage, key: str) -> StageSeconds:
        """Takes a stage from the cache, else runs it and keeps it."""
        run = self.run
        cache = run.cache
        if not isinstance(run.recipe.model, ModelConfig):
            # what lies under a saved model's name may change: kept for this run alone, whose RL
            # needs it again after a resume, as its penalty's reference and as the control's start
            cache = StageCache(run.checkpoints.folder.parent / "stages")
        kept = cache.load(stage.name, key, run.policy, run.head)
        if kept is None:
            if not self._reached(stage.name):
                raise FileNotFoundError(
                    f"{cache.path(stage.name, key)}: the finished stage {stage.name} that "
                    "this run was built on is gone; start again with a new --out"
                )
            seconds = self._stage(stage)
            if run.processes.is_main:
                cache.save(stage.name, key, run.policy, run.head, seconds, run.log.run_dir)
            run.processes.wait()
            return seconds
        run.progress.note(f"{stage.name}: kept from an earlier run ({kept.seconds.wall_s:.0f} s)")
        logged = self.checkpoint.position if self.checkpoint else START

        def write(step: int, num_steps: int, values: Mapping[str, float]) -> None:
            if Position(stage.name, step).is_after(logged):
                run.log.log_metrics(
                    stage=stage.name, step=step, num_steps=num_steps, values=dict(values)
                )

        replay_metrics(kept.metrics, write)
        return kept.seconds

    def _stage(self, stage: Stage) -> StageSeconds:
        """Runs a stage from its start or from the checkpoint inside it."""
        run = self.run
        start_step, spent = 0, StageSeconds(cpu_s=0.0, wall_s=0.0)
        if not self._reached(stage.name):
            return self._logged_seconds(stage)
        if self.checkpoint and self.checkpoint.position.stage == stage.name:
            stage.load_state_dict(self.checkpoint.state)
            start_step = self.checkpoint.position.step
            spent = StageSeconds(cpu_s=self.checkpoint.cpu_s, wall_s=self.checkpoint.wall_s)
        with run.progress.stage(stage.name, stage.num_steps, start_step) as show:

            def on_step(name: str, step: int, num_steps: int, values: Mapping[str, float]) -> None:
                show(name, step, num_steps, values)
                if isinstance(stage, RlStage):
                    self._log_groups(stage, step)
                    for alarm in stage.alarms:
                        run.progress.note(alarm)

            run_stage(
                stage,
                log=run.log,
                checkpoints=run.checkpoints,
                on_step=on_step,
                start_step=start_step,
                spent=spent,
                checkpoint_every=run.recipe.checkpoint_every,
                measure=self._measure if isinstance(stage, RlStage) else None,
                processes=run.processes,
                export=run.policy.save if isinstance(stage, RlStage) else None,
            )
        seconds = self._logged_seconds(stage)
        if run.processes.is_main:
            run.checkpoints.save(stage.name, stage.num_steps, stage.state_dict(), seconds)
        run.processes.wait()
        return seconds

    def _measure(self, step: int) -> Mapping[str, float]:
        """Held-out scores where they are due."""
        every = self.run.recipe.evaluate_every
        return online_scores(self.run) if every and step % every == 0 else {}

    def _logged_seconds(self, stage: Stage) -> StageSeconds:
        """Those of the last logged step: a resumed run, which knows no others, counts the same."""
        lines = read_metrics(self.run.log.run_dir, stage.name)
        last = self.run.processes.gather(lines[-1:])[0]
        return StageSeconds(cpu_s=last["cpu_s"], wall_s=last["time_s"])

    def _log_groups(self, stage: RlStage, step: int) -> None:
        """Some of the step's groups, a different part of the batch each step."""
        count = self.run.recipe.rl.logged_groups_per_step
        groups = stage.last_groups
        first = step * count % max(len(groups), 1)
        for group in (groups * 2)[first : first + count]:
            self.run.log.log_rollout_group(_group_line(group, step))


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


def _is_before(stage: str, position: Position) -> bool:
    return STAGES.index(stage) < STAGES.index(position.stage)


def _group_line(group: Group, step: int) -> GroupLine:
    sample = group.sample
    image_id = sample.extra.get("image_id")
    answers: list[Any] = [
        {**to_answer(rollout, verdict), "advantage": advantage}
        for rollout, verdict, advantage in zip(
            group.rollouts, group.verdicts, group.advantages, strict=True
        )
    ]
    return GroupLine(
        stage="rl",
        step=step,
        id=sample.id,
        source=sample.source,
        task=sample.task,
        image_id=None if image_id is None else str(image_id),
        question=sample.question,
        prompt=group.prompt,
        reference=sample.reward.answer,
        ground_truth=sample.reward.ground_truth,
        group=answers,
    )
