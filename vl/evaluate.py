"""Held-out evaluation: one greedy answer and several samples of every row, judged like training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from data_specs import Sample
from verifiers import FixedIou, IouRule, PoolScoring, ScoreContext, Scoring, Verdict, score_with

from .corpus import Corpus, Picture, owners_of
from .parallel import Shards
from .policy import Policy, Question
from .rollout import Rollout, SamplingConfig, sample_rollouts
from .rundir import Answer, EvalLine
from .seeds import generator_for
from .sight import Sight

HeldoutPose = Callable[[Sample], str]
"""A held-out sample to the user's text without the picture marker."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How held-out rows are answered and judged."""

    num_samples: int = 8
    """Samples a row at temperature 1, beside the greedy answer; 0 = greedy only."""
    max_new_tokens: int = 32
    iou_rule: IouRule = FixedIou(0.5)
    """A box row scores its IoU where that reaches 0.5, else 0, in every phase alike."""
    pictures_per_batch: int = 64
    scoring: Scoring = PoolScoring()
    """Who judges the answers: killable processes, or reward servers (`--scorers`)."""


def evaluate(
    policy: Policy,
    corpus: Corpus,
    pose: HeldoutPose,
    config: EvalConfig,
    *,
    phase: str,
    seed: int,
    shards: Shards,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
    pictures: Sequence[Picture] | None = None,
) -> list[EvalLine]:
    """One line a held-out row, in the order of the corpus.

    Args:
        seed: the samples derive from it and the batch's position, not from the phase, so that two
            phases differ by their weights alone.
        on_batch: called with (pictures done, pictures in all).
        pictures: of the corpus, to be asked about; None = all.
    """
    was_training = policy.model.training
    policy.model.eval()
    size = config.pictures_per_batch
    asked = corpus.pictures if pictures is None else tuple(pictures)
    batches = [
        _Batch(asked[start : start + size], pose, start) for start in range(0, len(asked), size)
    ]

    sight = Sight(policy, corpus, limit_bytes=0)  # each picture is seen once a phase

    def answer(batch: _Batch) -> list[list[Rollout]]:
        return batch.answer(policy, sight, config, seed)

    lines: list[EvalLine] = []
    for first in range(0, len(batches), shards.num_shards):
        some = batches[first : first + shards.num_shards]
        for batch, answers in zip(some, shards.map(answer, some), strict=True):
            lines += batch.judge(answers, config, phase)
            on_batch(batch.start + len(batch.pictures), len(asked))
    policy.model.train(was_training)
    return lines


class _Batch:
    """Some held-out pictures with their rows and prompts."""

    def __init__(self, pictures: Sequence[Picture], pose: HeldoutPose, start: int) -> None:
        self.pictures, self.start = pictures, start
        self.samples = [sample for picture in pictures for sample in picture.samples]
        self.texts = [pose(sample) for sample in self.samples]

    @torch.no_grad()
    def answer(
        self, policy: Policy, sight: Sight, config: EvalConfig, seed: int
    ) -> list[list[Rollout]]:
        """The greedy answer, then the samples, of every row."""
        features = sight.features([picture.index for picture in self.pictures])
        random = generator_for(seed, "evaluate", self.start)
        owned = zip(owners_of(self.pictures), self.texts, strict=True)
        questions = [Question(owner=owner, text=text) for owner, text in owned]
        greedy = SamplingConfig(
            num_rollouts=1, temperature=0.0, max_new_tokens=config.max_new_tokens
        )
        answers = sample_rollouts(policy, features, questions, greedy, random)
        if config.num_samples == 0:
            return answers
        drawn = SamplingConfig(
            num_rollouts=config.num_samples, max_new_tokens=config.max_new_tokens
        )
        more = sample_rollouts(policy, features, questions, drawn, random)
        return [[*first, *rest] for first, rest in zip(answers, more, strict=True)]

    def judge(self, answers: list[list[Rollout]], config: EvalConfig, phase: str) -> list[EvalLine]:
        """One line a row."""
        items = [(s, a.text) for s, group in zip(self.samples, answers, strict=True) for a in group]
        context = ScoreContext(progress=1.0, iou_rule=config.iou_rule)
        verdicts = iter(score_with(config.scoring, items, context))
        lines: list[EvalLine] = []
        for sample, text, group in zip(self.samples, self.texts, answers, strict=True):
            judged = [to_answer(rollout, next(verdicts)) for rollout in group]
            image_id = sample.extra.get("image_id")
            lines.append(
                EvalLine(
                    phase=phase,
                    id=sample.id,
                    source=sample.source,
                    task=sample.task,
                    image_id=None if image_id is None else str(image_id),
                    question=sample.question,
                    prompt=text,
                    reference=sample.reward.answer,
                    ground_truth=sample.reward.ground_truth,
                    greedy=judged[0],
                    samples=judged[1:],
                )
            )
        return lines


def to_answer(rollout: Rollout, verdict: Verdict) -> Answer:
    """A rollout and its verdict as they are logged."""
    return Answer(
        response=rollout.text,
        score=verdict.score,
        format=verdict.format,
        reward=verdict.reward,
        status=verdict.status,
        reason=verdict.reason,
        parts=dict(verdict.parts),
        num_tokens=len(rollout.token_ids),
    )
