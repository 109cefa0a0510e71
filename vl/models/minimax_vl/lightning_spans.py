"""The decays of lightning attention, for the few blocks of tokens that are worked on at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

SPAN_BLOCKS = 8
"""Blocks worked on at once: few enough for a core's cache, many enough for large products."""


def decay_slopes(num_heads: int, layer: int, num_layers: int) -> tuple[float, ...]:
    """Decay rate s per token and head, so that a token's weight falls as e^{-s distance}.

    `layer` is the absolute index, softmax layers counted. ALiBi's rule for head counts that are no
    power of two. Source: released modelling code, `_build_slope_tensor`.
    """
    depth = 1.0 - layer / max(num_layers - 1, 1) + 1e-5
    return tuple(slope * depth for slope in _alibi_slopes(num_heads))


def _alibi_slopes(num_heads: int) -> list[float]:
    if math.log2(num_heads).is_integer():
        return [2.0 ** (-8.0 * (head + 1) / num_heads) for head in range(num_heads)]
    lower = 2 ** math.floor(math.log2(num_heads))
    return _alibi_slopes(lower) + _alibi_slopes(2 * lower)[0::2][: num_heads - lower]


@dataclass
class Span:
    """Some blocks in a row: where they lie, and the decays within and between them.

    b is the batch, or 1 if all rows decay alike; H heads, N blocks, m tokens a block.
    """

    start: int
    stop: int
    num_blocks: int
    block_tokens: int
    inside: Tensor
    """(b, H, N or 1, m, m): weight of token j for token i of one block."""
    from_state: Tensor
    """(b, H, N or 1, m, 1): weight of the state before the block for token i."""
    to_state: Tensor
    """(b, H, N or 1, m, 1): weight of token j in the state after the block."""
    between: Tensor
    """(b, H, N + 1, N + 1): weight in the state before block n of the span's first state (column
    0) and of what block m adds (column m + 1); row N is the state after the span."""


def spans_of(
    tokens: int,
    slopes: Float[Tensor, " head"],
    valid: Bool[Tensor, "batch token"] | None,
    documents: Int[Tensor, "batch token"] | None,
    block_tokens: int,
) -> Iterator[Span]:
    """The chunk cut into spans, from left to right."""
    whole = SPAN_BLOCKS * block_tokens
    alike = None  # full spans without padding or documents decay alike
    for start in range(0, tokens, whole):
        stop = min(start + whole, tokens)
        num_blocks = -(-(stop - start) // block_tokens)
        if stop - start == whole and valid is None and documents is None:
            if alike is None:
                counted = torch.ones(1, 1, block_tokens, dtype=torch.bool, device=slopes.device)
                alike = _decays(counted, slopes, num_blocks, None)
            yield Span(start, stop, num_blocks, block_tokens, *alike)
            continue
        inner_tokens = -(-(stop - start) // num_blocks)  # an open end is shared out, not filled up
        missing = num_blocks * inner_tokens - (stop - start)
        if valid is None:
            counted = torch.ones(1, stop - start, dtype=torch.bool, device=slopes.device)
        else:
            counted = valid[:, start:stop]
        counted = F.pad(counted, (0, missing)).unflatten(1, (num_blocks, inner_tokens))
        belongs = None
        if documents is not None:
            inner = documents[:, start:stop]
            inner = torch.cat([inner, inner[:, -1:].expand(-1, missing)], dim=1)
            # the state that the chunk continues belongs to document 0
            before = documents[:, start - 1, None] if start else torch.zeros_like(inner[:, :1])
            belongs = torch.cat([before, inner], dim=1)
        decays = _decays(counted, slopes, num_blocks, belongs)
        yield Span(start, stop, num_blocks, inner_tokens, *decays)


def _decays(
    counted: Bool[Tensor, "b blocks token"],
    slopes: Float[Tensor, " head"],
    num_blocks: int,
    belongs: Int[Tensor, "b tokens_and_one_before"] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`inside`, `from_state`, `to_state`, `between` of a span; no exponent is ever above 0."""
    counted = counted[:, None]
    position = counted.cumsum(-1)  # (b, 1, N, m)
    rate = slopes[:, None, None]
    step = rate * position
    distance = step[..., :, None] - step[..., None, :]
    inside = torch.exp(-distance.clamp_min(0.0)).tril() * counted[..., None, :]
    from_state = torch.exp(-step)
    to_state = torch.exp(step - step[..., -1:]) * counted
    lengths = F.pad(position[..., -1].expand(-1, -1, num_blocks), (1, 0)).cumsum(-1)  # (b, 1, N+1)
    gaps = (lengths[..., :, None] - lengths[..., None, :]).clamp_min(0)
    between = torch.exp(-rate * gaps).tril()
    if belongs is not None:
        of_token = belongs[:, None, 1:].unflatten(2, (num_blocks, -1))  # (b, 1, N, m)
        ends = torch.cat([belongs[:, None, :1], of_token[..., -1]], dim=2)  # (b, 1, N + 1)
        inside = inside * (of_token[..., :, None] == of_token[..., None, :])
        from_state = from_state * (of_token == ends[..., :-1, None])
        to_state = to_state * (of_token == ends[..., 1:, None])
        between = between * (ends[..., :, None] == ends[..., None, :])
    return inside, from_state[..., None], to_state[..., None], between
