"""Softmax attention of one chunk of tokens over itself and a cached prefix.

Which keys a token may see is described by short rows (valid, document) and turned into masks only
for blocks of queries, so that no token x token mask of a long row ever exists.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

QUERY_BLOCK_TOKENS = 512
"""Queries masked at once: the mask of a block stays small beside its scores."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Which keys each token of a chunk may see, beyond what `is_causal` can say."""

    prefix_tokens: int
    """Cached keys in front of the chunk's own."""
    valid: Bool[Tensor, "batch key"]
    """False at padding and at cached documents that are over."""
    documents: Int[Tensor, "batch key"] | None
    """Number of each key's document, 0 = the one that the prefix belongs to; None = all 0."""
    starts: tuple[int, ...]
    """First key that any row's tokens of each block of queries may see."""

    def mask(self, start: int, stop: int, first: int) -> Bool[Tensor, "batch 1 query key"]:
        """True where queries start..stop of the chunk see keys `first`..."""
        end = self.prefix_tokens + stop
        device = self.valid.device
        query = torch.arange(self.prefix_tokens + start, end, device=device)
        key = torch.arange(first, end, device=device)
        seen = self.valid[:, None, first:end] & (key <= query[:, None])
        if self.documents is not None:
            own = self.documents[:, self.prefix_tokens + start : end, None]
            seen = seen & (own == self.documents[:, None, first:end])
        # a padding token sees itself, so that no softmax row is empty
        return (seen | (key == query[:, None]))[:, None]


def reach_of_chunk(
    valid: Bool[Tensor, "batch token"],
    documents: Int[Tensor, "batch token"] | None,
    prefix: Bool[Tensor, "batch key"] | None,
) -> Reach:
    """The reach of a chunk's tokens behind a prefix's keys (None = no prefix)."""
    tokens = valid.shape[1]
    before = 0 if prefix is None else prefix.shape[1]
    if prefix is not None:
        valid = torch.cat([prefix, valid], dim=1)
    starts = (0,) * -(-tokens // QUERY_BLOCK_TOKENS)
    if documents is not None:
        position = torch.arange(tokens, device=valid.device).expand_as(documents)
        changed = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0))
        opened = torch.where(changed, position, 0).cummax(dim=1).values
        opened = torch.where(documents > 0, opened + before, 0)
        starts = tuple(opened[:, ::QUERY_BLOCK_TOKENS].amin(0).tolist())
        documents = F.pad(documents, (before, 0))
    return Reach(prefix_tokens=before, valid=valid, documents=documents, starts=starts)


def attend(
    query: Float[Tensor, "batch head token dim"],
    key: Float[Tensor, "batch kv_head key dim"],
    value: Float[Tensor, "batch kv_head key dim"],
    reach: Reach | None,
) -> Float[Tensor, "batch head token dim"]:
    """Softmax attention with each key and value head shared by a group of query heads.

    Args:
        reach: None = causal attention without a prefix, or one token that sees every key.
    """
    tokens = query.shape[2]
    if tokens == 1:
        return _attend_one(query, key, value, reach)
    shared = query.shape[1] != key.shape[1]
    if reach is None:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=shared)
    outputs: list[Tensor] = []
    for index, first in enumerate(reach.starts):
        start = index * QUERY_BLOCK_TOKENS
        stop = min(start + QUERY_BLOCK_TOKENS, tokens)
        keys = slice(first, reach.prefix_tokens + stop)
        outputs.append(
            F.scaled_dot_product_attention(
                query[:, :, start:stop],
                key[:, :, keys],
                value[:, :, keys],
                attn_mask=reach.mask(start, stop, first),
                enable_gqa=shared,
            )
        )
    return torch.cat(outputs, dim=2)


def _attend_one(query: Tensor, key: Tensor, value: Tensor, reach: Reach | None) -> Tensor:
    """One token a row: the heads of a group stand as queries, and no key is repeated for them."""
    batch, heads, _, dim = query.shape
    grouped = query.reshape(batch, key.shape[1], -1, dim)
    mask = None if reach is None else reach.mask(0, 1, 0)
    mixed = F.scaled_dot_product_attention(grouped, key, value, attn_mask=mask)
    return mixed.reshape(batch, heads, 1, dim)
