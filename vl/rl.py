"""Stage 3: V-Triune RL. Sample, score, compare within groups, update; all metrics by source.

One step: pictures -> prompts -> G rollouts each -> verdicts -> rewards -> group-relative advantages
-> policy loss -> optimizer step. Pictures and prompts are computed once for all their rollouts, in
sampling and in the update.

Source: V-Triune (arXiv 2505.18129) sections 3-4; CISPO, MiniMax-M1 report (arXiv 2506.13585).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data_specs import Sample
from verifiers import (
    IouRule,
    PoolScoring,
    ScoreContext,
    Scoring,
    StagedIou,
    Verdict,
    score_with,
)

from .advantages import AdvantageConfig, group_advantages
from .corpus import Corpus, Pose
from .losses import CispoConfig, PolicyLossConfig, policy_loss
from .metrics import step_metrics
from .optim import AdamWConfig, OptimizerConfig, Optimizers, Schedule
from .parallel import Shards
from .policy import Policy, Question
from .rollout import Rollout, SamplingConfig, sample_rollouts
from .seeds import generator_for
from .sft import Draw, PictureStream
from .sight import Sight

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
    """Optimizer steps over one batch of rollouts; 1 = on-policy."""
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


class Group(NamedTuple):
    """One sample, its rollouts, their verdicts and advantages (None = left out)."""

    sample: Sample
    picture_index: int
    prompt: str
    rollouts: list[Rollout]
    verdicts: list[Verdict]
    advantages: list[float | None]
    has_spread: bool


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
        if not isinstance(config.loss, CispoConfig) and config.loss.kl is not None:
            raise ValueError(
                f"rl.loss.kl: found {config.loss.kl!r}; this trainer keeps no reference model yet; "
                "leave it at null"
            )
        frozen = tuple(name for part in config.frozen_parts for name in policy.parts[part])
        for name, param in policy.model.named_parameters():
            param.requires_grad_(not name.startswith(frozen))
        self.optimizers = Optimizers(policy.model, config.optimizer)
        is_frozen = set(VISION_PARTS) <= set(config.frozen_parts)
        self.sight = Sight(policy, corpus, is_frozen=is_frozen)
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
        rollouts = self._sample(draws, step)
        clock.append(time.process_time())
        groups = self._judge(draws, rollouts, step)
        clock.append(time.process_time())
        values = self.update(groups, step)
        clock.append(time.process_time())
        self.last_groups = groups
        num_tokens = sum(len(r.token_ids) for group in groups for r in group.rollouts)
        names = ("seconds/rollout", "seconds/score", "seconds/update")
        values |= {name: clock[i + 1] - clock[i] for i, name in enumerate(names)}
        values["tokens_per_s"] = num_tokens / max(clock[3] - clock[0], 1e-9)
        return values | step_metrics(groups)

    def _prompts(self, draws: Sequence[Draw]) -> list[str]:
        return [self.pose(s, draw.epoch) for draw in draws for s in draw.picture.samples]

    def _sample(self, draws: Sequence[Draw], step: int) -> list[list[Rollout]]:
        self.sight.prepare([draw.picture.index for draw in draws])  # threads then only read
        parts = self.shards.split(draws)

        def sample(part: int) -> list[list[Rollout]]:
            mine = parts[part]
            with torch.no_grad():
                features = self.sight.features([draw.picture.index for draw in mine])
            questions = [
                Question(owner=owner, text=text)
                for owner, draw in enumerate(mine)
                for text in self._prompts([draw])
            ]
            random = generator_for(self.seed, f"rollout/{part}", step)
            return sample_rollouts(self.policy, features, questions, self.config.sampling, random)

        return [group for part in self.shards.map(sample, range(len(parts))) for group in part]

    def _judge(
        self, draws: Sequence[Draw], rollouts: list[list[Rollout]], step: int
    ) -> list[Group]:
        context = ScoreContext(progress=step / self.num_steps, iou_rule=self.config.iou_rule)
        rows = [(draw, sample) for draw in draws for sample in draw.picture.samples]
        pairs = zip(rows, rollouts, strict=True)
        items = [(row[1], rollout.text) for row, answers in pairs for rollout in answers]
        verdicts = score_with(self.config.scoring, items, context)
        unscored = [verdict for verdict in verdicts if verdict.score is None]
        if len(unscored) > self.config.max_unscored_frac * len(verdicts):
            raise TooManyUnscored(
                f"rl step {step + 1}: {len(unscored)} of {len(verdicts)} rollouts are unscored, "
                f"allowed is a share of {self.config.max_unscored_frac}; the first says "
                f"{unscored[0].status}: {unscored[0].reason}. Run `vl data check` on the data"
            )
        groups: list[Group] = []
        prompts = self._prompts(draws)
        size = self.config.sampling.num_rollouts
        for index, (draw, sample) in enumerate(rows):
            judged = verdicts[index * size : (index + 1) * size]
            relative = group_advantages([v.reward for v in judged], self.config.advantage)
            groups.append(
                Group(
                    sample, draw.picture.index, prompts[index], rollouts[index], judged, *relative
                )
            )
        return groups

    def update(self, groups: list[Group], step: int) -> dict[str, float]:
        """Optimizer steps over the groups, and their numbers."""
        factor = self.config.schedule.factor(step / self.num_steps, step)
        lr = self.optimizers.set_factor(factor)
        per_picture = _runs(groups)
        share = -(-len(per_picture) // self.config.updates_per_rollout)
        measured: dict[str, list[float]] = {}
        for start in range(0, len(per_picture), share):
            part = [group for run in per_picture[start : start + share] for group in run]
            for name, value in self._update_once(part).items():
                measured.setdefault(name, []).append(value)
        # an update without any advantage has a loss of 0 and no other number
        return {"lr": lr} | {name: sum(found) / len(found) for name, found in measured.items()}

    def _update_once(self, groups: list[Group]) -> dict[str, float]:
        # rollouts without an advantage have no gradient: they count as tokens, not as work
        scored = [
            (len(rollout.token_ids), advantage)
            for group in groups
            for rollout, advantage in zip(group.rollouts, group.advantages, strict=True)
            if advantage is not None
        ]
        tokens = sum(length for length, _ in scored)
        sequences = sum(length > 0 for length, _ in scored)
        live_tokens = sum(length for length, advantage in scored if advantage != 0.0)
        if live_tokens == 0:
            return {"loss": 0.0}
        shares: dict[int, _Share] = {}  # by shard: threads end in any order, sums keep theirs

        def loss_of(shard: int, runs: list[list[Group]]) -> Callable[[], Tensor]:
            def loss() -> Tensor:
                value, shares[shard] = self._share(runs, tokens, sequences)
                return value

            return loss

        losses = [loss_of(*part) for part in enumerate(self.shards.split(_runs(groups)))]
        self.shards.backward(self.optimizers.params, losses)
        found = [shares[shard] for shard in range(len(losses))]
        return {
            "loss": sum(share.loss for share in found),
            "clip_fraction": sum(share.clip_fraction for share in found),
            "clip_fraction/positive": sum(share.clip_fraction_positive for share in found),
            "clip_fraction/negative": sum(share.clip_fraction_negative for share in found),
            "entropy": sum(share.entropy_sum for share in found) / live_tokens,
            "logprob_gap": max(share.logprob_gap for share in found),
            "grad_norm": self.optimizers.step(self.config.max_grad_norm),
        }

    def _share(self, runs: list[list[Group]], tokens: int, sequences: int) -> tuple[Tensor, _Share]:
        """One shard's part of the loss, its pictures and prompts computed once."""
        features = self.sight.features([run[0].picture_index for run in runs])
        groups = [(owner, group) for owner, run in enumerate(runs) for group in run]
        questions = [Question(owner=owner, text=group.prompt) for owner, group in groups]
        memory = self.policy.read(features, questions) if self.config.prefix_sharing else None
        live = [
            (row, rollout, advantage)
            for row, (_, group) in enumerate(groups)
            for rollout, advantage in zip(group.rollouts, group.advantages, strict=True)
            if advantage
        ]
        if not live:
            return torch.zeros(()), _Share()
        rows = [row for row, _, _ in live]
        answers = [rollout.token_ids for _, rollout, _ in live]
        temperature = self.config.sampling.temperature
        if self.config.prefix_sharing:
            memory = self.policy.read(features, questions)
            scores = self.policy.score(memory, rows, answers, temperature=temperature)
        else:
            asked = [questions[row] for row in rows]
            scores = self.policy.score_alone(features, asked, answers, temperature=temperature)
        sampled = torch.zeros_like(scores.logprobs)
        sampled[scores.valid] = torch.tensor([p for _, r, _ in live for p in r.logprobs])
        loss = policy_loss(
            scores.logprobs,
            sampled,
            torch.tensor([advantage for _, _, advantage in live]),
            scores.valid,
            self.config.loss,
            tokens_in_step=tokens,
            sequences_in_step=sequences,
        )
        gap = (scores.logprobs.detach().exp() - sampled.exp()).abs()[scores.valid].max()
        return loss.loss, _Share(
            loss.loss.item(),
            loss.clip_fraction.item(),
            loss.clip_fraction_positive.item(),
            loss.clip_fraction_negative.item(),
            scores.entropy[scores.valid].sum().item(),
            gap.item(),
        )


class _Share(NamedTuple):
    """Numbers of one shard's part of the loss."""

    loss: float = 0.0
    clip_fraction: float = 0.0
    clip_fraction_positive: float = 0.0
    clip_fraction_negative: float = 0.0
    entropy_sum: float = 0.0
    logprob_gap: float = 0.0
    """Largest difference between a token's probability in the update and in sampling."""


def _runs(groups: Sequence[Group]) -> list[list[Group]]:
    """Consecutive groups of one picture."""
    runs: list[list[Group]] = []
    for group in groups:
        if runs and runs[-1][0].picture_index == group.picture_index:
            runs[-1].append(group)
        else:
            runs.append([group])
    return runs
