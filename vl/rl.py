"""Stage 3: V-Triune RL. Sample, score, compare within groups, update; all metrics by source.

One step: pictures -> prompts -> G rollouts each -> verdicts -> rewards -> group-relative advantages
-> policy loss -> optimizer step. Pictures and prompts are computed once for all their rollouts, in
sampling and in the update.

Source: V-Triune (arXiv 2505.18129) sections 3-4; CISPO, MiniMax-M1 report (arXiv 2506.13585).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from verifiers import IouRule, PoolScoring, ScoreContext, Scoring, StagedIou

from .advantages import AdvantageConfig
from .corpus import Corpus, Pose
from .groups import Asked, Group, judge
from .losses import CispoConfig, PolicyLossConfig
from .metrics import step_metrics
from .optim import AdamWConfig, OptimizerConfig, Optimizers, Schedule
from .parallel import Shards
from .policy import Policy, Question
from .rollout import SamplingConfig, sample_rollouts
from .rollout_correction import RolloutCorrection
from .seeds import generator_for
from .sft import Draw, PictureStream
from .sight import Sight
from .update import PolicyUpdate, needs_reference

VISION_PARTS = ("vit", "connector")


@dataclass(frozen=True, kw_only=True)
class RlConfig:
    """Stage 3."""

    num_steps: int = 300
    pictures_per_step: int = 16
    sampling: SamplingConfig = SamplingConfig()
    advantage: AdvantageConfig = AdvantageConfig()
    loss: PolicyLossConfig = CispoConfig()
    iou_rule: IouRule = StagedIou()
    """Which IoU pays at which progress; Dynamic IoU by default."""
    updates_per_rollout: int = 1
    """Optimizer steps in one pass over a batch of rollouts; 1 = on-policy."""
    epochs_per_rollout: int = 1
    """Passes over a batch of rollouts."""
    pictures_per_micro_batch: int = 0
    """Pictures computed at once in a shard, for memory; 0 = all of the shard's. Changes only the
    order of sums."""
    rollout_correction: RolloutCorrection | None = None
    """For rollouts of another engine than the one that trains; None = they are taken as ours."""
    frozen_parts: tuple[str, ...] = VISION_PARTS
    """Parts of the model that RL leaves as they are: of vit, connector, llm."""
    prefix_sharing: bool = True
    """Read each prompt once for all its rollouts; False = every rollout alone, the same numbers."""
    optimizer: OptimizerConfig = AdamWConfig()
    schedule: Schedule = Schedule()
    max_grad_norm: float = 1.0
    max_unscored_frac: float = 0.2
    """A step with a larger share of unscored rollouts stops the run: the fault is ours."""
    scoring: Scoring = PoolScoring()
    """Who judges the rollouts: killable processes, or reward servers (`--scorers`)."""
    logged_groups_per_step: int = 2
    """Groups a step written to rollouts.jsonl."""


class TooManyUnscored(RuntimeError):
    """More rollouts could not be judged than the recipe allows."""


class RlStage:
    """Stage 3."""

    name = "rl"

    def __init__(
        self,
        policy: Policy,
        corpus: Corpus,
        stream: PictureStream,
        pose: Pose,
        config: RlConfig,
        shards: Shards,
        *,
        seed: int,
    ) -> None:
        self.policy, self.corpus, self.stream, self.pose = policy, corpus, stream, pose
        self.config, self.seed, self.shards = config, seed, shards
        self.num_steps = config.num_steps
        if needs_reference(config):
            raise ValueError(
                f"rl.loss: found {config.loss!r}; this trainer keeps no reference model yet; "
                "leave its kl at null"
            )
        frozen = tuple(name for part in config.frozen_parts for name in policy.parts[part])
        for name, param in policy.model.named_parameters():
            param.requires_grad_(not name.startswith(frozen))
        self.optimizers = Optimizers(policy.model, config.optimizer)
        is_frozen = set(VISION_PARTS) <= set(config.frozen_parts)
        self.sight = Sight(policy, corpus, is_frozen=is_frozen)
        self._update = PolicyUpdate(policy, self.sight, self.optimizers, shards, config)
        self.last_groups: list[Group] = []

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimizer."""
        return {
            "model": self.policy.model.state_dict(),
            "optimizers": self.optimizers.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.policy.model.load_state_dict(state["model"])
        self.optimizers.load_state_dict(state["optimizers"])

    def run_step(self, step: int) -> dict[str, float]:
        """One batch of rollouts and its updates."""
        config = self.config
        stream = self.stream(step * config.pictures_per_step)
        draws = [next(stream) for _ in range(config.pictures_per_step)]
        clock = [time.process_time()]
        asked = self._sample(draws, step)
        clock.append(time.process_time())
        groups = self._judge(asked, step)
        clock.append(time.process_time())
        values = self.update(groups, step)
        clock.append(time.process_time())
        self.last_groups = groups
        num_tokens = sum(len(r.token_ids) for group in groups for r in group.rollouts)
        names = ("seconds/rollout", "seconds/score", "seconds/update")
        values |= {name: clock[i + 1] - clock[i] for i, name in enumerate(names)}
        values["tokens_per_s"] = num_tokens / max(clock[3] - clock[0], 1e-9)
        return values | step_metrics(groups)

    def _sample(self, draws: Sequence[Draw], step: int) -> list[Asked]:
        """Every question of the pictures with its rollouts."""
        self.sight.prepare([draw.picture.index for draw in draws])  # threads then only read
        parts = self.shards.split(draws)

        def sample(part: int) -> list[Asked]:
            mine = parts[part]
            rows = [(owner, d, row) for owner, d in enumerate(mine) for row in d.picture.samples]
            texts = [self.pose(row, draw.epoch) for _, draw, row in rows]
            with torch.no_grad():
                features = self.sight.features([draw.picture.index for draw in mine])
            questions = [
                Question(owner=owner, text=text)
                for (owner, _, _), text in zip(rows, texts, strict=True)
            ]
            random = generator_for(self.seed, f"rollout/{part}", step)
            found = sample_rollouts(self.policy, features, questions, self.config.sampling, random)
            return [
                Asked(row, draw.picture.index, text, rollouts)
                for (_, draw, row), text, rollouts in zip(rows, texts, found, strict=True)
            ]

        return [one for part in self.shards.map(sample, range(len(parts))) for one in part]

    def _judge(self, asked: Sequence[Asked], step: int) -> list[Group]:
        context = ScoreContext(progress=step / self.num_steps, iou_rule=self.config.iou_rule)
        groups = judge(asked, self.config.scoring, context, self.config.advantage)
        verdicts = [verdict for group in groups for verdict in group.verdicts]
        unscored = [verdict for verdict in verdicts if verdict.score is None]
        if len(unscored) > self.config.max_unscored_frac * len(verdicts):
            raise TooManyUnscored(
                f"rl step {step + 1}: {len(unscored)} of {len(verdicts)} rollouts are unscored, "
                f"allowed is a share of {self.config.max_unscored_frac}; the first says "
                f"{unscored[0].status}: {unscored[0].reason}. Run `vl data check` on the data"
            )
        return groups

    def update(self, groups: list[Group], step: int) -> dict[str, float]:
        """Optimizer steps over the groups, and their numbers."""
        factor = self.config.schedule.factor(step / self.num_steps, step)
        lr = self.optimizers.set_factor(factor)
        return {"lr": lr} | self._update.run(groups)
