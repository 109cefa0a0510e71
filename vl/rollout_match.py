"""How well the probabilities of the update agree with those recorded in sampling (M1, figure 3).

Both come from the same weights, in a step's first update before anything moved, so they should be
equal; what parts them is another engine, kernel or precision. MiniMax-M1 saw a correlation of 0.987
and a reward that did not grow, until the output head was computed in float32 (0.997).

    match = sum((match_of(new, sampled, trained) for ... in shards), RolloutMatch())
    values |= match.metrics();  alarm = alarm_text(match, MatchLimits())

Source: MiniMax-M1 report, arXiv 2506.13585, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_SUMS = ("num_tokens", "sum_p", "sum_q", "sum_pp", "sum_qq", "sum_pq", "sum_difference")


@dataclass(frozen=True, kw_only=True)
class RolloutMatch:
    """Sums over tokens, which add up over shards and ranks; p in the update, q in sampling."""

    num_tokens: float = 0.0
    sum_p: float = 0.0
    sum_q: float = 0.0
    sum_pp: float = 0.0
    sum_qq: float = 0.0
    sum_pq: float = 0.0
    sum_difference: float = 0.0
    """Of |p - q|."""
    max_difference: float = 0.0

    def __add__(self, other: RolloutMatch) -> RolloutMatch:
        sums = [a + b for a, b in zip(self.as_sums(), other.as_sums(), strict=True)]
        return RolloutMatch.from_sums(sums, max(self.max_difference, other.max_difference))

    def as_sums(self) -> list[float]:
        """What is summed over ranks; the largest difference goes apart, by its maximum."""
        return [getattr(self, name) for name in _SUMS]

    @staticmethod
    def from_sums(sums: Sequence[float], max_difference: float) -> RolloutMatch:
        """The whole from the ranks' sums and the largest of their differences."""
        return RolloutMatch(**dict(zip(_SUMS, sums, strict=True)), max_difference=max_difference)

    @property
    def correlation(self) -> float | None:
        """Pearson's, in [-1, 1]; None where the probabilities do not vary."""
        n = self.num_tokens
        if n < 2:
            return None
        variance_p = self.sum_pp - self.sum_p**2 / n
        variance_q = self.sum_qq - self.sum_q**2 / n
        rounding = 1e-13 * max(self.sum_pp, self.sum_qq)  # below it, a variance is rounding alone
        if min(variance_p, variance_q) <= rounding:
            return None
        covariance = self.sum_pq - self.sum_p * self.sum_q / n
        return max(-1.0, min(1.0, covariance / math.sqrt(variance_p * variance_q)))

    @property
    def mean_difference(self) -> float:
        """Mean of |p - q|, in [0, 1]."""
        return self.sum_difference / max(self.num_tokens, 1.0)

    def metrics(self) -> dict[str, float]:
        """Numbers for the log; empty if no token was compared."""
        if not self.num_tokens:
            return {}
        values = {
            "rollout_match/max_difference": self.max_difference,
            "rollout_match/mean_difference": self.mean_difference,
        }
        if self.correlation is not None:
            values["rollout_match/correlation"] = self.correlation
        return values


def match_of(
    logprobs: Float[Tensor, "rollout token"],
    sampled_logprobs: Float[Tensor, "rollout token"],
    trained: Bool[Tensor, "rollout token"],
) -> RolloutMatch:
    """The sums of one batch, in double precision; both log-probs at the sampling temperature."""
    p = logprobs.detach()[trained].double().exp()
    q = sampled_logprobs.detach()[trained].double().exp()
    if not len(p):
        return RolloutMatch()
    gap = (p - q).abs()
    found = torch.stack([p.sum(), q.sum(), p @ p, q @ q, p @ q, gap.sum(), gap.max()]).tolist()
    return RolloutMatch.from_sums([float(len(p)), *found[:-1]], found[-1])


@dataclass(frozen=True, kw_only=True)
class MatchLimits:
    """When to raise the alarm."""

    correlation_min: float | None = 0.99
    """Least correlation, between M1's 0.987 that failed and 0.997 that worked; None = no limit."""
    max_difference: float | None = None
    """Largest allowed difference of one token's probabilities, in (0, 1]; None = no limit."""

    def __post_init__(self) -> None:
        least = self.correlation_min
        if least is not None and not -1.0 <= least < 1.0:
            raise ValueError(
                f"MatchLimits.correlation_min: found {least!r}; use -1 to below 1, or None"
            )
        if self.max_difference is not None and not 0.0 < self.max_difference <= 1.0:
            raise ValueError(
                f"MatchLimits.max_difference: found {self.max_difference!r}; use above 0, up to 1, "
                "or None"
            )


def alarm_text(match: RolloutMatch, limits: MatchLimits) -> str | None:
    """What is wrong and what to do, or None if the two agree well enough."""
    found: list[str] = []
    least, most = limits.correlation_min, limits.max_difference
    if match.num_tokens and not math.isfinite(match.sum_difference):
        found.append("a probability is no number")
    elif least is not None and match.correlation is not None and match.correlation < least:
        found.append(f"correlation {match.correlation:.4f}, at least {least:g} is expected")
    if most is not None and match.max_difference > most:
        found.append(
            f"one token differs by {match.max_difference:.4f}, at most {most:g} is allowed"
        )
    if not found:
        return None
    return (
        f"token probabilities of update and sampling disagree ({'; '.join(found)}). Check that "
        "both use the same weights, temperature and forbidden tokens, without top-p or top-k; "
        "compute the output head in float32; or weigh tokens by a rollout correction"
    )
