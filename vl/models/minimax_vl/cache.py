"""What a decoder keeps of the tokens it has read, and how one prefix branches into many.

Softmax layers keep keys and values, lightning layers a d x d state per head. A cache is a value:
reading more tokens gives a new one and leaves the old one as it was, so a snapshot is a name and
costs nothing. Keys and values are not copied for it: both caches look at one storage, of which
the newer sees more. `expand` repeats rows, so the G rollouts of a prompt share its computation,
and gradients flow back through it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_ROOM_TOKENS = 256
"""Least spare room of a new storage; beyond it a quarter of what is stored."""


@dataclass
class _Storage:
    """Keys and values with room for more; caches see a leading part of it."""

    key: Float[Tensor, "batch kv_head capacity dim"]
    value: Float[Tensor, "batch kv_head capacity dim"]
    used: int
    """Positions that some cache sees; only the cache that sees them all may write the next."""


@dataclass(frozen=True, kw_only=True)
class LayerState:
    """One layer's memory: `state` for lightning layers, `key` and `value` for softmax layers."""

    state: Float[Tensor, "batch head dim dim"] | None = None
    key: Float[Tensor, "batch kv_head token dim"] | None = None
    value: Float[Tensor, "batch kv_head token dim"] | None = None
    storage: _Storage | None = field(default=None, repr=False, compare=False)
    """What `key` and `value` are the leading part of; None = they stand alone."""

    def extend(
        self,
        key: Float[Tensor, "batch kv_head new dim"],
        value: Float[Tensor, "batch kv_head new dim"],
    ) -> LayerState:
        """The memory with the new keys and values behind the old.

        Under `no_grad` the new ones are written behind the old in place; else all are
        concatenated, since a graph may still need the old as they are.
        """
        if self.key is None or self.value is None:
            return LayerState(key=key, value=value)
        if torch.is_grad_enabled():
            joined = (torch.cat([self.key, key], dim=2), torch.cat([self.value, value], dim=2))
            return LayerState(key=joined[0], value=joined[1])
        old, new = self.key.shape[2], self.key.shape[2] + key.shape[2]
        storage = self.storage
        if storage is None or not _may_write(storage, old, new):
            capacity = new + max(_ROOM_TOKENS, new // 4)
            storage = _Storage(_widened(self.key, capacity), _widened(self.value, capacity), old)
        storage.key[:, :, old:new] = key
        storage.value[:, :, old:new] = value
        storage.used = new
        return _leading(storage, new)

    def apply(self, change: Callable[[Tensor], Tensor]) -> LayerState:
        """The memory with its rows changed, e.g. repeated; room for more is kept."""
        if self.state is not None:
            return LayerState(state=change(self.state))
        if self.key is None or self.value is None:
            return self
        if self.storage is None:
            return LayerState(key=change(self.key), value=change(self.value))
        used = self.key.shape[2]
        # one row repeated by a view would be written to in all its copies at once
        key, value = change(self.storage.key).contiguous(), change(self.storage.value).contiguous()
        return _leading(_Storage(key, value, used), used)


def _may_write(storage: _Storage, old: int, new: int) -> bool:
    frozen = storage.key.is_inference() and not torch.is_inference_mode_enabled()
    return storage.used == old and new <= storage.key.shape[2] and not frozen


def _widened(tensor: Tensor, capacity: int) -> Tensor:
    batch, heads, tokens, dim = tensor.shape
    wide = tensor.new_empty(batch, heads, capacity, dim)
    wide[:, :, :tokens] = tensor.detach()
    return wide


def _leading(storage: _Storage, tokens: int) -> LayerState:
    key, value = storage.key[:, :, :tokens], storage.value[:, :, :tokens]
    return LayerState(key=key, value=value, storage=storage)


@dataclass(kw_only=True)
class MiniMaxVLCache:
    """Memory of a whole decoder after some tokens.

    Args:
        layers: one entry a layer.
        valid: True where the next token may look: False at padding and at the tokens of packed
            documents before the last.
        all_valid: no position of `valid` is False.
    """

    layers: tuple[LayerState, ...]
    valid: Bool[Tensor, "batch token"]
    all_valid: bool = False
    # generate() reads the first and writes the second, and asks nothing else of a cache
    is_compileable: bool = field(default=False, repr=False)
    _is_user_defined: bool = field(default=False, repr=False)

    @classmethod
    def empty(cls, num_layers: int) -> MiniMaxVLCache:
        """Memory of nothing, for any number of rows; reading with it equals reading without."""
        nothing = torch.ones(1, 0, dtype=torch.bool)
        return cls(layers=(LayerState(),) * num_layers, valid=nothing, all_valid=True)

    @property
    def num_tokens(self) -> Int[Tensor, " batch"]:
        """Real tokens of each row's last document read so far: the next token's position."""
        return self.valid.sum(1)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Cached positions, padding included, whichever layer is asked."""
        del layer_idx
        return self.valid.shape[1]

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Positions that `query_length` new tokens may look at, and the first one's index."""
        return self.get_seq_length(layer_idx) + query_length, 0

    def select(self, rows: Int[Tensor, " row"]) -> MiniMaxVLCache:
        """The cache of the given rows, in that order; rows may repeat."""
        layers = tuple(layer.apply(lambda t: t.index_select(0, rows)) for layer in self.layers)
        return MiniMaxVLCache(layers=layers, valid=self.valid[rows], all_valid=self.all_valid)

    def expand(self, copies: int) -> MiniMaxVLCache:
        """Every row `copies` times in a row: row r becomes rows r*copies ... r*copies+copies-1."""
        if copies == 1:
            return self

        def repeat(tensor: Tensor) -> Tensor:
            # expand + reshape: its backward is one sum, that of an index is a slow scatter
            wide = tensor[:, None].expand(-1, copies, *tensor.shape[1:])
            return wide.reshape(-1, *tensor.shape[1:])

        layers = tuple(layer.apply(repeat) for layer in self.layers)
        return MiniMaxVLCache(layers=layers, valid=repeat(self.valid), all_valid=self.all_valid)

    def crop(self, num_tokens: int) -> NoReturn:
        """Refused: a lightning state cannot forget its last tokens.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            f"crop({num_tokens}): the states of lightning layers cannot be taken back. A cache is "
            "a value that reading leaves unchanged: keep the one from before the tokens to drop"
        )
