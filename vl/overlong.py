"""DAPO's soft overlong penalty: rollouts that near the length limit lose reward, bit by bit.

Source: DAPO (arXiv 2503.14476) eq. 13; MiniMax-M1 takes it over.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OverlongPenalty:
    """No penalty up to `max_tokens - margin_tokens`, then falling linearly to the full one."""

    max_tokens: int = 20_480
    """Length from which the whole penalty is due, usually the sampling limit."""
    margin_tokens: int = 4_096
    """Over how many tokens before that it sets in (DAPO's cache)."""
    weight: float = 1.0
    """The whole penalty, in units of reward."""

    def __post_init__(self) -> None:
        if not 1 <= self.margin_tokens <= self.max_tokens or not self.weight > 0.0:
            raise ValueError(
                f"OverlongPenalty: found max_tokens {self.max_tokens!r}, margin_tokens "
                f"{self.margin_tokens!r} and weight {self.weight!r}; the margin is 1 to "
                "max_tokens, the weight above 0; use None for no penalty"
            )


def overlong_penalty(num_tokens: int, config: OverlongPenalty) -> float:
    """What to add to the reward of a rollout of this length, in [-weight, 0]."""
    excess = num_tokens - (config.max_tokens - config.margin_tokens)
    return -config.weight * min(1.0, max(0.0, excess / config.margin_tokens))
