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
from .dynamic_sampling import DynamicSampling, Judged, SamplingPlan
from .endpoint import Ask, EndpointConfig, EndpointSampler
from .groups import Asked, Group, judge
from .losses import CispoConfig, PolicyLossConfig
from .metrics import step_metrics
from .optim import AdamWConfig, OptimizerConfig, Optimizers, Schedule
from .overlong import OverlongPenalty, overlong_penalty
from .parallel import Shards
from .parts import BASE_RATES, PartRates, freeze, training_table
from .policy import Policy, Question
from .reference import reference_of
from .rollout import Rollout, SamplingConfig, sample_rollouts
from .rollout_correction import RolloutCorrection
from .rollout_match import MatchLimits, alarm_text
from .seeds import derive_seed, generator_for
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
    overlong: OverlongPenalty | None = None
    """What long rollouts lose; None = nothing."""
    dynamic_sampling: DynamicSampling | None = None
    """Replaces groups without spread by further samples; None = they stay, without gradient."""
    iou_rule: IouRule = StagedIou()
    """Which IoU pays at which progress; Dynamic IoU by default."""
    updates_per_rollout: int = 1
    """Optimizer steps in one pass over a batch of rollouts; 1 = on-policy."""
    epochs_per_rollout: int = 1
    """Passes over a batch of rollouts."""
    pictures_per_micro_batch: int = 0
    """Pictures computed at once in a shard, for memory; 0 = all of the shard's. Changes only the
    order of sums."""
    endpoint: EndpointConfig | None = None
    """A server that samples the rollouts; None = the trainer samples them."""
    rollout_correction: RolloutCorrection | None = None
    """For rollouts of another engine than the one that trains; None = they are taken as ours."""
    match: MatchLimits = MatchLimits()
    """When the probabilities of update and sampling part too far: an alarm."""
    frozen_parts: tuple[str, ...] = VISION_PARTS
    """Parts of the model that RL leaves as they are: of vit, connector, llm."""
    prefix_sharing: bool = True
    """Read each prompt once for all its rollouts; False = every rollout alone, the same numbers."""
    optimizer: OptimizerConfig = AdamWConfig()
    part_rates: PartRates = BASE_RATES
    """Peak learning rates of parts that have one of their own."""
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
        freeze(policy.model, policy.parts, config.frozen_parts)
        self.optimizers = Optimizers(
            policy.model, config.optimizer, parts=policy.parts, part_rates=config.part_rates
        )
        is_frozen = set(VISION_PARTS) <= set(config.frozen_parts)
        self.sight = Sight(policy, corpus, is_frozen=is_frozen)
        self._update = PolicyUpdate(
            policy,
            self.sight,
            self.optimizers,
            shards,
            config,
            reference=reference_of(policy) if needs_reference(config) else None,
        )
        self.endpoint = config.endpoint and EndpointSampler(config.endpoint, config.sampling)
        self.num_extra_pictures = 0
        self.last_groups: list[Group] = []
        """The last step's, as they were updated on."""
        self.alarms: list[str] = []
        """What the last step showed to be wrong, in words."""

    def describe(self) -> list[str]:
        """What trains, and how, in lines for a run's plan."""
        return training_table(self.policy.model, self.policy.parts, self.optimizers.rates)

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, and how far dynamic sampling has come."""
        return {
            "model": self.policy.model.state_dict(),
            "optimizers": self.optimizers.state_dict(),
            "num_extra_pictures": self.num_extra_pictures,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.policy.model.load_state_dict(state["model"])
        self.optimizers.load_state_dict(state["optimizers"])
        self.num_extra_pictures = int(state["num_extra_pictures"])

    def run_step(self, step: int) -> dict[str, float]:
        """One batch of rollouts and its updates."""
        spent = _Clock()
        plan, drawn = self._draw_groups(step, spent)
        values = self.update(plan.kept, step)
        spent.lap("update")
        self.last_groups = plan.kept
        alarm = alarm_text(self._update.match, self.config.match) if self._update.match else None
        self.alarms = [] if alarm is None else [f"rl step {step + 1}: {alarm}"]
        num_tokens = sum(len(r.token_ids) for group in drawn for r in group.rollouts)
        values |= spent.metrics()
        values["tokens_per_s"] = num_tokens / max(spent.total_s, 1e-9)
        return values | plan.metrics() | self._penalties(drawn) | step_metrics(drawn)

    def _draw_groups(self, step: int, spent: _Clock) -> tuple[SamplingPlan[Group], list[Group]]:
        """The groups to update on, and all that were drawn for it."""
        config = self.config
        draws = self._draws(step * config.pictures_per_step, config.pictures_per_step)
        num_rows = sum(len(draw.picture.samples) for draw in draws)
        plan: SamplingPlan[Group] = SamplingPlan(num_rows, config.dynamic_sampling)
        drawn: list[Group] = []
        attempt = 0
        while wanted := plan.num_to_draw:
            if attempt:  # behind the pictures that the run draws anyway
                start = self.num_steps * config.pictures_per_step + self.num_extra_pictures
                draws = self._draws(start, -(-wanted * config.pictures_per_step // num_rows))
                self.num_extra_pictures += len(draws)
            asked = self._sample(draws, step, attempt)
            spent.lap("rollout")
            groups = self._judge(asked, step)
            spent.lap("score")
            scored = [sum(v.score is not None for v in group.verdicts) for group in groups]
            judged = [
                Judged(group.sample.source, group.has_spread, count)
                for group, count in zip(groups, scored, strict=True)
            ]
            plan.feed(groups, judged)
            drawn += groups
            attempt += 1
        return plan, drawn

    def _draws(self, start: int, count: int) -> list[Draw]:
        stream = self.stream(start)
        return [next(stream) for _ in range(count)]

    def _penalties(self, groups: Sequence[Group]) -> dict[str, float]:
        """The mean length penalty, where there is one."""
        config = self.config.overlong
        if config is None:
            return {}
        lengths = [len(rollout.token_ids) for group in groups for rollout in group.rollouts]
        return {"overlong": sum(overlong_penalty(n, config) for n in lengths) / len(lengths)}

    def _sample(self, draws: Sequence[Draw], step: int, attempt: int = 0) -> list[Asked]:
        """Every question of the pictures with its rollouts."""
        self.sight.prepare([draw.picture.index for draw in draws])  # threads then only read
        parts = self.shards.split(draws)
        posed = [
            [
                (owner, draw, row, self.pose(row, draw.epoch))
                for owner, draw in enumerate(part)
                for row in draw.picture.samples
            ]
            for part in parts
        ]

        def sample(part: int) -> list[list[Rollout]]:
            with torch.no_grad():
                features = self.sight.features([draw.picture.index for draw in parts[part]])
            questions = [Question(owner=owner, text=text) for owner, _, _, text in posed[part]]
            random = generator_for(self.seed, stream.format(part), step)
            return sample_rollouts(self.policy, features, questions, self.config.sampling, random)

        def ask(part: int) -> list[list[Rollout]]:
            assert self.endpoint is not None
            asks = [Ask(draw.picture.images, text) for _, draw, _, text in posed[part]]
            seed = derive_seed(self.seed, stream.format(part), step) % 2**31
            return self.endpoint.sample(self.policy, asks, self.policy.forbidden_ids, seed)

        stream = "rollout/{}" + (f"/{attempt}" if attempt else "")
        if self.endpoint is not None and attempt == 0:
            if self.shards.processes.is_main:
                self.endpoint.push(self.policy)
            self.shards.processes.wait()
        model = self.policy.model
        was_training = model.training
        model.eval()  # in training, gradient checkpointing would drop the answers' caches
        found = self.shards.map(sample if self.endpoint is None else ask, range(len(parts)))
        model.train(was_training)
        return [
            Asked(row, draw.picture.index, text, rollouts)
            for part, groups in zip(posed, found, strict=True)
            for (_, draw, row, text), rollouts in zip(part, groups, strict=True)
        ]

    def _judge(self, asked: Sequence[Asked], step: int) -> list[Group]:
        context = ScoreContext(progress=step / self.num_steps, iou_rule=self.config.iou_rule)
        config = self.config
        groups = judge(
            asked,
            config.scoring,
            context,
            config.advantage,
            config.overlong,
            processes=self.shards.processes,
        )
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


class _Clock:
    """CPU seconds of a step by what they were spent on."""

    def __init__(self) -> None:
        self._last = self._start = time.process_time()
        self._spent: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """Books the time since the last lap."""
        now = time.process_time()
        self._spent[name] = self._spent.get(name, 0.0) + now - self._last
        self._last = now

    @property
    def total_s(self) -> float:
        """Seconds booked."""
        return self._last - self._start

    def metrics(self) -> dict[str, float]:
        """`seconds/<name>` of every lap."""
        return {f"seconds/{name}": spent for name, spent in self._spent.items()}
