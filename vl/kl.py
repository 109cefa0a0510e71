"""Estimates of KL(policy, reference) from the tokens that were sampled.

With d = logp_reference - logp: k1 = -d, k2 = d^2 / 2, k3 = exp(d) - d - 1.
Source: J. Schulman, "Approximating KL divergence" (2020); GRPO (arXiv 2402.03300) eq. 4 is k3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

KlEstimator = Literal["k1", "k2", "k3"]

_MAX_LOG_RATIO = 20.0


@dataclass(frozen=True, kw_only=True)
class KlConfig:
    """A penalty for leaving the reference model, added to the loss of every token."""

    coefficient: float = 1e-3
    """Weight of the estimate, above 0."""
    estimator: Literal["k2", "k3"] = "k3"
    """k3 has the lower variance, k2 the right gradient for on-policy samples. k1 only measures:
    as a loss its gradient has mean zero, so that it holds nothing back."""

    def __post_init__(self) -> None:
        if self.estimator not in ("k2", "k3"):
            raise ValueError(
                f"KlConfig.estimator: found {self.estimator!r}; allowed: k2 or k3. The gradient of "
                "k1 has mean zero, so as a penalty it does nothing"
            )
        if not self.coefficient > 0.0:
            raise ValueError(
                f"KlConfig.coefficient: found {self.coefficient!r}; it must be above 0; leave the "
                "penalty out (kl=None) to have none"
            )


def kl_estimate(
    logprobs: Float[Tensor, "*shape"],
    reference_logprobs: Float[Tensor, "*shape"],
    estimator: KlEstimator,
) -> Float[Tensor, "*shape"]:
    """The estimate of each token, in nats; differentiable in `logprobs`."""
    gap = (reference_logprobs.detach() - logprobs).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    if estimator == "k1":
        return -gap
    if estimator == "k2":
        return 0.5 * gap.square()
    return gap.exp() - gap - 1.0
