"""Lightning attention by flash-linear-attention's Triton kernels, for GPUs, chosen by name.

The kernel is `chunk_simple_gla` with the fixed decays and scale 1. Its namesake
`chunk_lightning_attn` is not this model's: it derives other decays.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Kernel = Callable[..., tuple[Tensor, Tensor]]


def load_kernel() -> Kernel:
    """flash-linear-attention's `chunk_simple_gla`.

    Raises:
        ImportError: it is not installed.
    """
    if importlib.util.find_spec("fla") is None:
        raise ImportError(
            "lightning_kernel='fla' needs flash-linear-attention, which is not installed: "
            "pip install flash-linear-attention (CUDA and Triton), or set "
            "lightning_kernel='torch', which gives the same numbers anywhere"
        )
    return importlib.import_module("fla.ops.simple_gla").chunk_simple_gla


def lightning_attention_fla(
    kernel: Kernel,
    query: Float[Tensor, "batch token head dim"],
    key: Float[Tensor, "batch token head dim"],
    value: Float[Tensor, "batch token head dim"],
    slopes: Float[Tensor, " head"],
    *,
    valid: Bool[Tensor, "batch token"] | None = None,
    documents: Int[Tensor, "batch token"] | None = None,
    state: Float[Tensor, "batch head dim dim"] | None = None,
) -> tuple[Float[Tensor, "batch token head dim"], Float[Tensor, "batch head dim dim"]]:
    """Outputs and the state after the chunk, as `lightning.lightning_attention` defines them.

    Padded rows and packed documents are laid end to end, without the padding, whose outputs are 0.
    """
    batch, tokens, heads, dim = query.shape
    if state is None:
        state = query.new_zeros(batch, heads, dim, dim, dtype=torch.float32)
    fixed = {"g_gamma": -slopes.float(), "scale": 1.0, "output_final_state": True}
    if valid is None and documents is None:
        return kernel(query, key, value, initial_state=state, **fixed)
    if valid is None:
        valid = torch.ones(batch, tokens, dtype=torch.bool, device=query.device)
    if documents is None:
        documents = torch.zeros(batch, tokens, dtype=torch.long, device=query.device)
    if not bool(valid.any()):
        return torch.zeros_like(query), state
    kept = valid.flatten().nonzero()[:, 0]
    row = kept // tokens
    number = documents.flatten()[kept]
    pairs, lengths = torch.unique_consecutive(
        torch.stack([row, number], dim=1), dim=0, return_counts=True
    )
    owner, continues = pairs[:, 0], pairs[:, 1] == 0
    ends = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    first = state[owner] * continues[:, None, None, None]
    flat = [x.flatten(0, 1)[kept][None] for x in (query, key, value)]
    found, after = kernel(*flat, initial_state=first, cu_seqlens=ends, **fixed)
    output = torch.zeros_like(query).flatten(0, 1).index_copy(0, kept, found[0]).view_as(query)
    is_last = torch.cat([owner[1:] != owner[:-1], owner.new_ones(1, dtype=torch.bool)])
    return output, state.index_copy(0, owner[is_last], after[is_last])
