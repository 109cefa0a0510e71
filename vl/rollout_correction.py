"""Weights that correct for rollouts sampled by another engine than the one that trains.

With r = exp(logp_train - logp_rollout), both from the weights at the start of the step, the loss of
a token is multiplied by a constant weight made from r. This is apart from the ratio of the policy
loss, which covers what the weights have moved since.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_MAX_LOG_RATIO = 20.0


@dataclass(frozen=True, kw_only=True)
class RolloutCorrection:
    """How the ratio becomes a weight."""

    level: Literal["token", "sequence", "geometric"] = "token"
    """token: each token's ratio. sequence: the product over a rollout. geometric: the mean of a
    rollout's log ratios, exponentiated, which does not explode with length."""
    action: Literal["truncate", "mask"] = "truncate"
    """truncate: the ratio, at most `ratio_high` and at least `ratio_low`. mask: 0 outside the
    bounds; inside the ratio itself, or 1 if the level is geometric."""
    ratio_low: float | None = None
    """Lower bound, as the ratio itself, at most 1; None = none."""
    ratio_high: float = 2.0
    """Upper bound, as the ratio itself, at least 1."""

    def __post_init__(self) -> None:
        low = 0.0 if self.ratio_low is None else self.ratio_low
        if not 0.0 <= low <= 1.0 <= self.ratio_high:
            raise ValueError(
                f"RolloutCorrection: found ratio_low {self.ratio_low!r} and ratio_high "
                f"{self.ratio_high!r}; they are ratios, the one at most 1, the other at least 1"
            )


def rollout_correction(
    train_logprobs: Float[Tensor, "rollout token"],
    rollout_logprobs: Float[Tensor, "rollout token"],
    trained: Bool[Tensor, "rollout token"],
    config: RolloutCorrection,
) -> Float[Tensor, "rollout token"]:
    """The weight of each token, 0 where it is not trained; no gradient.

    Both log-probs must be those at the sampling temperature, without top-k or top-p.
    Source: truncated importance sampling, arXiv 2505.24298 section 5 and the peers' code.
    """
    gap = torch.where(trained, train_logprobs.detach() - rollout_logprobs, 0.0)
    if config.level != "token":
        gap = gap.sum(dim=1, keepdim=True).expand_as(gap)
    if config.level == "geometric":
        gap = gap / trained.sum(dim=1, keepdim=True).clamp(min=1)
    ratio = gap.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp()
    if config.action == "truncate":
        weights = ratio.clamp(config.ratio_low, config.ratio_high)
    else:
        low = 0.0 if config.ratio_low is None else config.ratio_low
        is_inside = (ratio >= low) & (ratio <= config.ratio_high)
        inside = torch.ones_like(ratio) if config.level == "geometric" else ratio
        weights = torch.where(is_inside, inside, 0.0)
    return torch.where(trained, weights, 0.0)
