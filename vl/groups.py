"""Groups: the rollouts of one sample with their verdicts, and advantages relative to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from data_specs import Sample
from verifiers import ScoreContext, Scoring, Verdict, score_with

from .advantages import AdvantageConfig, group_advantages
from .overlong import OverlongPenalty, overlong_penalty
from .processes import ALONE, Processes
from .rollout import Rollout


class Asked(NamedTuple):
    """One sample as it was posed, and the answers drawn."""

    sample: Sample
    picture_index: int
    prompt: str
    rollouts: list[Rollout]


class Group(NamedTuple):
    """One sample, its rollouts, their verdicts and advantages (None = left out)."""

    sample: Sample
    picture_index: int
    prompt: str
    rollouts: list[Rollout]
    verdicts: list[Verdict]
    advantages: list[float | None]
    has_spread: bool


def judge(
    asked: Sequence[Asked],
    scoring: Scoring,
    context: ScoreContext,
    config: AdvantageConfig,
    overlong: OverlongPenalty | None = None,
    *,
    processes: Processes = ALONE,
) -> list[Group]:
    """A group for each sample asked, in order; advantages are of rewards less length penalties.

    Each of several processes judges its part, and all get every verdict.
    """
    items = [(one.sample, rollout.text) for one in asked for rollout in one.rollouts]
    mine = [items[position] for position in processes.own(len(items))]
    verdicts = iter(processes.gather(score_with(scoring, mine, context)))
    groups: list[Group] = []
    for one in asked:
        judged = [next(verdicts) for _ in one.rollouts]
        rewards = [verdict.reward for verdict in judged]
        if overlong is not None:
            rewards = [
                None
                if reward is None
                else reward + overlong_penalty(len(rollout.token_ids), overlong)
                for reward, rollout in zip(rewards, one.rollouts, strict=True)
            ]
        relative = group_advantages(rewards, config)
        groups.append(Group(*one, judged, *relative))
    return groups


def by_picture(groups: Sequence[Group]) -> list[list[Group]]:
    """Consecutive groups of one picture."""
    runs: list[list[Group]] = []
    for group in groups:
        if runs and runs[-1][0].picture_index == group.picture_index:
            runs[-1].append(group)
        else:
            runs.append([group])
    return runs
