"""Policy losses: CISPO, the clipped losses of GRPO, DAPO and Dr. GRPO, and GSPO, as pure functions.

CISPO:       per token `-sg(clip(r)) * A * logp`, every token keeps its gradient.
GRPO, DAPO:  per token `max(-A r, -A clip(r))`.
GSPO:        the same with one ratio a sequence, `s = exp(mean of its log ratios)`.
r = exp(logp - logp_sampled). How tokens become one number is the loss's aggregation.

Source: MiniMax-M1 report (arXiv 2506.13585) eq. 4-7; GRPO (arXiv 2402.03300) eq. 3; DAPO
(arXiv 2503.14476) eq. 8; Dr. GRPO (arXiv 2503.20783) section 3; GSPO (arXiv 2507.18071) eq. 5-7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .kl import KlConfig, kl_estimate


@dataclass(frozen=True, kw_only=True)
class TokenMean:
    """Every trained token of the step weighs the same: CISPO, DAPO, V-Triune."""

    kind: Literal["token_mean"] = "token_mean"


@dataclass(frozen=True, kw_only=True)
class SequenceMean:
    """Every rollout weighs the same, its tokens share its weight: GRPO, GSPO."""

    kind: Literal["sequence_mean"] = "sequence_mean"


@dataclass(frozen=True, kw_only=True)
class ConstantLength:
    """Sum of tokens over a constant, mean over rollouts: Dr. GRPO, which has no length bias."""

    divisor_tokens: int
    """The constant, usually the longest allowed response."""
    kind: Literal["constant_length"] = "constant_length"

    def __post_init__(self) -> None:
        if self.divisor_tokens < 1:
            raise ValueError(
                f"ConstantLength.divisor_tokens: found {self.divisor_tokens!r}; use 1 or more"
            )


Aggregation = TokenMean | SequenceMean | ConstantLength


@dataclass(frozen=True, kw_only=True)
class CispoConfig:
    """Clipped importance weight, detached; no trust region, no KL."""

    ratio_low: float | None = None
    """Smallest importance weight, as the weight itself; None leaves that side open (the report)."""
    ratio_high: float | None = 5.0
    """Largest importance weight, as the weight itself: 1 + eps_high of eq. 5; None = open."""
    mask_low: float | None = None
    """Tokens with a negative advantage and a ratio below this are left out (eq. 7); None = none."""
    mask_high: float | None = None
    """Tokens with a positive advantage and a ratio above this are left out (eq. 7); None = none."""
    aggregation: Aggregation = TokenMean()
    algorithm: Literal["cispo"] = "cispo"

    def __post_init__(self) -> None:
        """Refuses bounds that would change on-policy gradients."""
        _check_bounds("CispoConfig.ratio", self.ratio_low, self.ratio_high)
        _check_bounds("CispoConfig.mask", self.mask_low, self.mask_high)


@dataclass(frozen=True, kw_only=True)
class GrpoConfig:
    """Pessimistic clipped surrogate; `ratio_high` above 2 - `ratio_low` is DAPO's clip-higher."""

    ratio_low: float | None = 0.8
    """Smallest ratio that still has a gradient when the advantage is negative; None = open."""
    ratio_high: float | None = 1.2
    """Largest ratio that still has a gradient when the advantage is positive; None = open."""
    dual_clip: float | None = None
    """Bound on the loss of negative advantages, as a multiple of -A; None = off (the papers)."""
    aggregation: Aggregation = TokenMean()
    kl: KlConfig | None = None
    """Penalty for leaving a reference model; None = none, and no reference model is needed."""
    algorithm: Literal["grpo"] = "grpo"

    def __post_init__(self) -> None:
        """Refuses bounds that would clip an on-policy ratio of 1."""
        _check_bounds("GrpoConfig.ratio", self.ratio_low, self.ratio_high)
        if self.dual_clip is not None and self.dual_clip <= 1.0:
            raise ValueError(f"GrpoConfig.dual_clip: found {self.dual_clip!r}; it must be above 1")


@dataclass(frozen=True, kw_only=True)
class GspoConfig:
    """GRPO's clip on one ratio a sequence, the geometric mean of its tokens' ratios."""

    ratio_low: float | None = 1.0 - 3e-4
    """Smallest sequence ratio that still has a gradient when the advantage is negative."""
    ratio_high: float | None = 1.0 + 4e-4
    """Largest sequence ratio that still has a gradient when the advantage is positive."""
    aggregation: Aggregation = SequenceMean()
    kl: KlConfig | None = None
    """Penalty for leaving a reference model; None = none."""
    algorithm: Literal["gspo"] = "gspo"

    def __post_init__(self) -> None:
        """Refuses bounds that would clip an on-policy ratio of 1."""
        _check_bounds("GspoConfig.ratio", self.ratio_low, self.ratio_high)


PolicyLossConfig = CispoConfig | GrpoConfig | GspoConfig


def cispo_config(
    *,
    ratio_low: float | None = None,
    ratio_high: float | None = None,
    eps_low: float | None = None,
    eps_high: float | None = None,
) -> CispoConfig:
    """CISPO with its bounds as weights, or as the report's margins around 1 (eq. 5).

    With neither form a bound has its default: no floor, and a cap of 5.

    Raises:
        ValueError: both forms of one bound, or a cap below 1: peers that read a cap of 0.2 as the
            weight itself make every gradient five times too small.
    """
    for side, ratio, eps in (("low", ratio_low, eps_low), ("high", ratio_high, eps_high)):
        if ratio is not None and eps is not None:
            raise ValueError(
                f"cispo_config: found ratio_{side} {ratio!r} and eps_{side} {eps!r}; they "
                f"are one bound (ratio_{side} = 1 {'-' if side == 'low' else '+'} eps_{side}), "
                "give one of them"
            )
        if eps is not None and not eps >= 0.0:
            raise ValueError(f"cispo_config: found eps_{side} {eps!r}; a margin is at least 0")
    if eps_low is not None:  # a margin of 1 or more reaches below every weight: no floor
        ratio_low = 1.0 - eps_low if eps_low < 1.0 else None
    if eps_high is not None:
        ratio_high = 1.0 + eps_high
    if ratio_high is None:
        return CispoConfig(ratio_low=ratio_low)
    return CispoConfig(ratio_low=ratio_low, ratio_high=ratio_high)


def grpo_config() -> GrpoConfig:
    """GRPO as published: 0.2 on both sides, every rollout weighs the same."""
    return GrpoConfig(aggregation=SequenceMean())


def dapo_config() -> GrpoConfig:
    """DAPO's clip-higher bounds, 0.2 below and 0.28 above 1 (also V-Triune's), token-mean."""
    return GrpoConfig(ratio_low=0.8, ratio_high=1.28)


def dr_grpo_config(divisor_tokens: int) -> GrpoConfig:
    """Dr. GRPO's loss; give its advantages `AdvantageConfig(divide_by_std=False)` as well."""
    return GrpoConfig(aggregation=ConstantLength(divisor_tokens=divisor_tokens))


_MAX_LOG_RATIO = 20.0


class PolicyLoss(NamedTuple):
    """Loss share, and shares of the step's trained tokens."""

    loss: Float[Tensor, ""]
    clip_fraction: Float[Tensor, ""]
    """Tokens whose weight or ratio was clipped, or that were masked."""
    clip_fraction_positive: Float[Tensor, ""]
    """Those of them with a positive advantage."""
    clip_fraction_negative: Float[Tensor, ""]
    """Those of them with a negative advantage."""
    kl: Float[Tensor, ""]
    """Share of the mean KL estimate a token; 0 without a reference."""


def policy_loss(
    logprobs: Float[Tensor, "rollout token"],
    sampled_logprobs: Float[Tensor, "rollout token"],
    advantages: Float[Tensor, " rollout"] | Float[Tensor, "rollout token"],
    trained: Bool[Tensor, "rollout token"],
    config: PolicyLossConfig,
    *,
    tokens_in_step: int | None = None,
    sequences_in_step: int | None = None,
    rollout_weights: Float[Tensor, "rollout token"] | None = None,
    reference_logprobs: Float[Tensor, "rollout token"] | None = None,
) -> PolicyLoss:
    """A micro-batch's share of the policy loss of its optimizer step.

    Args:
        advantages: of each rollout, or of each token.
        trained: True for tokens that the loss is of; a rollout without one does not count.
        tokens_in_step: trained tokens of the whole optimizer step, all micro-batches and ranks;
            shares then add up. None = the tokens of this call.
        sequences_in_step: the same for rollouts with at least one trained token.
        rollout_weights: constant factor of each token's loss, from `rollout_correction`.
        reference_logprobs: needed if, and only if, the config has a KL penalty.

    Raises:
        ValueError: a KL penalty without reference, or a reference without one.
    """
    penalty = None if isinstance(config, CispoConfig) else config.kl
    if (penalty is None) != (reference_logprobs is None):
        raise ValueError(
            f"policy_loss: kl is {penalty!r} and reference_logprobs "
            f"{'are missing' if reference_logprobs is None else 'are given'}; give both or neither"
        )
    weighted = advantages if advantages.ndim == 2 else advantages[:, None].expand_as(logprobs)
    per_token, is_clipped = _per_token(logprobs, sampled_logprobs, weighted, trained, config)
    if rollout_weights is not None:
        per_token = per_token * rollout_weights.detach()
    total = tokens_in_step if tokens_in_step is not None else int(trained.sum())
    zero = logprobs.new_zeros(())
    if total == 0:
        return PolicyLoss(logprobs.sum() * 0.0, zero, zero, zero, zero)
    kl = zero
    if penalty is not None and reference_logprobs is not None:
        estimate = kl_estimate(logprobs, reference_logprobs, penalty.estimator)
        per_token = per_token + penalty.coefficient * estimate
        kl = estimate.detach()[trained].sum() / total
    clipped = is_clipped & trained
    return PolicyLoss(
        _aggregate(per_token, trained, config.aggregation, total, sequences_in_step),
        clipped.sum() / total,
        (clipped & (weighted > 0)).sum() / total,
        (clipped & (weighted < 0)).sum() / total,
        kl,
    )


def effective_range(config: PolicyLossConfig) -> str:
    """The range of weights or ratios that the bounds leave, in words, for a run's plan."""
    low = "0" if config.ratio_low is None else f"{config.ratio_low:g}"
    high = "infinity" if config.ratio_high is None else f"{config.ratio_high:g}"
    if isinstance(config, CispoConfig):
        masks = ""
        if config.mask_low is not None or config.mask_high is not None:
            masks = (
                f", tokens masked below {config.mask_low} (A < 0), above {config.mask_high} (A > 0)"
            )
        return (
            f"CISPO: importance weights in [{low}, {high}], every token keeps its gradient{masks}"
        )
    name = "GSPO: sequence ratios" if isinstance(config, GspoConfig) else "clipped: token ratios"
    return f"{name} keep their gradient up to {high} (A > 0) and down to {low} (A < 0)"


def _per_token(
    logprobs: Float[Tensor, "rollout token"],
    sampled_logprobs: Float[Tensor, "rollout token"],
    weighted: Float[Tensor, "rollout token"],
    trained: Bool[Tensor, "rollout token"],
    config: PolicyLossConfig,
) -> tuple[Float[Tensor, "rollout token"], Bool[Tensor, "rollout token"]]:
    """Loss of each token, and whether its bound cut it."""
    # e^20 is beyond every bound in use; the clamp keeps 0 * inf out of the clipped side's gradient
    log_ratio = (logprobs - sampled_logprobs).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    if isinstance(config, GspoConfig):
        log_ratio = _sequence_log_ratio(log_ratio, trained)
    ratio = log_ratio.exp()
    is_bounded = config.ratio_low is not None or config.ratio_high is not None
    clipped = ratio.clamp(config.ratio_low, config.ratio_high) if is_bounded else ratio
    if isinstance(config, CispoConfig):
        kept = _kept(ratio.detach(), weighted, config)
        return -clipped.detach() * weighted * logprobs * kept, (clipped != ratio) | ~kept
    per_token = torch.maximum(-weighted * ratio, -weighted * clipped)
    is_clipped = -weighted * clipped > -weighted * ratio
    if isinstance(config, GrpoConfig) and config.dual_clip is not None:
        bounded = torch.minimum(per_token, -weighted * config.dual_clip)
        per_token = torch.where(weighted < 0, bounded, per_token)
    return per_token, is_clipped


def _kept(
    ratio: Float[Tensor, "rollout token"],
    weighted: Float[Tensor, "rollout token"],
    config: CispoConfig,
) -> Bool[Tensor, "rollout token"]:
    """The mask of eq. 7: False where going on would leave the trust region."""
    kept = torch.ones_like(ratio, dtype=torch.bool)
    if config.mask_high is not None:
        kept &= ~((weighted > 0) & (ratio > config.mask_high))
    if config.mask_low is not None:
        kept &= ~((weighted < 0) & (ratio < config.mask_low))
    return kept


def _sequence_log_ratio(
    log_ratio: Float[Tensor, "rollout token"], trained: Bool[Tensor, "rollout token"]
) -> Float[Tensor, "rollout token"]:
    """The mean over each rollout's trained tokens, at every token."""
    counts = trained.sum(dim=1, keepdim=True).clamp(min=1)
    mean = torch.where(trained, log_ratio, 0.0).sum(dim=1, keepdim=True) / counts
    return mean.expand_as(log_ratio)


def _aggregate(
    per_token: Float[Tensor, "rollout token"],
    trained: Bool[Tensor, "rollout token"],
    aggregation: Aggregation,
    tokens_in_step: int,
    sequences_in_step: int | None,
) -> Float[Tensor, ""]:
    """One number; rollouts without a trained token do not count."""
    kept = torch.where(trained, per_token, 0.0)
    if isinstance(aggregation, TokenMean):
        return kept.sum() / tokens_in_step
    counts = trained.sum(dim=1)
    total = sequences_in_step if sequences_in_step is not None else int((counts > 0).sum())
    if isinstance(aggregation, ConstantLength):
        return kept.sum() / (aggregation.divisor_tokens * total)
    return (kept.sum(dim=1) / counts.clamp(min=1)).sum() / total


def _check_bounds(name: str, low: float | None, high: float | None) -> None:
    if low is not None and not 0.0 <= low <= 1.0:
        raise ValueError(
            f"{name}_low: found {low!r}; bounds are ratios, not margins: use 0 to 1, e.g. "
            "0.8 for an epsilon of 0.2, or None for none"
        )
    if high is not None and not high >= 1.0:
        raise ValueError(
            f"{name}_high: found {high!r}; bounds are ratios, not margins: use 1 or more, "
            "e.g. 1.2 for an epsilon of 0.2, or None for none"
        )
