"""Whole algorithms by name: a loss with the advantages and the sampling of its paper.

Source: the papers named in `vl.losses`, as read in their tables of settings.
"""

from __future__ import annotations

from dataclasses import dataclass

from .advantages import AdvantageConfig
from .dynamic_sampling import DynamicSampling
from .losses import (
    CispoConfig,
    GspoConfig,
    PolicyLossConfig,
    dapo_config,
    dr_grpo_config,
    effective_range,
    grpo_config,
)
from .overlong import OverlongPenalty


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """What decides how rewards move weights."""

    loss: PolicyLossConfig
    advantage: AdvantageConfig = AdvantageConfig()
    overlong: OverlongPenalty | None = None
    """None = length is not punished."""
    dynamic_sampling: DynamicSampling | None = None
    """None = groups without spread stay, and have no gradient."""


ALGORITHM_NAMES = ("cispo", "grpo", "dapo", "dr_grpo", "gspo", "v_triune")


def algorithm(name: str, *, max_new_tokens: int) -> Algorithm:
    """The algorithm of a name, for rollouts of at most this many tokens.

    The overlong penalty sets in over the last fifth, DAPO's 4,096 of 20,480 tokens; Dr. GRPO
    divides by the length limit.
    """
    penalty = OverlongPenalty(max_tokens=max_new_tokens, margin_tokens=max(1, max_new_tokens // 5))
    dapo = Algorithm(loss=dapo_config(), overlong=penalty, dynamic_sampling=DynamicSampling())
    known = {
        # M1 takes dynamic sampling and the length penalty over from DAPO
        "cispo": Algorithm(
            loss=CispoConfig(), overlong=penalty, dynamic_sampling=DynamicSampling()
        ),
        # departs from GRPO: without its KL penalty, which needs a reference model; set loss.kl
        "grpo": Algorithm(loss=grpo_config()),
        "dapo": dapo,
        "dr_grpo": Algorithm(
            loss=dr_grpo_config(max_new_tokens), advantage=AdvantageConfig(divide_by_std=False)
        ),
        "gspo": Algorithm(loss=GspoConfig()),
        # V-Triune's paper: DAPO's bounds and token mean, neither penalty nor replacement
        "v_triune": Algorithm(loss=dapo_config()),
    }
    if name not in known:
        raise ValueError(f"algorithm: found {name!r}; known: {', '.join(ALGORITHM_NAMES)}")
    return known[name]


def describe(chosen: Algorithm) -> list[str]:
    """What the settings amount to, a line each, for a run's plan."""
    lines = [effective_range(chosen.loss), f"loss: {_aggregation(chosen.loss)}"]
    if not chosen.advantage.divide_by_std:
        lines.append("advantages: reward minus the group's mean, not divided by its deviation")
    if chosen.overlong is not None:
        limit = chosen.overlong
        lines.append(
            f"length: reward falls from {limit.max_tokens - limit.margin_tokens} tokens, by "
            f"{limit.weight:g} at {limit.max_tokens}"
        )
    if chosen.dynamic_sampling is not None:
        lines.append(
            "sampling: groups without spread are replaced, at most "
            f"{chosen.dynamic_sampling.max_extra_batches} more batches a step"
        )
    return lines


def _aggregation(loss: PolicyLossConfig) -> str:
    """How tokens become one number, in words."""
    found = loss.aggregation
    if found.kind == "token_mean":
        return "mean over all tokens of the step"
    if found.kind == "sequence_mean":
        return "mean over rollouts of their token means"
    return f"sum over tokens / {found.divisor_tokens}, mean over rollouts"
