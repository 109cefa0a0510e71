"""Lightning attention: linear attention with a fixed exponential decay per head.

Recurrence, with state S in R^{d x d} per head: `S_t = e^{-s} S_{t-1} + k_t v_t^T`, `o_t = q_t S_t`.
The blocked form below gives the same numbers with matrix products; it takes an initial state, so
that chunks, cached prefixes and branches of one prefix continue exactly.

Source: Lightning Attention-2 (arXiv 2401.04658), MiniMax-01 report (arXiv 2501.08313) section 2.2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


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
    state: Float[Tensor, "batch head dim dim"] | None = None,
    block_tokens: int = 64,
) -> LightningOutput:
    """Causal decayed linear attention over one chunk that continues `state` (None = empty).

    `valid` is True for real tokens. A padding token adds nothing to the state and does not decay
    it, so rows padded left, right or in the middle give exactly what they give alone; outputs at
    padding positions carry no meaning. State and decays are float32 whatever the inputs' type.
    """
    dtype = query.dtype
    query, key, value = query.float(), key.float(), value.float()
    if valid is not None:
        key = key * valid[:, None, :, None]
    batch, heads, tokens, dim = query.shape
    if state is None:
        state = query.new_zeros(batch, heads, dim, dim)
    outputs: list[Tensor] = []
    for start in range(0, tokens, block_tokens):
        stop = min(start + block_tokens, tokens)
        block = slice(start, stop)
        if valid is None:
            position = torch.arange(1, stop - start + 1, device=query.device, dtype=torch.float32)
            position = position[None]
        else:
            position = valid[:, block].cumsum(1).float()
        step = slopes[:, None] * position[:, None, :]  # (B or 1, H, m)
        distance = step[..., :, None] - step[..., None, :]  # (B or 1, H, m, m), >= 0 where causal
        weight = torch.exp(-distance.clamp_min(0.0)).tril()
        scores = query[:, :, block] @ key[:, :, block].transpose(-1, -2) * weight
        from_state = (query[:, :, block] * torch.exp(-step)[..., None]) @ state
        outputs.append(scores @ value[:, :, block] + from_state)
        last = step[..., -1:]
        decayed_key = key[:, :, block] * torch.exp(step - last)[..., None]
        state = (
            torch.exp(-last)[..., None] * state + decayed_key.transpose(-1, -2) @ value[:, :, block]
        )
    output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
    return LightningOutput(output.to(dtype), state)


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
