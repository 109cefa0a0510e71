"""DAPO's dynamic sampling: groups whose rewards are all the same are replaced by further samples.

A planner without tensors: it is fed judged groups, says how many more to draw, and gives the kept
ones in the order in which they were fed, so that a step is the same however it is interrupted.

    plan = SamplingPlan(16, DynamicSampling())
    while plan.num_to_draw:
        groups = judge(draw(plan.num_to_draw))
        plan.feed(groups, [Judged(g.sample.source, g.has_spread, g.num_scored) for g in groups])
    update(plan.kept)

Source: DAPO (arXiv 2503.14476) section 3.2; MiniMax-M1 takes it over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

Group = TypeVar("Group")


@dataclass(frozen=True, kw_only=True)
class DynamicSampling:
    """How far to go for groups that can be learnt from."""

    max_extra_batches: int = 3
    """Groups drawn beyond the step's own are at most this many times those; with the limit reached
    the step goes on with the groups it has."""

    def __post_init__(self) -> None:
        if self.max_extra_batches < 1:
            raise ValueError(
                f"DynamicSampling.max_extra_batches: found {self.max_extra_batches!r}; use 1 or "
                "more, or None instead of DynamicSampling for no replacement"
            )


class Judged(NamedTuple):
    """What the plan needs to know of a group."""

    source: str
    has_spread: bool
    """As `vl.advantages.group_advantages` says."""
    num_scored: int
    """Rollouts with a score; with fewer than two, the group is lost to our own faults."""


@dataclass
class SourceCounts:
    """Groups of one source in a step."""

    drawn: int = 0
    kept: int = 0
    no_spread: int = 0
    unscored: int = 0
    """Dropped because fewer than two rollouts had a score."""
    surplus: int = 0
    """Good, but drawn after the step was full."""


class SamplingPlan(Generic[Group]):
    """The groups of one step, filled up until there are `num_groups` with spread.

    Args:
        num_groups: groups that the step should update on.
        config: None keeps every group of the one batch, as without dynamic sampling.
    """

    def __init__(self, num_groups: int, config: DynamicSampling | None) -> None:
        if num_groups < 1:
            raise ValueError(f"SamplingPlan: num_groups is {num_groups!r}; it must be at least 1")
        self.num_groups, self.config = num_groups, config
        self.kept: list[Group] = []
        self.counts: dict[str, SourceCounts] = {}
        self.num_drawn = 0

    @property
    def num_to_draw(self) -> int:
        """Groups to draw next, 0 when the step is full or the limit is reached.

        As many as are missing, over the share kept so far; at most `num_groups` at once.
        """
        if self.num_drawn == 0:
            return self.num_groups
        if self.config is None:
            return 0
        missing = self.num_groups - len(self.kept)
        left = self.num_groups * (1 + self.config.max_extra_batches) - self.num_drawn
        if missing <= 0 or left <= 0:
            return 0
        wanted = -(-missing * self.num_drawn // max(len(self.kept), 1))
        return min(wanted, self.num_groups, left)

    def feed(self, groups: Sequence[Group], judged: Sequence[Judged]) -> None:
        """Takes the drawn groups, which may be more or fewer than was asked for, but not none."""
        if not groups:
            raise ValueError("SamplingPlan.feed: found no group; the data has run out")
        for group, one in zip(groups, judged, strict=True):
            counts = self.counts.setdefault(one.source, SourceCounts())
            counts.drawn += 1
            if self.config is not None and one.num_scored < 2:
                counts.unscored += 1
            elif self.config is not None and not one.has_spread:
                counts.no_spread += 1
            elif self.config is not None and len(self.kept) >= self.num_groups:
                counts.surplus += 1
            else:
                counts.kept += 1
                self.kept.append(group)
        self.num_drawn += len(groups)

    def metrics(self) -> dict[str, float]:
        """Counts of the step, in all and by source; empty without dynamic sampling."""
        if self.config is None:
            return {}
        values: dict[str, float] = {"sampling/missing": float(self.num_groups - len(self.kept))}
        for name in ("drawn", "kept", "no_spread", "unscored", "surplus"):
            by_source = {source: getattr(c, name) for source, c in sorted(self.counts.items())}
            values[f"sampling/{name}"] = float(sum(by_source.values()))
            for source, count in by_source.items():
                values[f"source/{source}/sampling/{name}"] = float(count)
        return values
