"""Sampling answers: pictures and prompts are read once, all rollouts of a prompt branch off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .models.minimax_vl import MiniMaxVLCache
from .policy import Policy


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
    features: Float[Tensor, "picture token hidden"],
    prompts: Sequence[Sequence[int]],
    owners: Sequence[int],
    config: SamplingConfig,
    generator: torch.Generator,
) -> list[list[Rollout]]:
    """`num_rollouts` answers for each prompt; `owners` says which picture a prompt asks about.

    Finished answers leave the batch, so that a few long ones do not keep all rows computing.
    """
    memory = policy.read_prompts(policy.read_pictures(features), prompts, owners)
    num_rows = len(prompts) * config.num_rollouts
    ids, logprobs = _decode(policy, memory.expand(config.num_rollouts), config, generator)
    eos = policy.text.end_id
    texts = policy.text.tokenizer.batch_decode(
        [[token for token in row if token != eos] for row in ids], skip_special_tokens=True
    )
    rollouts = [
        Rollout(
            token_ids=tuple(ids[row]),
            logprobs=tuple(logprobs[row]),
            text=texts[row],
            truncated=ids[row][-1] != eos,
        )
        for row in range(num_rows)
    ]
    group = config.num_rollouts
    return [rollouts[start : start + group] for start in range(0, num_rows, group)]


def _decode(
    policy: Policy, memory: MiniMaxVLCache, config: SamplingConfig, generator: torch.Generator
) -> tuple[list[list[int]], list[list[float]]]:
    num_rows = memory.valid.shape[0]
    eos = policy.text.end_id
    drawn = torch.full((num_rows, config.max_new_tokens), eos)
    scores = torch.zeros(num_rows, config.max_new_tokens)
    lengths = torch.full((num_rows,), config.max_new_tokens)
    rows = torch.arange(num_rows)  # original row of each row still in the batch
    open_rows = torch.ones(num_rows, dtype=torch.bool)  # of those, which have not ended
    token = torch.tensor(policy.text.header).expand(num_rows, -1)
    for step in range(config.max_new_tokens):
        output = policy.model.decode(policy.model.embed(token), None, memory)
        memory = output.cache
        logprobs = _logprobs(policy, output.hidden[:, -1], config.temperature)
        choice = _draw(logprobs, config, generator)
        drawn[rows[open_rows], step] = choice[open_rows]
        scores[rows[open_rows], step] = logprobs.gather(-1, choice[:, None])[open_rows, 0]
        ended = open_rows & (choice == eos)
        lengths[rows[ended]] = step + 1
        open_rows = open_rows & ~ended
        if not bool(open_rows.any()):
            break
        token = choice[:, None]
        if open_rows.float().mean() < 0.7:
            keep = open_rows.nonzero()[:, 0]
            memory, token, rows = memory.select(keep), token[keep], rows[keep]
            open_rows = torch.ones(len(keep), dtype=torch.bool)
    ids = [row[:n] for row, n in zip(drawn.tolist(), lengths.tolist(), strict=True)]
    values = [row[:n] for row, n in zip(scores.tolist(), lengths.tolist(), strict=True)]
    return ids, values


def _logprobs(policy: Policy, hidden: Tensor, temperature: float) -> Tensor:
    logits = policy.masked_logits(hidden)
    return torch.log_softmax(logits / (temperature or 1.0), dim=-1)


def _draw(logprobs: Tensor, config: SamplingConfig, generator: torch.Generator) -> Tensor:
    if config.temperature == 0.0:
        return logprobs.argmax(-1)
    return torch.multinomial(logprobs.exp(), 1, generator=generator)[:, 0]
