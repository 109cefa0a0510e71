"""Log-probability and entropy of answer tokens from the states before them, logits never kept."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

_LOGITS_AT_ONCE = 2**25
"""Beyond that (134 MB) states are taken in pieces, whose logits are computed again for the
gradient."""


def token_scores(
    states: Float[Tensor, "token hidden"],
    weight: Float[Tensor, "vocab hidden"],
    bias: Float[Tensor, " vocab"],
    targets: Int[Tensor, " token"],
) -> tuple[Float[Tensor, " token"], Float[Tensor, " token"]]:
    """(log-probability of each target, entropy in nats without gradient), float32.

    A bias of minus infinity takes a token out of the distribution.
    """
    size = max(1, _LOGITS_AT_ONCE // len(weight))
    if len(states) <= size:
        return _at_once(states, weight, bias, targets)
    found = [
        cast("Any", checkpoint(_at_once, part, weight, bias, target, use_reentrant=False))
        for part, target in zip(states.split(size), targets.split(size), strict=True)
    ]
    return torch.cat([each[0] for each in found]), torch.cat([each[1] for each in found])


def _at_once(
    states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    logits = F.linear(states, weight, bias).float()
    found = _Scores.apply(logits, targets)
    return found[0], found[1]


class _Scores(torch.autograd.Function):
    """log_softmax and entropy that keep the probabilities only: the gradient needs no more."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        every = logits.log_softmax(-1)
        probs = every.exp()
        picked = every.gather(-1, targets[:, None])[:, 0]
        # 0 * -inf of a forbidden token is 0 here
        every.clamp_min_(torch.finfo(every.dtype).min)
        entropy = -(probs[:, None] @ every[:, :, None])[:, 0, 0]
        ctx.save_for_backward(probs, targets)
        ctx.mark_non_differentiable(entropy)
        return picked, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        probs, targets = ctx.saved_tensors
        grad = probs * -grads[0][:, None]
        grad.scatter_add_(1, targets[:, None], grads[0][:, None])
        return grad, None
