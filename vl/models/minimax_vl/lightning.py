"""Lightning attention: linear attention with a fixed exponential decay per head.

Recurrence, with state S in R^{d x d} per head: `S_t = e^{-s} S_{t-1} + k_t v_t^T`, `o_t = q_t S_t`.
The blocked form below gives the same numbers with matrix products; it takes an initial state, so
that chunks, cached prefixes and branches of one prefix continue exactly. It walks the tokens in
short spans and keeps only the state before each: the backward pass computes a span again, which
costs less than writing and reading what it would have kept.

Source: Lightning Attention-2 (arXiv 2401.04658), MiniMax-01 report (arXiv 2501.08313) section 2.2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .lightning_blocks import Scratch, SpanWork
from .lightning_spans import Span, spans_of


class LightningOutput(NamedTuple):
    """Attention output and the state after the last token."""

    output: Float[Tensor, "batch head token dim"]
    state: Float[Tensor, "batch head key_dim dim"]


class MixedOutput(NamedTuple):
    """Normed and gated attention output, heads side by side, and the state after the last token."""

    output: Float[Tensor, "batch token inner"]
    state: Float[Tensor, "batch head key_dim dim"]


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
            document sees nothing of those before it. Document 0 continues `state`.
    """
    packed = torch.cat([query, key, value], dim=-1).transpose(1, 2)
    output, state = _run(packed, None, None, slopes, valid, documents, state, block_tokens, False)
    return LightningOutput(output.transpose(1, 2), state)


@torch.compiler.disable()  # loops over blocks and has its own backward pass: nothing to trace
def lightning_mix(
    packed: Float[Tensor, "batch token head dim3"],
    gate: Float[Tensor, "batch token inner"],
    norm_weight: Float[Tensor, " inner"],
    slopes: Float[Tensor, " head"],
    *,
    eps: float,
    valid: Bool[Tensor, "batch token"] | None = None,
    documents: Int[Tensor, "batch token"] | None = None,
    state: Float[Tensor, "batch head dim dim"] | None = None,
    block_tokens: int = 64,
) -> MixedOutput:
    """A lightning layer's inside: `sigmoid(gate) * RMSNorm(attention(SiLU(packed)))`.

    # departs from the released code: all of it is float32 and rounded once, at the end.

    Args:
        packed: what `qkv_proj` gives: per head query, key and value side by side.
        gate: what `output_gate` gives.
        norm_weight: of the norm over all heads jointly; `eps` is its.
    """
    output, state = _run(
        packed, gate, norm_weight, slopes, valid, documents, state, block_tokens, True, eps
    )
    return MixedOutput(output.flatten(2), state)


def _run(
    packed: Tensor,
    gate: Tensor | None,
    norm_weight: Tensor | None,
    slopes: Tensor,
    valid: Tensor | None,
    documents: Tensor | None,
    state: Tensor | None,
    block_tokens: int,
    activate: bool,
    eps: float = 0.0,
) -> tuple[Tensor, Tensor]:
    batch, _, heads, dim = packed.shape
    exact = _exact_type(packed)
    if state is None:
        state = packed.new_zeros(batch, heads, dim // 3, dim // 3, dtype=exact)
    # autocast would put the state's products into half precision
    with torch.autocast(packed.device.type, enabled=False):
        return _Lightning.apply(  # pyright: ignore[reportReturnType]
            packed,
            state.to(exact),
            gate,
            norm_weight,
            slopes.to(exact),
            valid,
            documents,
            block_tokens,
            activate,
            eps,
        )


def _exact_type(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def lightning_step(
    query: Float[Tensor, "batch head dim"],
    key: Float[Tensor, "batch head dim"],
    value: Float[Tensor, "batch head dim"],
    slopes: Float[Tensor, " head"],
    state: Float[Tensor, "batch head dim dim"],
) -> tuple[Float[Tensor, "batch head dim"], Float[Tensor, "batch head dim dim"]]:
    """One decoded token: its output, in the state's type, and the new state (float32)."""
    exact = state.dtype
    added = key.to(exact)[..., :, None] * value.to(exact)[..., None, :]
    state = torch.addcmul(added, torch.exp(-slopes)[:, None, None].to(exact), state)
    with torch.autocast(query.device.type, enabled=False):
        return (query.to(exact)[..., None, :] @ state)[..., 0, :], state


def gated_norm(
    rows: Float[Tensor, "batch token head dim"],
    gate: Float[Tensor, "batch token head dim"],
    weight: Float[Tensor, " inner"],
    eps: float,
) -> Float[Tensor, "batch token head dim"]:
    """`sigmoid(gate) * RMSNorm(rows)`, the norm over all heads jointly; in the rows' type."""
    normed = rows * _inverse_rms(rows, eps)
    return normed * weight.view(rows.shape[2:]) * torch.sigmoid(gate.to(rows.dtype))


class _Lightning(torch.autograd.Function):
    """Spans of blocks from left to right, and back."""

    @staticmethod
    def forward(
        ctx: Any,
        packed: Tensor,
        state: Tensor,
        gate: Tensor | None,
        norm_weight: Tensor | None,
        slopes: Tensor,
        valid: Tensor | None,
        documents: Tensor | None,
        block_tokens: int,
        activate: bool,
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        batch, tokens, heads, dim = packed.shape
        output = packed.new_empty(batch, tokens, heads, dim // 3)
        scratch = Scratch(state)
        kept: list[Tensor] = []
        for span in spans_of(tokens, slopes, valid, documents, block_tokens):
            kept.append(state)
            work = SpanWork(packed, span, activate, scratch)
            state = work.read_states(state)
            rows, target = work.mixed_rows(), output[:, span.start : span.stop]
            if gate is None or norm_weight is None:
                target.copy_(rows)
                continue
            rows *= _inverse_rms(rows, eps)
            rows *= norm_weight.view(heads, -1)
            torch.mul(rows, _opened(gate, span, rows, scratch), out=target)
        ctx.save_for_backward(packed, gate, norm_weight, slopes, valid, documents, *kept)
        ctx.settings = block_tokens, activate, eps
        return output, state

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        d_output, d_state = grads
        packed, gate, norm_weight, slopes, valid, documents, *kept = ctx.saved_tensors
        block_tokens, activate, eps = ctx.settings
        d_packed = torch.empty(packed.shape, dtype=packed.dtype, device=packed.device)
        d_gate = d_weight = None
        if gate is not None:
            d_gate = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
            d_weight = torch.zeros_like(norm_weight, dtype=d_state.dtype)
        scratch = Scratch(d_state)
        spans = list(spans_of(packed.shape[1], slopes, valid, documents, block_tokens))
        for span, state in zip(reversed(spans), reversed(kept), strict=True):
            work = SpanWork(packed, span, activate, scratch)
            work.read_states(state)
            d_rows = d_output[:, span.start : span.stop].to(state.dtype)
            rows = work.mixed_rows()
            if gate is not None and d_gate is not None and d_weight is not None:
                opened = _opened(gate, span, rows, scratch)
                d_inner = d_gate[:, span.start : span.stop].view(rows.shape)
                settings = norm_weight, eps, scratch
                d_rows, d_span = _gated_norm_backward(d_rows, rows, opened, d_inner, *settings)
                d_weight += d_span
            d_state = work.backward(d_rows, d_state, d_packed)
        if d_weight is not None:
            d_weight = d_weight.to(norm_weight.dtype)
        return d_packed, d_state, d_gate, d_weight, None, None, None, None, None, None


def _inverse_rms(rows: Tensor, eps: float) -> Tensor:
    """(B, T, 1, 1) one over the root mean square of all heads' outputs jointly."""
    norms = torch.linalg.vector_norm(rows, dim=(2, 3), keepdim=True)
    return torch.rsqrt(norms.square() / (rows.shape[2] * rows.shape[3]) + eps)


def _opened(gate: Tensor, span: Span, rows: Tensor, scratch: Scratch) -> Tensor:
    """(B, n, H, D) sigmoid of the span's gates."""
    inner = gate[:, span.start : span.stop].to(rows.dtype).view(rows.shape)
    return torch.sigmoid(inner, out=scratch("opened", *rows.shape))


def _gated_norm_backward(
    d_output: Tensor,
    rows: Tensor,
    opened: Tensor,
    d_inner: Tensor,
    weight: Tensor,
    eps: float,
    scratch: Scratch,
) -> tuple[Tensor, Tensor]:
    """Gradients of `rows` and `weight` through `opened * RMSNorm(rows)`, `opened = sigmoid(inner)`.

    Writes that of `inner` into `d_inner` and works in the place of `rows` and `opened`.
    """
    inner_size = weight.numel()
    weight = weight.to(rows.dtype)
    by_head = weight.view(rows.shape[2:])
    inverse = _inverse_rms(rows, eps)
    rows *= inverse
    along = torch.mul(d_output, rows, out=scratch("along", *rows.shape))
    d_opened = torch.mul(along, by_head, out=scratch("d_opened", *rows.shape))
    torch.ops.aten.sigmoid_backward.grad_input(d_opened, opened, grad_input=d_inner)
    along *= opened
    d_weight = along.sum((0, 1)).flatten()
    rows *= (along.flatten(2) @ weight / inner_size)[..., None, None]
    opened *= d_output
    opened *= by_head
    opened -= rows
    opened *= inverse
    return opened, d_weight
