"""The matrix products of one span of lightning attention, forward and back.

All of a span's numbers fit into a core's cache, and the memory for them is used again for the next
span: fresh large tensors would cost more CPU time than the arithmetic.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .lightning_spans import Span


class Scratch:
    """Memory by name, of one type, that each span writes over."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._flat: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """A tensor of this shape with any content."""
        size = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.numel() < size:
            flat = self._flat[name] = self._like.new_empty(size)
        return flat[:size].view(shape)


class SpanWork:
    """One span's queries, keys and values in blocks, and what is computed from them.

    Shapes: B batch, H heads, N blocks, m tokens a block, D dimensions; products are batched over
    R = B * H * N blocks.
    """

    def __init__(self, packed: Tensor, span: Span, activate: bool, scratch: Scratch) -> None:
        self.span, self.activate, self.scratch = span, activate, scratch
        batch, _, heads, dim = packed.shape
        self.shape = (batch, heads, span.num_blocks, span.block_tokens, dim // 3)
        self.packed = packed
        exact = scratch("blocks", 3, *self.shape)
        rows = self._in_blocks(packed[:, span.start : span.stop].to(exact.dtype), parts=3)
        if activate:
            torch.ops.aten.silu.out(rows, out=exact)
        else:
            exact.copy_(rows)
        self.query, self.key, self.value = exact.unbind(0)
        between = span.between.expand(batch, -1, -1, -1).flatten(0, 1)  # (B * H, N + 1, N + 1)
        self.from_first, self.from_added = between[:, :, 0], between[:, :, 1:]

    def read_states(self, state: Tensor) -> Tensor:
        """From the state before the span to that after it; keeps those before each block."""
        batch, heads, blocks, _, dim = self.shape
        keys = torch.mul(self.key, self.span.to_state, out=self.scratch("decayed", *self.shape))
        added = self.scratch("added", batch * heads * blocks, dim, dim)
        torch.bmm(_flat(keys).transpose(1, 2), _flat(self.value), out=added)
        added = added.view(batch * heads, blocks, dim * dim)
        first = state.reshape(batch * heads, 1, dim * dim)
        before = self.scratch("before", batch * heads, blocks, dim * dim)
        torch.bmm(self.from_added[:, :-1], added, out=before)
        before.addcmul_(self.from_first[:, :-1, None], first)
        self.before = before.view(-1, dim, dim)  # (R, D, D)
        last = torch.bmm(self.from_added[:, -1:], added)
        return last.addcmul_(self.from_first[:, -1:, None], first).view(state.shape)

    def mixed_rows(self) -> Tensor:
        """(B, n, H, D) attention output of the span's tokens, a view of scratch memory."""
        self.scores = self._scores(self.query, self.key, "scores")
        mixed = self.scratch("mixed", *self.shape)
        decayed = torch.mul(self.query, self.span.from_state, out=self._again("decayed"))
        torch.bmm(self.scores, _flat(self.value), out=_flat(mixed))
        _flat(mixed).baddbmm_(_flat(decayed), self.before)
        return self._rows(mixed)

    def backward(self, d_rows: Tensor, d_state: Tensor, d_packed: Tensor) -> Tensor:
        """Gradient of the state before the span; writes that of its tokens into `d_packed`.

        `d_rows` is (B, n, H, D), `d_state` of the state after the span.
        """
        batch, heads, blocks, _, dim = self.shape
        d_o = self._again("mixed")  # no longer needed as such
        d_o.copy_(self._in_blocks(d_rows, parts=1)[0])
        grad = self.scratch("grad", 3, *self.shape)
        d_query, d_key, d_value = (_flat(part) for part in grad.unbind(0))
        query, key, value, d_out = (_flat(x) for x in (self.query, self.key, self.value, d_o))
        d_scores = self._scores(d_o, self.value, "d_scores")
        torch.bmm(d_out, self.before.transpose(1, 2), out=d_query)
        grad[0].mul_(self.span.from_state)
        d_query.baddbmm_(d_scores, key)
        # from what each block read of the states to what each block added to them
        decayed = torch.mul(self.query, self.span.from_state, out=self._again("decayed"))
        read = torch.bmm(_flat(decayed).transpose(1, 2), d_out, out=self.before)
        read = read.view(batch * heads, blocks, dim * dim)
        after = d_state.reshape(batch * heads, 1, dim * dim)
        d_added = self.scratch("added", batch * heads, blocks, dim * dim)
        torch.bmm(self.from_added[:, :-1].transpose(1, 2), read, out=d_added)
        d_added.addcmul_(self.from_added[:, -1, :, None], after)
        d_added = d_added.view(-1, dim, dim)
        torch.bmm(value, d_added.transpose(1, 2), out=d_key)
        grad[1].mul_(self.span.to_state)
        d_key.baddbmm_(d_scores.transpose(1, 2), query)
        torch.mul(self.key, self.span.to_state, out=decayed)
        torch.bmm(_flat(decayed), d_added, out=d_value)
        d_value.baddbmm_(self.scores.transpose(1, 2), d_out)
        self._write(grad, d_packed)
        d_first = torch.bmm(self.from_first[:, None, :-1], read)
        return d_first.addcmul_(self.from_first[:, -1:, None], after).view(d_state.shape)

    def _scores(self, left: Tensor, right: Tensor, name: str) -> Tensor:
        """(R, m, m) decayed products within each block."""
        shape = self.shape[:4]
        scores = self.scratch(name, *shape, shape[3])
        torch.bmm(_flat(left), _flat(right).transpose(1, 2), out=_flat(scores))
        return _flat(scores.mul_(self.span.inside))

    def _again(self, name: str) -> Tensor:
        return self.scratch(name, *self.shape)

    def _in_blocks(self, rows: Tensor, parts: int) -> Tensor:
        """(B, n, H, parts * D) as (parts, B, H, N, m, D), padded with zeros."""
        missing = self.span.num_blocks * self.span.block_tokens - rows.shape[1]
        if missing:
            rows = F.pad(rows, (0, 0, 0, 0, 0, missing))
        rows = rows.unflatten(3, (parts, -1)).unflatten(1, (self.span.num_blocks, -1))
        return rows.permute(4, 0, 3, 1, 2, 5)

    def _rows(self, blocks: Tensor) -> Tensor:
        """(B, H, N, m, D) as (B, n, H, D), a view."""
        return blocks.flatten(2, 3).transpose(1, 2)[:, : self.span.stop - self.span.start]

    def _write(self, grad: Tensor, d_packed: Tensor) -> None:
        """(3, B, H, N, m, D) into (B, T, H, 3 * D), through SiLU if it was applied."""
        inside = slice(self.span.start, self.span.stop)
        source = grad.flatten(3, 4).permute(1, 3, 2, 0, 4)[:, : self.span.stop - self.span.start]
        target = d_packed[:, inside].unflatten(3, (3, -1))
        if not self.activate:
            target.copy_(source)
            return
        inner = self.packed[:, inside].to(grad.dtype).unflatten(3, (3, -1))
        if target.dtype == grad.dtype:
            torch.ops.aten.silu_backward.grad_input(source, inner, grad_input=target)
        else:
            target.copy_(torch.ops.aten.silu_backward(source, inner))


def _flat(blocks: Tensor) -> Tensor:
    """(B, H, N, ...) as (R, ...), a view."""
    return blocks.flatten(0, 2)
