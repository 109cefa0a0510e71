"""Attention of answers that share their prompt's keys and values, without a copy of them.

transformers lets a model's attention be replaced by name. Ours runs in three ways, chosen by the
keyword argument `tree` that a forward pass hands down to its layers: none (attention as before), a
`Recording` (as before, and every layer's keys and values are noted), or answers that continue a
recorded prefix (`Answers`, all tokens at once with gradients; `Decoding`, a token at a time).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION_NAME = "vl_shared_prefix"
"""What `set_attn_implementation` is told; without a `tree` it is `sdpa`."""

Heads = Float[Tensor, "1 head token width"]


class LayerPrefix(NamedTuple):
    """One layer's memory of prompts, padded on the right."""

    keys: Float[Tensor, "prompt kv_head position width"]
    values: Float[Tensor, "prompt kv_head position width"]


class Tree(Protocol):
    """Decides what one layer attends to."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor | None:
        """(1, head, token, width), or None for attention as usual."""
        ...


def register() -> None:
    """Makes `ATTENTION_NAME` known to transformers; harmless when repeated."""
    AttentionInterface.register(ATTENTION_NAME, _attention)
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree: Tree | None = None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    if tree is not None:
        layer = module.layer_idx
        assert isinstance(layer, int)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        if torch.is_autocast_enabled(query.device.type):  # rotary positions were in float32
            kind = torch.get_autocast_dtype(query.device.type)
            query, key, value = query.to(kind), key.to(kind), value.to(kind)
        found = tree.attend(layer, query, key, value, scale)
        if found is not None:
            return found.transpose(1, 2), None
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **options
    )


@dataclass
class Recording:
    """Notes the keys and values of every layer that is run."""

    layers: dict[int, LayerPrefix] = field(default_factory=dict)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> None:
        """Attention goes on as usual."""
        del query, scaling
        self.layers[layer] = LayerPrefix(key, value)


class Prefix(NamedTuple):
    """What all layers remember of prompts."""

    layers: Sequence[LayerPrefix]
    lengths: Int[Tensor, " prompt"]
    """Real positions of each prompt; what follows is padding."""

    @property
    def visible(self) -> Bool[Tensor, "prompt position"] | None:
        """False at padding; None where there is none."""
        num_positions = self.layers[0].keys.shape[2]
        if bool((self.lengths == num_positions).all()):
            return None
        return torch.arange(num_positions, device=self.lengths.device) < self.lengths[:, None]


class Slots(NamedTuple):
    """Where tokens stand when they are laid out as equal rows, one for each owner."""

    rows: int
    columns: int
    place: Int[Tensor, " token"] | None
    """Place of each token in rows * columns; None if every place is taken, in order."""

    @classmethod
    def of(cls, counts: Int[Tensor, " row"]) -> Slots:
        """`counts` consecutive tokens to each row."""
        rows, columns = len(counts), int(counts.max())
        if bool((counts == columns).all()):
            return cls(rows, columns, None)
        row = torch.arange(rows, device=counts.device).repeat_interleave(counts)
        first = (counts.cumsum(0) - counts).repeat_interleave(counts)
        column = torch.arange(len(row), device=counts.device) - first
        return cls(rows, columns, row * columns + column)

    def spread(self, tokens: Tensor) -> Tensor:
        """(token, ...) as (row, column, ...); empty places are zero."""
        if self.place is not None:
            places = tokens.new_zeros(self.rows * self.columns, *tokens.shape[1:])
            places[self.place] = tokens
            tokens = places
        return tokens.unflatten(0, (self.rows, self.columns))

    def gather(self, places: Tensor) -> Tensor:
        """The inverse of `spread`."""
        flat = places.flatten(0, 1)
        return flat if self.place is None else flat[self.place]


@dataclass(frozen=True)
class Answers:
    """Whole answers, tokens one after the other, prompt by prompt, each after its prompt."""

    prefix: Prefix
    by_prompt: Slots
    by_answer: Slots
    visible: Bool[Tensor, "prompt position"] | None
    """`prefix.visible`."""

    @classmethod
    def after(
        cls, prefix: Prefix, lengths: Int[Tensor, " answer"], owners: Int[Tensor, " answer"]
    ) -> Answers:
        """Answers of `lengths` tokens; `owners`, the prompts they continue, rise."""
        per_prompt = torch.zeros_like(prefix.lengths).index_add(0, owners, lengths)
        return cls(prefix, Slots.of(per_prompt), Slots.of(lengths), prefix.visible)

    def attend(self, layer: int, query: Heads, key: Heads, value: Heads, scaling: float) -> Heads:
        """Each token sees its prompt and what its own answer has so far."""
        # positional: autograd.Function takes no keywords
        packed = [states[0].transpose(0, 1) for states in (query, key, value)]
        if _has_kernel(query):
            keys, values = self.prefix.layers[layer]
            found = cast("Tensor", _Merged.apply(*packed, keys, values, self, scaling))
        else:
            own = (packed[0], packed[1], packed[2])
            found = self._attend_by_definition(own, self.prefix.layers[layer], scaling)
        return found.transpose(0, 1)[None]

    def _attend_by_definition(
        self, states: tuple[Tensor, Tensor, Tensor], prefix: LayerPrefix, scaling: float
    ) -> Tensor:
        """The same with the attention weights in memory, for devices without the CPU kernel."""
        query, key, value = states
        num_heads, kv_heads = query.shape[1], key.shape[1]
        folded = _fold(self.by_prompt.spread(query), kv_heads)
        shared = folded @ prefix.keys.transpose(-1, -2) * scaling
        if self.visible is not None:
            shared = shared.masked_fill(~self.visible[:, None, None], float("-inf"))
        shared = self.by_prompt.gather(_unfold(shared, self.by_prompt.columns))
        own_query = self.by_answer.spread(query).transpose(1, 2)  # (answer, head, token, width)
        own_key, own_value = (
            _repeat_heads(self.by_answer.spread(states), num_heads).transpose(1, 2)
            for states in (key, value)
        )
        own = own_query @ own_key.transpose(-1, -2) * scaling
        future = torch.ones(own.shape[-2:], dtype=torch.bool, device=own.device).triu(1)
        own = self.by_answer.gather(own.masked_fill(future, float("-inf")).transpose(1, 2))
        weights = torch.cat([shared, own], -1).softmax(-1, dtype=torch.float32).to(query.dtype)
        of_prompt, of_own = weights.split([shared.shape[-1], own.shape[-1]], -1)
        found = _fold(self.by_prompt.spread(of_prompt), kv_heads) @ prefix.values
        found = self.by_prompt.gather(_unfold(found, self.by_prompt.columns))
        own_found = self.by_answer.spread(of_own).transpose(1, 2) @ own_value
        return found + self.by_answer.gather(own_found.transpose(1, 2))


def _has_kernel(query: Tensor) -> bool:
    return query.device.type == "cpu"


def _fold(rows: Tensor, kv_heads: int) -> Tensor:
    """(row, column, head, width) as (row, kv_head, head of it * column, width).

    All heads of a key/value head then share it in one product: a prompt's mask is the same to all.
    """
    grouped = rows.unflatten(2, (kv_heads, -1))  # (row, column, kv_head, head, width)
    return grouped.permute(0, 2, 3, 1, 4).flatten(2, 3)


def _unfold(folded: Tensor, columns: int) -> Tensor:
    """The inverse of `_fold`."""
    return folded.unflatten(2, (-1, columns)).permute(0, 3, 1, 2, 4).flatten(2, 3)


def _repeat_heads(rows: Tensor, num_heads: int) -> Tensor:
    """(row, column, kv_head, width) with each key/value head as often as heads use it."""
    return rows.repeat_interleave(num_heads // rows.shape[2], dim=2)


class _Merged(torch.autograd.Function):
    """Attention over prompt and answer in two kernel calls, merged by their log-sums.

    The kernel's backward pass takes the softmax's total from outside, so each call, told the
    total over both sets of keys, returns its exact share of the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "token head width"],
        key: Float[Tensor, "token kv_head width"],
        value: Float[Tensor, "token kv_head width"],
        prefix_keys: Tensor,
        prefix_values: Tensor,
        tree: Answers,
        scaling: float,
    ) -> Float[Tensor, "token head width"]:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
        mask = _additive(tree.visible, query.dtype)
        folded = _fold(tree.by_prompt.spread(query), key.shape[1])
        shared, shared_sum = kernel(
            folded, prefix_keys, prefix_values, attn_mask=mask, scale=scaling
        )
        own, own_sum = kernel(*_own(tree, query, key, value), is_causal=True, scale=scaling)
        shared = tree.by_prompt.gather(_unfold(shared, tree.by_prompt.columns))
        shared_sum = tree.by_prompt.gather(_unfold(shared_sum[..., None], tree.by_prompt.columns))
        own = tree.by_answer.gather(own.transpose(1, 2))
        own_sum = tree.by_answer.gather(own_sum.transpose(1, 2))[..., None]
        share = torch.sigmoid(shared_sum - own_sum).to(query.dtype)
        found = torch.lerp(own, shared, share)
        total = torch.logaddexp(shared_sum, own_sum)
        ctx.save_for_backward(query, key, value, prefix_keys, prefix_values, found, total)
        ctx.tree, ctx.scaling = tree, scaling
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
        query, key, value, prefix_keys, prefix_values, found, total = ctx.saved_tensors
        tree, scaling, grad = ctx.tree, ctx.scaling, grads[0]
        kv_heads, num_heads = key.shape[1], query.shape[1]
        mask = _additive(tree.visible, query.dtype)
        grad_f, query_f, found_f = (
            _fold(tree.by_prompt.spread(each), kv_heads) for each in (grad, query, found)
        )
        total_f = _fold(tree.by_prompt.spread(total), kv_heads)[..., 0]
        from_prompt, grad_prefix_keys, grad_prefix_values = kernel(
            *(grad_f, query_f, prefix_keys, prefix_values, found_f, total_f, 0.0, False),
            attn_mask=mask,
            scale=scaling,
        )
        grad_query = tree.by_prompt.gather(_unfold(from_prompt, tree.by_prompt.columns))
        grad_a, found_a, total_a = (
            tree.by_answer.spread(each).transpose(1, 2) for each in (grad, found, total)
        )
        query_a, key_a, value_a = _own(tree, query, key, value)
        from_own, grad_key, grad_value = kernel(
            *(grad_a, query_a, key_a, value_a, found_a, total_a[..., 0], 0.0, True),
            scale=scaling,
        )
        grad_query = grad_query + tree.by_answer.gather(from_own.transpose(1, 2))
        grad_key, grad_value = (
            tree.by_answer.gather(each.transpose(1, 2))
            .unflatten(1, (kv_heads, num_heads // kv_heads))
            .sum(2)
            for each in (grad_key, grad_value)
        )
        return (
            *(grad_query, grad_key, grad_value, grad_prefix_keys, grad_prefix_values),
            None,
            None,
        )


def _own(tree: Answers, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """Query, keys and values laid out by answer: (answer, head, token, width)."""
    rows = [tree.by_answer.spread(states) for states in (query, key, value)]
    return [_repeat_heads(states, query.shape[1]).transpose(1, 2) for states in rows]


def _additive(visible: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The kernel's form of a mask of positions, the same for all heads and queries."""
    if visible is None:
        return None
    hidden = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return hidden.masked_fill(~visible, float("-inf"))[:, None, None]


class Decoding:
    """Answers in progress, one token each a step; their keys and values lie in buffers that grow.

    Rows of a prompt form a group, groups are padded to the largest.
    """

    def __init__(self, prefix: Prefix, owners: Int[Tensor, " row"]) -> None:
        """Args: owners: the prompt of each row; they rise."""
        self._buffers: list[Tensor] = []  # per layer (2, group, kv_head, member, token, width)
        self.num_tokens = 0
        self._group(prefix, owners)

    def _group(self, prefix: Prefix, owners: Tensor) -> None:
        live, counts = owners.unique_consecutive(return_counts=True)
        if len(live) < len(prefix.lengths):
            layers = [LayerPrefix(keys[live], values[live]) for keys, values in prefix.layers]
            prefix = Prefix(layers, prefix.lengths[live])
        self.prefix, self._slots = prefix, Slots.of(counts)
        self._owners = torch.arange(len(live), device=owners.device).repeat_interleave(counts)
        visible = prefix.visible
        self._hidden = None if visible is None else ~visible[:, None]

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Drops all other rows."""
        old = self._slots
        place = torch.arange(old.rows * old.columns) if old.place is None else old.place.cpu()
        place = place.to(rows.device)[rows]
        self._group(self.prefix, self._owners[rows])
        self._buffers = [
            self._slots.spread(buffer.permute(1, 3, 0, 2, 4, 5).flatten(0, 1)[place])
            .permute(2, 0, 3, 1, 4, 5)
            .contiguous()
            for buffer in self._buffers
        ]

    def attend(self, layer: int, query: Heads, key: Heads, value: Heads, scaling: float) -> Heads:
        """Each row's new token sees its prompt and the row's tokens up to itself."""
        keys, values = self._append(layer, key, value)
        prefix_keys, prefix_values = self.prefix.layers[layer]
        kv_heads, num_seen = prefix_keys.shape[1], prefix_keys.shape[2]
        groups, members = self._slots.rows, self._slots.columns
        rows = self._slots.spread(query[0].transpose(0, 1)).unflatten(2, (kv_heads, -1))
        rows = (rows.transpose(1, 2) * scaling).contiguous()
        heads, width = rows.shape[3:]  # (group, kv_head, member, head of it, width)
        by_prompt = (groups * kv_heads, members * heads)
        by_row = (groups * kv_heads * members, heads)
        scores = rows.new_empty(*by_row, num_seen + keys.shape[1])
        shared = rows.view(*by_prompt, width) @ prefix_keys.flatten(0, 1).transpose(1, 2)
        scores[..., :num_seen] = shared.view(*by_row, num_seen)
        scores[..., num_seen:] = rows.view(*by_row, width) @ keys.transpose(1, 2)
        if self._hidden is not None:
            of_groups = scores.view(groups, -1, scores.shape[-1])[..., :num_seen]
            of_groups.masked_fill_(self._hidden, float("-inf"))
        weights = scores.softmax(-1)
        of_prompt = weights[..., :num_seen].reshape(*by_prompt, num_seen)
        found = (of_prompt @ prefix_values.flatten(0, 1)).view(*by_row, width)
        found = torch.baddbmm(found, weights[..., num_seen:], values)
        found = found.view(groups, kv_heads, members, heads, width).transpose(1, 2).flatten(2, 3)
        return self._slots.gather(found).transpose(0, 1)[None]

    def _append(self, layer: int, key: Heads, value: Heads) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens so far: (group * kv_head * member, token, width)."""
        if layer == len(self._buffers):
            _, kv_heads, _, width = key.shape
            shape = (2, self._slots.rows, kv_heads, self._slots.columns, 64, width)
            self._buffers.append(key.new_empty(shape))
        buffer = self._buffers[layer]
        if buffer.shape[-2] == self.num_tokens:
            buffer = torch.cat([buffer, torch.empty_like(buffer)], -2)
            self._buffers[layer] = buffer
        for part, states in zip(buffer, (key, value), strict=True):
            new = self._slots.spread(states[0].transpose(0, 1))
            part[..., self.num_tokens, :] = new.transpose(1, 2)
        seen = buffer.flatten(1, 3)[:, :, : self.num_tokens + 1]
        return seen[0], seen[1]
