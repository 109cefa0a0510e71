"""Sampling answers: pictures and prompts are read once, all rollouts of a prompt branch off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .policy import Branches, Policy, Question


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How answers are drawn."""

    num_rollouts: int = 8
    """Answers a prompt."""
    temperature: float = 1.0
    """0 = greedy (the most probable token, one answer a prompt)."""
    max_new_tokens: int = 48
    """An answer without end token at this length is truncated."""

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
    """Drawn tokens, end token included unless truncated."""
    logprobs: tuple[float, ...]
    """Log-probability of each drawn token at the sampling temperature (at 1 for greedy)."""
    text: str
    """Decoded answer without special tokens."""
    truncated: bool


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
    ids, logprobs = _decode(policy, branches, num_rows, config, generator)
    texts = policy.decode(ids)
    rollouts = [
        Rollout(
            token_ids=tuple(ids[row]),
            logprobs=tuple(logprobs[row]),
            text=texts[row],
            truncated=ids[row][-1] not in policy.end_ids,
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
) -> tuple[list[list[int]], list[list[float]]]:
    end_ids = torch.tensor(sorted(policy.end_ids), dtype=torch.long)
    drawn = torch.zeros(num_rows, config.max_new_tokens, dtype=torch.long)
    scores = torch.zeros(num_rows, config.max_new_tokens)
    lengths = torch.full((num_rows,), config.max_new_tokens)
    rows = torch.arange(num_rows)  # original row of each row still in the batch
    open_rows = torch.ones(num_rows, dtype=torch.bool)  # of those, which have not ended
    for step in range(config.max_new_tokens):
        logprobs = torch.log_softmax(branches.logits() / (config.temperature or 1.0), dim=-1)
        choice = _draw(logprobs, config, generator)
        drawn[rows[open_rows], step] = choice[open_rows]
        scores[rows[open_rows], step] = logprobs.gather(-1, choice[:, None])[open_rows, 0]
        ended = open_rows & torch.isin(choice, end_ids)
        lengths[rows[ended]] = step + 1
        open_rows = open_rows & ~ended
        if not bool(open_rows.any()) or step + 1 == config.max_new_tokens:
            break
        if open_rows.float().mean() < 0.7:
            kept = open_rows.nonzero()[:, 0]
            branches.keep(kept)
            choice, rows, open_rows = choice[kept], rows[kept], open_rows[kept]
        branches.extend(choice)
    ids = [row[:n] for row, n in zip(drawn.tolist(), lengths.tolist(), strict=True)]
    values = [row[:n] for row, n in zip(scores.tolist(), lengths.tolist(), strict=True)]
    return ids, values


def _draw(logprobs: Tensor, config: SamplingConfig, generator: torch.Generator) -> Tensor:
    if config.temperature == 0.0:
        return logprobs.argmax(-1)
    return torch.multinomial(logprobs.exp(), 1, generator=generator)[:, 0]
