"""Answers in progress: all rows of a batch as one row of tokens, or each prompt with its cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from vl.precision import in_compute_type

from .hf_attention import Decoding
from .hf_memory import Chunk, Features

if TYPE_CHECKING:
    from .hf import HfPolicy


class SharedBranches:
    """Answers that share their prompt's keys and values."""

    def __init__(self, policy: HfPolicy, chunk: Chunk, copies: int) -> None:
        self._policy = policy
        with torch.no_grad():
            self._head = policy.head()
            prompts = torch.arange(len(chunk.positions), device=policy.device)
            owners = prompts.repeat_interleave(copies)
            self._tree = Decoding(chunk.prefix, owners)
            self._positions, self._hidden = chunk.positions[owners], chunk.hidden[owners]

    def logits(self) -> Float[Tensor, "row vocab"]:
        """Next-token logits of every row."""
        return _logits(self._hidden, self._head)

    @torch.no_grad()
    def extend(self, tokens: Int[Tensor, " row"]) -> None:
        """Appends one token to every row."""
        self._hidden = self._policy.extend(
            tokens.to(self._positions.device), self._positions, self._tree
        )
        self._positions = self._positions + 1
        self._tree.num_tokens += 1

    @torch.no_grad()
    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Drops all other rows."""
        rows = rows.to(self._positions.device)
        self._tree.keep(rows)
        self._positions, self._hidden = self._positions[rows], self._hidden[rows]


class PlainBranches:
    """The same for models with windows or recurrent layers: a cache of the model's own a prompt."""

    @torch.no_grad()
    def __init__(
        self,
        policy: HfPolicy,
        prompts: Sequence[Sequence[int]],
        entries: Sequence[Features],
        copies: int,
    ) -> None:
        self._policy, self._head = policy, policy.head()
        self.model, self.autocast = policy.model, policy.autocast
        self._caches: list[Any] = []
        self._counts: list[int] = []
        positions: list[Tensor] = []
        hidden: list[Tensor] = []
        for prompt, entry in zip(prompts, entries, strict=True):
            cache: Any = DynamicCache(config=policy.text_model.config)
            ids = torch.tensor([list(prompt)], device=policy.device)
            states, at = policy.run(ids, [entry], past_key_values=cache, use_cache=True)
            cache.reorder_cache(ids.new_zeros(copies))
            self._caches.append(cache)
            self._counts.append(copies)
            after = ids.new_tensor(len(prompt)) if at is None else at.max() + 1
            positions.append(after.expand(copies))
            hidden.append(states[0, -1].expand(copies, -1))
        self._positions, self._hidden = torch.cat(positions), torch.cat(hidden)

    def logits(self) -> Float[Tensor, "row vocab"]:
        """Next-token logits of every row."""
        return _logits(self._hidden, self._head)

    @torch.no_grad()
    @in_compute_type
    def extend(self, tokens: Int[Tensor, " row"]) -> None:
        """Appends one token to every row."""
        ids = tokens.to(self._positions.device).split(self._counts)
        at = self._positions.split(self._counts)
        states = [
            self._policy.text_model(
                input_ids=part[:, None],
                position_ids=position[:, None],
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
            for part, position, cache in zip(ids, at, self._caches, strict=True)
        ]
        self._hidden, self._positions = torch.cat(states), self._positions + 1

    @torch.no_grad()
    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Drops all other rows."""
        rows = rows.to(self._positions.device)
        caches: list[Any] = []
        counts: list[int] = []
        start = 0
        for cache, count in zip(self._caches, self._counts, strict=True):
            mine = rows[(rows >= start) & (rows < start + count)] - start
            if len(mine):
                cache.reorder_cache(mine)
                caches.append(cache)
                counts.append(len(mine))
            start += count
        self._caches, self._counts = caches, counts
        self._positions, self._hidden = self._positions[rows], self._hidden[rows]


@torch.no_grad()
def _logits(hidden: Tensor, head: tuple[Tensor, Tensor]) -> Tensor:
    weight, bias = head
    return F.linear(hidden.to(weight.dtype), weight, bias).float()
