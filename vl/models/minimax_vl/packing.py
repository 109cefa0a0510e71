"""Several documents in one row, and each token's position within its own.

Documents are numbered along the row. Number 0 continues what a cache holds; a new one starts with
nothing, at position 0, and sees no token before its own first.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def documents_of(
    position_ids: Int[Tensor, "batch token"],
    valid: Bool[Tensor, "batch token"] | None,
    num_tokens: Int[Tensor, " batch"] | None,
) -> Int[Tensor, "batch token"] | None:
    """Document numbers from positions that restart at 0; None = the row goes on, nothing starts.

    Args:
        valid: False at padding, whose positions carry no meaning; None = no padding.
        num_tokens: real tokens that a cache holds of each row; None = no cache.

    Raises:
        ValueError: the positions of a document do not count up by 1.
    """
    shape = torch.broadcast_shapes(position_ids.shape, () if valid is None else valid.shape)
    position_ids = position_ids.expand(shape)
    if valid is None:
        valid = torch.ones(shape, dtype=torch.bool, device=position_ids.device)
    if num_tokens is None:
        num_tokens = valid.new_zeros(shape[0], dtype=torch.long)
    first = (valid.cumsum(1) == 1) & valid & (num_tokens[:, None] == 0)
    documents = ((position_ids == 0) & valid & ~first).cumsum(1)
    expected = positions_of(valid, documents, num_tokens)
    wrong = valid & (position_ids != expected)
    if bool(wrong.any()):
        row, token = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"position_ids: row {row}, token {token}: found {int(position_ids[row, token])}, "
            f"expected {int(expected[row, token])}; the positions of a row's real tokens count "
            "up by 1 from where the cache ends, and a 0 starts a new document. Leave position_ids "
            "out to have them counted"
        )
    return documents if bool(documents.any()) else None


def positions_of(
    valid: Bool[Tensor, "batch token"],
    documents: Int[Tensor, "batch token"] | None,
    num_tokens: Int[Tensor, " batch"],
) -> Int[Tensor, "batch token"]:
    """Real tokens before each token in its document, those of the cache included for document 0."""
    counts = valid.cumsum(1)
    if documents is None:
        return (counts - 1).clamp_min(0) + num_tokens[:, None]
    opens = documents != torch.cat([torch.zeros_like(documents[:, :1]), documents[:, :-1]], dim=1)
    before = torch.where(opens, counts - valid.long(), 0).cummax(1).values
    position = (counts - before - 1).clamp_min(0)
    return position + torch.where(documents == 0, num_tokens[:, None], 0)
