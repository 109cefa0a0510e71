"""Stage 3: V-Triune RL. Sample, score, compare within groups, update; all metrics by source.

One step: pictures -> prompts -> G rollouts each -> verdicts -> rewards -> group-relative advantages
-> policy loss -> optimizer step. Pictures and prompts are computed once for all their rollouts, in
sampling and in the update.

Source: V-Triune (arXiv 2505.18129) sections 3-4; CISPO, MiniMax-M1 report (arXiv 2506.13585).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from .corpus import Corpus, Pose, owners_of
from .losses import CispoConfig, PolicyLossConfig, policy_loss
from .metrics import step_metrics
from .optim import AdamWConfig, OptimizerConfig, Optimizers, Schedule
from .parallel import Shards
from .policy import Policy
from .rollout import Rollout, SamplingConfig, sample_rollouts
from .seeds import generator_for
from .sft import Draw, PictureStream

VISION_PARTS = ("vision_tower", "multi_modal_projector")


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
    """Leading parts of parameter names that RL leaves as they are."""
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


@dataclass
class FeatureMemory:
    """Image features of a frozen vision part, computed once a picture."""

    policy: Policy
    corpus: Corpus
    _memory: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """(picture, token, hidden), without gradient."""
        new = [index for index in dict.fromkeys(indices) if index not in self._memory]
        if new:
            with torch.no_grad():
                features = self.policy.features(self.corpus.pixels[new])
            self._memory |= dict(zip(new, features.unbind(0), strict=True))
        return torch.stack([self._memory[index] for index in indices])


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
        for name, param in policy.model.named_parameters():
            param.requires_grad_(not name.startswith(config.frozen_parts))
        self.optimizers = Optimizers(policy.model, config.optimizer)
        frozen = set(VISION_PARTS) <= set(config.frozen_parts)
        self.memory = FeatureMemory(policy, corpus) if frozen else None
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

    def _features(self, indices: Sequence[int]) -> Tensor:
        if self.memory is not None:
            return self.memory(indices)
        return self.policy.features(self.corpus.pixels[list(indices)])

    def _prompts(self, draws: Sequence[Draw]) -> list[str]:
        return [self.pose(s, draw.epoch) for draw in draws for s in draw.picture.samples]

    def _sample(self, draws: Sequence[Draw], step: int) -> list[list[Rollout]]:
        if self.memory is not None:
            self.memory([draw.picture.index for draw in draws])  # threads then only read
        parts = self.shards.split(draws)
        text = self.policy.text
        prompts = [[text.prompt(prompt) for prompt in self._prompts(part)] for part in parts]

        def sample(part: int) -> list[list[Rollout]]:
            pictures = [draw.picture for draw in parts[part]]
            with torch.no_grad():
                features = self._features([picture.index for picture in pictures])
            random = generator_for(self.seed, f"rollout/{part}", step)
            owners = owners_of(pictures)
            return sample_rollouts(
                self.policy, features, prompts[part], owners, self.config.sampling, random
            )

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
            prompts = [self.policy.text.prompt(group.prompt) for run in runs for group in run]

            def loss() -> Tensor:
                value, shares[shard] = self._share(runs, prompts, tokens, sequences)
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

    def _share(
        self, runs: list[list[Group]], prompts: list[list[int]], tokens: int, sequences: int
    ) -> tuple[Tensor, _Share]:
        """One shard's part of the loss, its pictures and prompts computed once."""
        owners = [index for index, run in enumerate(runs) for _ in run]
        features = self._features([run[0].picture_index for run in runs])
        memory = self.policy.read_prompts(self.policy.read_pictures(features), prompts, owners)
        live = sorted(
            (
                (row, rollout, advantage)
                for row, group in enumerate(group for run in runs for group in run)
                for rollout, advantage in zip(group.rollouts, group.advantages, strict=True)
                if advantage
            ),
            key=lambda item: len(item[1].token_ids),
        )
        total = features.new_zeros(())
        entropy_sum = logprob_gap = 0.0
        clipped = [0.0, 0.0, 0.0]
        for chunk in _thirds(live):
            scores = self.policy.score_answers(
                memory.select(torch.tensor([row for row, _, _ in chunk])),
                [rollout.token_ids for _, rollout, _ in chunk],
                temperature=self.config.sampling.temperature,
            )
            sampled = torch.zeros_like(scores.logprobs)
            for index, (_, rollout, _) in enumerate(chunk):
                sampled[index, : len(rollout.logprobs)] = torch.tensor(rollout.logprobs)
            loss = policy_loss(
                scores.logprobs,
                sampled,
                torch.tensor([advantage for _, _, advantage in chunk]),
                scores.valid,
                self.config.loss,
                tokens_in_step=tokens,
                sequences_in_step=sequences,
            )
            total = total + loss.loss
            gap = (scores.logprobs.exp() - sampled.exp()).abs()[scores.valid].max()
            logprob_gap = max(logprob_gap, gap.item())
            parts = (loss.clip_fraction, loss.clip_fraction_positive, loss.clip_fraction_negative)
            clipped = [before + part.item() for before, part in zip(clipped, parts, strict=True)]
            entropy_sum += scores.entropy[scores.valid].sum().item()
        return total, _Share(
            total.item(), clipped[0], clipped[1], clipped[2], entropy_sum, logprob_gap
        )


class _Share(NamedTuple):
    """Numbers of one shard's part of the loss."""

    loss: float
    clip_fraction: float
    clip_fraction_positive: float
    clip_fraction_negative: float
    entropy_sum: float
    logprob_gap: float
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


def _thirds(rows: list[Any]) -> list[list[Any]]:
    """Up to three parts of similar length each, to save padding."""
    size = max(1, -(-len(rows) // 3))
    return [rows[start : start + size] for start in range(0, len(rows), size)]
