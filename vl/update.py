"""Optimizer steps on judged groups: a picture and a prompt read once, one gradient through both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .groups import Group, by_picture
from .losses import CispoConfig, policy_loss
from .optim import Optimizers
from .parallel import Shards
from .policy import AnswerScores, Policy, Question, Scorer
from .processes import evenly
from .rollout import Rollout
from .rollout_correction import rollout_correction
from .rollout_match import RolloutMatch, match_of
from .sight import Sight

if TYPE_CHECKING:
    from .rl import RlConfig


@dataclass
class _Row:
    """One rollout that the update learns from."""

    rollout: Rollout
    advantage: float
    start: Float[Tensor, " token"]
    """Log-probs that the loss's ratio is taken against: of sampling, or of the step's start."""
    weights: Float[Tensor, " token"] | None = None
    """Of the rollout correction."""
    reference: Float[Tensor, " token"] | None = None
    """Log-probs under the reference model."""


class _Task(NamedTuple):
    """Groups computed together, and the rows of each."""

    groups: list[Group]
    rows: list[list[_Row]]


class _Share(NamedTuple):
    """Numbers of one task's part of the loss."""

    loss: float = 0.0
    clip_fraction: float = 0.0
    clip_fraction_positive: float = 0.0
    clip_fraction_negative: float = 0.0
    kl: float = 0.0
    entropy_sum: float = 0.0
    match: RolloutMatch = RolloutMatch()


class PolicyUpdate:
    """Turns a step's groups into optimizer steps.

    Losses are normalised by the tokens (or rollouts) of the whole optimizer step, so that shards
    and micro-batches add up to the same gradient however they are cut.
    """

    def __init__(
        self,
        policy: Policy,
        sight: Sight,
        optimizers: Optimizers,
        shards: Shards,
        config: RlConfig,
        *,
        reference: Scorer | None = None,
    ) -> None:
        """Args: reference: the model that a KL penalty of the loss keeps near."""
        self._policy, self._sight, self._shards = policy, sight, shards
        self._optimizers, self._config, self._reference = optimizers, config, reference
        self.match: RolloutMatch | None = None
        """How the last batch's first optimizer step agreed with its sampling."""

    def run(self, groups: Sequence[Group]) -> dict[str, float]:
        """All optimizer steps over one batch of groups, and their numbers, averaged."""
        config = self._config
        runs = by_picture(groups)
        rows = self._prepare(runs)
        # as equal as they come: 5 pictures in 4 updates are 1, 1, 1, 2; none at all is one step
        num_updates = max(1, min(config.updates_per_rollout, len(runs)))
        parts = [slice(p.start, p.stop) for p in evenly(len(runs), num_updates)]
        measured: dict[str, list[float]] = {}
        self.match = None
        for _ in range(config.epochs_per_rollout):
            for part in parts:
                for name, value in self._step(runs[part], rows[part]).items():
                    measured.setdefault(name, []).append(value)
        # a step without any advantage has a loss of 0 and no other number
        values = {name: sum(found) / len(found) for name, found in measured.items()}
        return values | (self.match.metrics() if self.match else {})

    def _prepare(self, runs: list[list[Group]]) -> list[list[list[_Row]]]:
        """By picture and group, the rows to learn from, with all that stays fixed meanwhile."""
        keeps_still = self._reference is not None  # the penalty pulls at them too
        rows = [
            [
                [
                    _Row(rollout, advantage, torch.tensor(rollout.logprobs))
                    for rollout, advantage in zip(group.rollouts, group.advantages, strict=True)
                    if advantage is not None and (advantage != 0.0 or keeps_still)
                ]
                for group in run
            ]
            for run in runs
        ]
        correction = self._config.rollout_correction
        for run, of_run in zip(runs, rows, strict=True):
            task = _Task(run, of_run)
            flat = [row for of_group in of_run for row in of_group]
            if not flat:
                continue
            if self._reference is not None:
                scores = self._scores(task, self._reference)
                for row, values in zip(flat, _unpad(scores.logprobs, scores), strict=True):
                    row.reference = values
            if correction is not None:
                scores = self._scores(task, self._policy)
                weights = rollout_correction(
                    scores.logprobs, _pad(flat, "start", scores.valid), scores.valid, correction
                )
                starts, found = _unpad(scores.logprobs, scores), _unpad(weights, scores)
                for row, start, weight in zip(flat, starts, found, strict=True):
                    row.start, row.weights = start, weight
        return rows

    @torch.no_grad()
    def _scores(self, task: _Task, policy: Scorer) -> AnswerScores:
        return self._score(task, policy)

    def _score(self, task: _Task, policy: Scorer) -> AnswerScores:
        """Every row of the task, in order, under a policy."""
        indices = list(dict.fromkeys(group.picture_index for group in task.groups))
        owners = [indices.index(group.picture_index) for group in task.groups]
        same = policy is self._policy
        pixels = self._sight.pixels
        features = self._sight.features(indices) if same else policy.features(pixels(indices))
        questions = [
            Question(owner=owner, text=group.prompt)
            for owner, group in zip(owners, task.groups, strict=True)
        ]
        of_group = [number for number, rows in enumerate(task.rows) for _ in rows]
        answers = [row.rollout.token_ids for rows in task.rows for row in rows]
        temperature = self._config.sampling.temperature
        if self._config.prefix_sharing:
            memory = policy.read(features, questions)
            return policy.score(memory, of_group, answers, temperature=temperature)
        asked = [questions[number] for number in of_group]
        return policy.score_alone(features, asked, answers, temperature=temperature)

    def _step(self, runs: list[list[Group]], rows: list[list[list[_Row]]]) -> dict[str, float]:
        """One optimizer step."""
        # rollouts without an advantage have no gradient: they count as tokens, not as work
        lengths = [
            len(rollout.token_ids)
            for run in runs
            for group in run
            for rollout, advantage in zip(group.rollouts, group.advantages, strict=True)
            if advantage is not None
        ]
        tokens, sequences = sum(lengths), sum(length > 0 for length in lengths)
        live_tokens = sum(
            len(row.rollout.token_ids) for run in rows for group in run for row in group
        )
        if live_tokens == 0:
            return {"loss": 0.0}
        tasks = self._tasks(runs, rows)
        shares: dict[int, _Share] = {}  # by task: threads end in any order, sums keep theirs

        def loss_of(number: int, task: _Task) -> Callable[[], Tensor]:
            def loss() -> Tensor:
                value, shares[number] = self._share(task, tokens, sequences)
                return value

            return loss

        losses = [loss_of(number, task) for number, task in enumerate(tasks)]
        self._shards.backward(self._optimizers.params, losses)
        found = self._shards.collect(shares)
        if self.match is None:  # later steps differ because the weights have moved
            self.match = sum((share.match for share in found), RolloutMatch())
        values = {
            "loss": sum(share.loss for share in found),
            "clip_fraction": sum(share.clip_fraction for share in found),
            "clip_fraction/positive": sum(share.clip_fraction_positive for share in found),
            "clip_fraction/negative": sum(share.clip_fraction_negative for share in found),
            "entropy": sum(share.entropy_sum for share in found) / live_tokens,
            "grad_norm": self._optimizers.step(self._config.max_grad_norm),
        }
        norms = self._optimizers.part_norms
        values |= {f"grad_norm/{part}": norm for part, norm in norms.items()}
        if self._reference is not None:
            values["kl"] = sum(share.kl for share in found)
        return values

    def _tasks(self, runs: list[list[Group]], rows: list[list[list[_Row]]]) -> list[_Task]:
        """What the shards compute, in the order that keeps all of them busy."""
        limit = self._config.pictures_per_micro_batch
        shards: list[list[_Task]] = []
        for shard in self._shards.split(list(zip(runs, rows, strict=True))):
            size = limit or len(shard)
            parts = [shard[start : start + size] for start in range(0, len(shard), size)]
            shards.append(
                [
                    _Task(
                        [group for run, _ in part for group in run],
                        [of_group for _, of_run in part for of_group in of_run],
                    )
                    for part in parts
                ]
            )
        waves = zip_longest(*shards)
        return [task for wave in waves for task in wave if task and any(task.rows)]

    def _share(self, task: _Task, tokens: int, sequences: int) -> tuple[Tensor, _Share]:
        """One task's part of the loss."""
        rows = [row for of_group in task.rows for row in of_group]
        scores = self._score(task, self._policy)
        valid = scores.valid
        loss = policy_loss(
            scores.logprobs,
            _pad(rows, "start", valid),
            torch.tensor([row.advantage for row in rows]),
            valid,
            self._config.loss,
            tokens_in_step=tokens,
            sequences_in_step=sequences,
            rollout_weights=_pad(rows, "weights", valid) if rows[0].weights is not None else None,
            reference_logprobs=(
                _pad(rows, "reference", valid) if rows[0].reference is not None else None
            ),
        )
        sampled = torch.zeros(valid.shape)
        sampled[valid] = torch.tensor([value for row in rows for value in row.rollout.logprobs])
        return loss.loss, _Share(
            loss.loss.item(),
            loss.clip_fraction.item(),
            loss.clip_fraction_positive.item(),
            loss.clip_fraction_negative.item(),
            loss.kl.item(),
            scores.entropy[valid].sum().item(),
            match_of(scores.logprobs, sampled, valid),
        )


def needs_reference(config: RlConfig) -> bool:
    """Whether the loss has a KL penalty."""
    return not isinstance(config.loss, CispoConfig) and config.loss.kl is not None


def _pad(
    rows: Sequence[_Row], field: str, valid: Bool[Tensor, "row token"]
) -> Float[Tensor, "row token"]:
    """A field of all rows where `valid`, 0 elsewhere."""
    values = torch.zeros(valid.shape)
    values[valid] = torch.cat([getattr(row, field) for row in rows])
    return values


def _unpad(values: Float[Tensor, "row token"], scores: AnswerScores) -> list[Tensor]:
    """The valid values of each row."""
    lengths: list[int] = scores.valid.sum(1).tolist()
    return list(values[scores.valid].split(lengths))
