"""Policy losses: CISPO and the clipped losses of GRPO and DAPO, as pure functions.

CISPO: `loss = -sum(sg(clip(r)) * A * logp) / N`, every token keeps its gradient.
GRPO, DAPO: `loss = sum(max(-A r, -A clip(r))) / N`. r = exp(logp - logp_sampled).

Source: MiniMax-M1 report (arXiv 2506.13585) eq. 4-5; GRPO (arXiv 2402.03300); DAPO
(arXiv 2503.14476) eq. 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CispoConfig:
    """Clipped importance weight, detached; no trust region, no KL."""

    ratio_low: float | None = None
    """Smallest importance weight, as the weight itself; None leaves that side open (the report)."""
    ratio_high: float | None = 5.0
    """Largest importance weight, as the weight itself: 1 + eps_high of eq. 5; None = open."""

    def __post_init__(self) -> None:
        """Refuses bounds that would change on-policy gradients."""
        _check_bounds("CispoConfig", self.ratio_low, self.ratio_high)


@dataclass(frozen=True, kw_only=True)
class GrpoConfig:
    """Pessimistic clipped surrogate; `ratio_high` above 2 - `ratio_low` is DAPO's clip-higher."""

    ratio_low: float | None = 0.8
    """Smallest ratio that still has a gradient when the advantage is negative; None = open."""
    ratio_high: float | None = 1.2
    """Largest ratio that still has a gradient when the advantage is positive; None = open."""
    dual_clip: float | None = None
    """Bound on the loss of negative advantages, as a multiple of -A; None = off (the papers)."""

    def __post_init__(self) -> None:
        """Refuses bounds that would clip an on-policy ratio of 1."""
        _check_bounds("GrpoConfig", self.ratio_low, self.ratio_high)
        if self.dual_clip is not None and self.dual_clip <= 1.0:
            raise ValueError(f"GrpoConfig.dual_clip: found {self.dual_clip!r}; it must be above 1")


def dapo_config() -> GrpoConfig:
    """DAPO's clip-higher bounds, 0.2 below and 0.28 above 1 (also V-Triune's)."""
    return GrpoConfig(ratio_low=0.8, ratio_high=1.28)


PolicyLossConfig = CispoConfig | GrpoConfig

_MAX_LOG_RATIO = 20.0


class PolicyLoss(NamedTuple):
    """Loss share and the share of trained tokens whose weight or ratio was clipped."""

    loss: Float[Tensor, ""]
    clip_fraction: Float[Tensor, ""]


def policy_loss(
    logprobs: Float[Tensor, "rollout token"],
    sampled_logprobs: Float[Tensor, "rollout token"],
    advantages: Float[Tensor, " rollout"],
    trained: Bool[Tensor, "rollout token"],
    config: PolicyLossConfig,
    *,
    tokens_in_step: int | None = None,
) -> PolicyLoss:
    """Token-mean policy loss of a micro-batch.

    Args:
        tokens_in_step: trained tokens of the whole optimizer step, all micro-batches and ranks;
            shares then add up. None = the tokens of this call.
    """
    # e^20 is beyond every bound in use; the clamp keeps 0 * inf out of the clipped side's gradient
    ratio = (logprobs - sampled_logprobs).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp()
    clipped = ratio.clamp(config.ratio_low, config.ratio_high) if _bounded(config) else ratio
    weighted = advantages[:, None]
    if isinstance(config, CispoConfig):
        per_token = -clipped.detach() * weighted * logprobs
        is_clipped = clipped != ratio
    else:
        per_token = torch.maximum(-weighted * ratio, -weighted * clipped)
        is_clipped = -weighted * clipped > -weighted * ratio
        if config.dual_clip is not None:
            bounded = torch.minimum(per_token, -weighted * config.dual_clip)
            per_token = torch.where(weighted < 0, bounded, per_token)
    total = tokens_in_step if tokens_in_step is not None else int(trained.sum())
    if total == 0:
        return PolicyLoss(logprobs.sum() * 0.0, logprobs.new_zeros(()))
    loss = per_token[trained].sum() / total
    return PolicyLoss(loss, (is_clipped & trained).sum() / total)


def _bounded(config: PolicyLossConfig) -> bool:
    return config.ratio_low is not None or config.ratio_high is not None


def _check_bounds(name: str, low: float | None, high: float | None) -> None:
    if low is not None and not 0.0 <= low <= 1.0:
        raise ValueError(
            f"{name}.ratio_low: found {low!r}; bounds are ratios, not margins: use 0 to 1, e.g. "
            "0.8 for an epsilon of 0.2, or None for none"
        )
    if high is not None and high < 1.0:
        raise ValueError(
            f"{name}.ratio_high: found {high!r}; bounds are ratios, not margins: use 1 or more, "
            "e.g. 1.2 for an epsilon of 0.2, or None for none"
        )
