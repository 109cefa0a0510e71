"""What a decoder keeps of the tokens it has read, and how one prefix branches into many.

Softmax layers keep keys and values, lightning layers a d x d state per head. `expand` repeats
rows, so the G rollouts of a prompt share its computation, and gradients flow back through it.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LayerState:
    """One layer's memory: `state` for lightning layers, `key` and `value` for softmax layers."""

    state: Float[Tensor, "batch head dim dim"] | None = None
    key: Float[Tensor, "batch kv_head token dim"] | None = None
    value: Float[Tensor, "batch kv_head token dim"] | None = None

    def _apply(self, index: Int[Tensor, " row"]) -> LayerState:
        pick = [
            None if t is None else t.index_select(0, index)
            for t in (self.state, self.key, self.value)
        ]
        return LayerState(state=pick[0], key=pick[1], value=pick[2])


@dataclass(frozen=True, kw_only=True)
class MiniMaxVLCache:
    """Memory of a whole decoder after some tokens.

    Args:
        layers: one entry a layer.
        valid: True where a cached position holds a real token, False where padding.
    """

    layers: tuple[LayerState, ...]
    valid: Bool[Tensor, "batch token"]

    @property
    def num_tokens(self) -> Int[Tensor, " batch"]:
        """Real tokens read so far in each row."""
        return self.valid.sum(1)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Cached positions, padding included (transformers' generate asks)."""
        del layer_idx
        return self.valid.shape[1]

    def select(self, rows: Int[Tensor, " row"]) -> MiniMaxVLCache:
        """The cache of the given rows, in that order; rows may repeat."""
        layers = tuple(layer._apply(rows) for layer in self.layers)
        return MiniMaxVLCache(layers=layers, valid=self.valid[rows])

    def expand(self, copies: int) -> MiniMaxVLCache:
        """Every row `copies` times in a row: row r becomes rows r*copies ... r*copies+copies-1."""
        if copies == 1:
            return self

        def repeat(tensor: Tensor | None) -> Tensor | None:
            # expand + reshape: its backward is one sum, that of an index is a slow scatter
            if tensor is None:
                return None
            wide = tensor[:, None].expand(-1, copies, *tensor.shape[1:])
            return wide.reshape(-1, *tensor.shape[1:])

        layers = tuple(
            LayerState(state=repeat(s.state), key=repeat(s.key), value=repeat(s.value))
            for s in self.layers
        )
        return MiniMaxVLCache(layers=layers, valid=self.valid.repeat_interleave(copies, dim=0))
