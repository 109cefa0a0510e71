"""Sampling answers: pictures and prompts are read once, all rollouts of a prompt branch off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .policy import Branches, Policy, Question
from .stops import StopConfig, StopReason, Stops


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How answers are drawn."""

    num_rollouts: int = 8
    """Answers a prompt."""
    temperature: float = 1.0
    """0 = greedy (the most probable token, one answer a prompt)."""
    max_new_tokens: int = 48
    """An answer without end at this length is truncated."""
    stops: StopConfig = StopConfig()
    """What else ends an answer."""

    def __post_init__(self) -> None:
        """Refuses settings without meaning."""
        if self.temperature < 0.0:
            raise ValueError(
                f"temperature: found {self.temperature!r}; it must be >= 0 (0 = greedy)"
            )
        if self.num_rollouts < 1 or self.max_new_tokens < 1:
            raise ValueError(
                f"num_rollouts {self.num_rollouts!r} and max_new_tokens {self.max_new_tokens!r} "
                "must be at least 1"
            )
        if self.temperature == 0.0 and self.num_rollouts > 1:
            raise ValueError(
                f"num_rollouts: {self.num_rollouts} greedy answers to a prompt are all the same; "
                "use 1"
            )


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One generated answer."""

    token_ids: tuple[int, ...]
    """Drawn tokens, the end token included where one was drawn."""
    logprobs: tuple[float, ...]
    """Log-probability of each drawn token at the sampling temperature (at 1 for greedy)."""
    text: str
    """Decoded answer without special tokens."""
    stop: StopReason
    """Why it ended."""

    @property
    def truncated(self) -> bool:
        """True if it was cut off before its end."""
        return self.stop in ("length", "repetition")


class _Drawn(NamedTuple):
    """Tokens, their log-probs and the reason of the end, of every row."""

    ids: list[list[int]]
    logprobs: list[list[float]]
    stops: list[StopReason]


@torch.no_grad()
def sample_rollouts(
    policy: Policy,
    features: Sequence[Any],
    questions: Sequence[Question],
    config: SamplingConfig,
    generator: torch.Generator,
) -> list[list[Rollout]]:
    """`num_rollouts` answers to each question, in order.

    Finished answers leave the batch, so that a few long ones do not keep all rows computing.
    """
    branches = policy.branch(policy.read(features, questions), config.num_rollouts)
    num_rows = len(questions) * config.num_rollouts
    drawn = _decode(policy, branches, num_rows, config, generator)
    texts = policy.decode(drawn.ids)
    rollouts = [
        Rollout(
            token_ids=tuple(drawn.ids[row]),
            logprobs=tuple(drawn.logprobs[row]),
            text=texts[row],
            stop=drawn.stops[row],
        )
        for row in range(num_rows)
    ]
    group = config.num_rollouts
    return [rollouts[start : start + group] for start in range(0, num_rows, group)]


def _decode(
    policy: Policy,
    branches: Branches,
    num_rows: int,
    config: SamplingConfig,
    generator: torch.Generator,
) -> _Drawn:
    """Token by token, until every row has ended."""
    stops = Stops(
        num_rows,
        policy.end_ids,
        max_new_tokens=config.max_new_tokens,
        config=config.stops,
        decode=policy.decode,
    )
    drawn = torch.zeros(num_rows, config.max_new_tokens, dtype=torch.long)
    scores = torch.zeros(num_rows, config.max_new_tokens)
    lengths = [config.max_new_tokens] * num_rows
    reasons: list[StopReason] = ["length"] * num_rows
    rows = torch.arange(num_rows)  # original row of each row still in the batch
    is_open = torch.ones(num_rows, dtype=torch.bool)  # of those, which have not ended
    for step in range(config.max_new_tokens):
        logprobs = torch.log_softmax(branches.logits() / (config.temperature or 1.0), dim=-1)
        choice = _draw(logprobs, config, generator)
        chosen = logprobs.gather(-1, choice[:, None])[:, 0]
        drawn[rows, step], scores[rows, step] = choice, chosen
        for row, reason in enumerate(stops.update(choice, chosen.exp())):
            if reason is not None and is_open[row]:
                is_open[row] = False
                lengths[int(rows[row])], reasons[int(rows[row])] = step + 1, reason
        if not bool(is_open.any()):
            break
        if is_open.float().mean() < 0.7:
            kept = is_open.nonzero()[:, 0]
            branches.keep(kept)
            stops.keep(kept)
            choice, rows, is_open = choice[kept], rows[kept], is_open[kept]
        branches.extend(choice)
    ids = [row[:n] for row, n in zip(drawn.tolist(), lengths, strict=True)]
    values = [row[:n] for row, n in zip(scores.tolist(), lengths, strict=True)]
    return _Drawn(ids, values, reasons)


def _draw(logprobs: Tensor, config: SamplingConfig, generator: torch.Generator) -> Tensor:
    if config.temperature == 0.0:
        return logprobs.argmax(-1)
    # one number a row; torch.multinomial draws one a vocabulary entry
    total = logprobs.exp().double().cumsum(-1)
    spot = torch.rand(len(logprobs), 1, generator=generator) * total[:, -1:]
    return torch.searchsorted(total, spot, right=True)[:, 0]
