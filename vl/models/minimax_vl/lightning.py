"""Lightning attention: linear attention with a fixed exponential decay per head.

Recurrence, with state S in R^{d x d} per head: `S_t = e^{-s} S_{t-1} + k_t v_t^T`, `o_t = q_t S_t`.
The blocked form below gives the same numbers with matrix products; it takes an initial state, so
that chunks, cached prefixes and branches of one prefix continue exactly.

Source: Lightning Attention-2 (arXiv 2401.04658), MiniMax-01 report (arXiv 2501.08313) section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

_SPAN_BLOCKS = 8
"""Blocks worked on at once: few enough for a core's cache, many enough for large products."""


class LightningOutput(NamedTuple):
    """Attention output and the state after the last token."""

    output: Float[Tensor, "batch head token dim"]
    state: Float[Tensor, "batch head key_dim dim"]


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


def lightning_attention(
    query: Float[Tensor, "batch head token dim"],
    key: Float[Tensor, "batch head token dim"],
    value: Float[Tensor, "batch head token dim"],
    slopes: Float[Tensor, " head"],
    *,
    valid: Bool[Tensor, "batch token"] | None = None,
    documents: Int[Tensor, "batch token"] | None = None,
    state: Float[Tensor, "batch head dim dim"] | None = None,
    block_tokens: int = 64,
) -> LightningOutput:
    """Causal decayed linear attention over one chunk that continues `state` (None = empty).

    State and decays are float32 whatever the inputs' type (float64 for float64).

    Args:
        valid: True for real tokens. A padding token adds nothing to the state and does not decay
            it, so rows padded left, right or in the middle give exactly what they give alone;
            outputs at padding positions carry no meaning.
        documents: number of the packed document a token belongs to, rising along the row; a
            document sees nothing of those before it. The first one continues `state`.
    """
    packed = torch.cat([query, key, value], dim=-1).transpose(1, 2)
    return lightning_attention_packed(
        packed,
        slopes,
        valid=valid,
        documents=documents,
        state=state,
        block_tokens=block_tokens,
        activate=False,
    )


def lightning_attention_packed(
    packed: Float[Tensor, "batch token head dim3"],
    slopes: Float[Tensor, " head"],
    *,
    valid: Bool[Tensor, "batch token"] | None = None,
    documents: Int[Tensor, "batch token"] | None = None,
    state: Float[Tensor, "batch head dim dim"] | None = None,
    block_tokens: int = 64,
    activate: bool = True,
) -> LightningOutput:
    """The same from what `qkv_proj` gives: per head query, key and value side by side.

    Args:
        activate: apply SiLU to all three first, as the released model does.
    """
    batch, _, heads, dim = packed.shape
    exact = torch.float64 if packed.dtype == torch.float64 else torch.float32
    if state is None:
        state = packed.new_zeros(batch, heads, dim // 3, dim // 3, dtype=exact)
    found: tuple[Tensor, Tensor] = _Lightning.apply(  # pyright: ignore[reportAssignmentType]
        packed, state.to(exact), slopes.to(exact), valid, documents, block_tokens, activate
    )
    output, last = found
    return LightningOutput(output.transpose(1, 2), last)


def lightning_step(
    query: Float[Tensor, "batch head dim"],
    key: Float[Tensor, "batch head dim"],
    value: Float[Tensor, "batch head dim"],
    slopes: Float[Tensor, " head"],
    state: Float[Tensor, "batch head dim dim"],
) -> tuple[Float[Tensor, "batch head dim"], Float[Tensor, "batch head dim dim"]]:
    """One decoded token: its output and the new state (float32)."""
    dtype = query.dtype
    decay = torch.exp(-slopes)[:, None, None]
    state = torch.addcmul(decay * state, key.float()[..., :, None], value.float()[..., None, :])
    return (query.float()[..., None, :] @ state)[..., 0, :].to(dtype), state


@dataclass
class _Span:
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


class _Lightning(torch.autograd.Function):
    """Spans of blocks from left to right, and back."""

    @staticmethod
    def forward(
        ctx: Any,
        packed: Tensor,
        state: Tensor,
        slopes: Tensor,
        valid: Tensor | None,
        documents: Tensor | None,
        block_tokens: int,
        activate: bool,
    ) -> tuple[Tensor, Tensor]:
        batch, tokens, heads, dim = packed.shape
        output = packed.new_empty(batch, tokens, heads, dim // 3)
        kept: list[Tensor] = []
        for span in _spans(tokens, slopes, valid, documents, block_tokens):
            blocks = _blocks(packed, span, activate, state.dtype)
            q, k, v = blocks.unbind(0)
            before, state = _states(k, v, state, span)
            scores = (q @ k.transpose(-1, -2)).mul_(span.inside)
            mixed = scores @ v
            mixed += (q * span.from_state) @ before
            _write(output, mixed, span)
            kept += [blocks, scores, before]
        ctx.save_for_backward(packed, slopes, valid, documents, *kept)
        ctx.block_tokens, ctx.activate = block_tokens, activate
        return output, state

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        d_output, d_state = grads
        packed, slopes, valid, documents, *kept = ctx.saved_tensors
        d_packed = torch.empty_like(packed)
        spans = list(_spans(packed.shape[1], slopes, valid, documents, ctx.block_tokens))
        for index, span in reversed(list(enumerate(spans))):
            blocks, scores, before = kept[3 * index : 3 * index + 3]
            q, k, v = blocks.unbind(0)
            (d_o,) = _blocks(d_output, span, False, q.dtype, parts=1).unbind(0)
            decayed_q, decayed_k = q * span.from_state, k * span.to_state
            # from what each block read of the states to what each block added to them
            d_read = torch.cat([decayed_q.transpose(-1, -2) @ d_o, d_state[:, :, None]], dim=2)
            back = (span.between.transpose(-1, -2) @ d_read.flatten(3)).view(d_read.shape)
            d_state, d_added = back[:, :, 0], back[:, :, 1:].contiguous()
            d_scores = (d_o @ v.transpose(-1, -2)).mul_(span.inside)
            grad = torch.empty(3, *q.shape, dtype=q.dtype, device=q.device)
            torch.matmul(d_o, before.transpose(-1, -2), out=grad[0]).mul_(span.from_state)
            grad[0] += d_scores @ k
            torch.matmul(v, d_added.transpose(-1, -2), out=grad[1]).mul_(span.to_state)
            grad[1] += d_scores.transpose(-1, -2) @ q
            torch.matmul(decayed_k, d_added, out=grad[2])
            grad[2] += scores.transpose(-1, -2) @ d_o
            _write_grad(d_packed, packed, grad, span, ctx.activate)
        return d_packed, d_state, None, None, None, None, None


def _states(key: Tensor, value: Tensor, state: Tensor, span: _Span) -> tuple[Tensor, Tensor]:
    """(B, H, N, D, D) the states before each block of the span, and (B, H, D, D) after the last."""
    added = (key * span.to_state).transpose(-1, -2) @ value
    every = torch.cat([state[:, :, None], added], dim=2).flatten(3)
    before = (span.between[..., :-1, :] @ every).view(added.shape)
    return before, (span.between[..., -1:, :] @ every).view(state.shape)


def _blocks(
    packed: Tensor, span: _Span, activate: bool, dtype: torch.dtype, parts: int = 3
) -> Tensor:
    """(B, T, H, parts * D) to the span's (parts, B, H, N, m, D), contiguous, padded with zeros."""
    rows = packed[:, span.start : span.stop].to(dtype)
    if activate:
        rows = F.silu(rows)
    missing = span.num_blocks * span.block_tokens - rows.shape[1]
    if missing:
        rows = F.pad(rows, (0, 0, 0, 0, 0, missing))
    rows = rows.unflatten(3, (parts, -1)).unflatten(1, (span.num_blocks, -1))
    return rows.permute(4, 0, 3, 1, 2, 5).contiguous()


def _write(output: Tensor, mixed: Tensor, span: _Span) -> None:
    """The span's (B, H, N, m, D) into (B, T, H, D)."""
    rows = mixed.flatten(2, 3).transpose(1, 2)
    output[:, span.start : span.stop] = rows[:, : span.stop - span.start]


def _write_grad(
    d_packed: Tensor, packed: Tensor, grad: Tensor, span: _Span, activate: bool
) -> None:
    """The span's (3, B, H, N, m, D) into (B, T, H, 3 * D), through SiLU if it was applied."""
    rows = slice(span.start, span.stop)
    target = d_packed[:, rows].unflatten(3, (3, -1))
    source = grad.flatten(3, 4).permute(1, 3, 2, 0, 4)[:, : span.stop - span.start]
    if not activate:
        target.copy_(source)
        return
    inner = packed[:, rows].to(grad.dtype)
    flat = source.reshape(inner.shape)
    d_packed[:, rows] = torch.ops.aten.silu_backward(flat, inner)


def _spans(
    tokens: int,
    slopes: Tensor,
    valid: Tensor | None,
    documents: Tensor | None,
    block_tokens: int,
) -> Iterator[_Span]:
    """The chunk cut into spans."""
    whole = _SPAN_BLOCKS * block_tokens
    alike = None  # full spans without padding or documents decay alike
    for start in range(0, tokens, whole):
        stop = min(start + whole, tokens)
        num_blocks = -(-(stop - start) // block_tokens)
        if stop - start == whole and valid is None and documents is None:
            if alike is None:
                counted = torch.ones(1, 1, block_tokens, dtype=torch.bool, device=slopes.device)
                alike = _decays(counted, slopes, num_blocks, None)
            yield _Span(start, stop, num_blocks, block_tokens, *alike)
            continue
        missing = num_blocks * block_tokens - (stop - start)
        if valid is None:
            counted = torch.ones(1, stop - start, dtype=torch.bool, device=slopes.device)
        else:
            counted = valid[:, start:stop]
        counted = F.pad(counted, (0, missing)).unflatten(1, (num_blocks, block_tokens))
        belongs = None
        if documents is not None:
            inner = documents[:, start:stop]
            inner = torch.cat([inner, inner[:, -1:].expand(-1, missing)], dim=1)
            before = documents[:, max(start - 1, 0), None]
            belongs = torch.cat([before, inner], dim=1)
        decays = _decays(counted, slopes, num_blocks, belongs)
        yield _Span(start, stop, num_blocks, block_tokens, *decays)


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
