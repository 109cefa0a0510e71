"""Whether rollouts of a few rows of each source differ in score: what RL would learn from."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import torch

from verifiers import ScoreContext, score_with
from vl.advantages import group_advantages
from vl.corpus import Picture
from vl.policy import Question
from vl.rollout import sample_rollouts
from vl.seeds import generator_for
from vl.sight import Sight

from .prepare import Run

ROWS_PER_SOURCE = 4


class SourceSpread(NamedTuple):
    """Of the sampled groups of one source."""

    num_groups: int
    score: float
    """Mean over the scored rollouts, in [0, 1]; 0 if none is scored."""
    spread_frac: float
    """Share of groups whose rewards differ."""
    unscored_frac: float


def sample_spread(run: Run) -> dict[str, SourceSpread]:
    """Groups of `ROWS_PER_SOURCE` rows of each source that RL takes, with the present weights."""
    recipe = run.recipe
    pictures: dict[str, list[Picture]] = defaultdict(list)
    for picture in run.train.pictures:
        if recipe.data.rl_weights.get(picture.source, 1.0) > 0.0:
            pictures[picture.source].append(picture)
    return {source: _sample(run, found) for source, found in pictures.items()}


@torch.no_grad()
def _sample(run: Run, pictures: list[Picture]) -> SourceSpread:
    recipe, policy = run.recipe, run.policy
    rows: dict[tuple[int, int], Picture] = {}
    for number in range(ROWS_PER_SOURCE):  # pictures from all over the source
        picture = pictures[number * len(pictures) // ROWS_PER_SOURCE]
        rows[picture.index, number % len(picture.samples)] = picture
    samples = [picture.samples[row] for (_, row), picture in rows.items()]
    features = Sight(policy, run.train).features([index for index, _ in rows])
    questions = [Question(owner=i, text=run.pose(s, 0)) for i, s in enumerate(samples)]
    random = generator_for(recipe.seed, f"preflight/{samples[0].source}", 0)
    groups = sample_rollouts(policy, features, questions, recipe.rl.sampling, random)
    items = [(s, r.text) for s, group in zip(samples, groups, strict=True) for r in group]
    context = ScoreContext(progress=0.0, iou_rule=recipe.rl.iou_rule)
    verdicts = score_with(recipe.rl.scoring, items, context)
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    size = recipe.rl.sampling.num_rollouts
    spread = [
        group_advantages(
            [verdict.reward for verdict in verdicts[start : start + size]], recipe.rl.advantage
        ).has_spread
        for start in range(0, len(verdicts), size)
    ]
    return SourceSpread(
        num_groups=len(samples),
        score=sum(scores) / max(len(scores), 1),
        spread_frac=sum(spread) / len(spread),
        unscored_frac=1.0 - len(scores) / len(verdicts),
    )
