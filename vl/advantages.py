"""Group-relative advantages: how much better a rollout is than its siblings.

Source: GRPO (arXiv 2402.03300) section 4.1; without the deviation, Dr. GRPO (arXiv 2503.20783).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True, kw_only=True)
class AdvantageConfig:
    """How rewards of a group become advantages."""

    divide_by_std: bool = True
    """False = Dr. GRPO: reward minus mean only."""
    spread_tolerance: float = 1e-9
    """A group whose rewards lie within this range has no spread and gives no advantage. The default
    is a thousand times the rounding of rewards that are summed in other orders, and a hundredth of
    the 1e-7 of single precision, which is damped by `std_epsilon` (to 0.07) as peers damp it.
    0: only equal rewards have none."""
    std_epsilon: float = 1e-6
    """Added to the deviation, as verl does."""
    ddof: Literal[0, 1] = 1
    """1: deviation of a sample, over n - 1; 0: of a population, over n. The papers do not say;
    peers use 1."""

    def __post_init__(self) -> None:
        """Refuses settings that would divide by nothing."""
        if not self.spread_tolerance >= 0.0 or not self.std_epsilon >= 0.0:
            raise ValueError(
                f"AdvantageConfig: found spread_tolerance {self.spread_tolerance!r} and "
                f"std_epsilon {self.std_epsilon!r}; both must be at least 0"
            )
        if self.ddof not in (0, 1):
            raise ValueError(
                f"AdvantageConfig.ddof: found {self.ddof!r}; use 1 (sample) or 0 (population)"
            )


class GroupAdvantages(NamedTuple):
    """Advantages of one group; None where a rollout is left out of the update."""

    advantages: list[float | None]
    has_spread: bool


def group_advantages(
    rewards: Sequence[float | None], config: AdvantageConfig = AdvantageConfig()
) -> GroupAdvantages:
    """(reward - mean) / deviation over the scored rollouts of one group.

    Unscored rollouts (None) take no part and get None. A group with fewer than two scored rollouts,
    or without spread, gives 0 to its scored ones: nothing can be learnt from it.

    Raises:
        ValueError: a group of one rollout, which has no siblings to compare with.
    """
    if len(rewards) < 2:
        raise ValueError(
            f"a group of {len(rewards)} rollout has no relative advantage; sample at least 2 "
            "a prompt"
        )
    scored = [reward for reward in rewards if reward is not None]
    spread = max(scored) - min(scored) if scored else 0.0
    if len(scored) < 2 or spread <= config.spread_tolerance:
        return GroupAdvantages([None if r is None else 0.0 for r in rewards], False)
    mean = sum(scored) / len(scored)
    scale = 1.0
    if config.divide_by_std:
        variance = sum((r - mean) ** 2 for r in scored) / (len(scored) - config.ddof)
        scale = variance**0.5 + config.std_epsilon
    return GroupAdvantages([None if r is None else (r - mean) / scale for r in rewards], True)
