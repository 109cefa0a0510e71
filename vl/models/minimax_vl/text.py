"""The hybrid decoder: lightning and softmax attention layers over MoE feed-forward.

Source: MiniMax-01 report (arXiv 2501.08313) section 2; layer order, norms and residual weights as
in the released modelling code. Module names follow the released checkpoint.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from .cache import LayerState, MiniMaxVLCache
from .configuration import LIGHTNING, MiniMaxVLTextConfig
from .lightning import gated_norm, lightning_mix, lightning_step
from .lightning_fla import lightning_attention_fla, load_kernel
from .lightning_spans import decay_slopes
from .moe import MoeOutput, SparseMoeBlock
from .norm import RmsNorm
from .packing import positions_of
from .softmax import Reach, attend, reach_of_chunk


class TextOutput(NamedTuple):
    """Normed hidden states, the cache that includes them, and what each layer's router did."""

    hidden: Float[Tensor, "batch token hidden"]
    cache: MiniMaxVLCache
    router_logits: tuple[Float[Tensor, "token expert"], ...]
    dropped_frac: Float[Tensor, ""] | None
    """Share of routed slots dropped for want of capacity, mean over layers; None = no limit."""


class Positions(NamedTuple):
    """What all layers need to know about one chunk's tokens."""

    valid: Bool[Tensor, "batch token"] | None
    """False at padding; None = no padding."""
    documents: Int[Tensor, "batch token"] | None
    """Number of each token's document, 0 = the one the cache belongs to; None = all 0."""
    reach: Reach | None
    """Which keys each token may see; None = causal without a prefix, or one token sees all."""
    cos: Float[Tensor, "batch 1 token rotary"]
    sin: Float[Tensor, "batch 1 token rotary"]


class LightningAttention(nn.Module):
    """SiLU'd q, k, v in per-head order; RMSNorm over all heads jointly; sigmoid output gate."""

    def __init__(self, config: MiniMaxVLTextConfig, layer: int) -> None:
        super().__init__()
        self.heads, self.head_dim = config.num_attention_heads, config.head_dim
        inner = self.heads * self.head_dim
        self.block_tokens = config.lightning_block_tokens
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * inner, bias=False)
        self.output_gate = nn.Linear(config.hidden_size, inner, bias=False)
        self.norm_eps = 1e-6  # the released class's default, not `rms_norm_eps`
        self.norm = RmsNorm(inner, eps=self.norm_eps)
        self.out_proj = nn.Linear(inner, config.hidden_size, bias=False)
        self._kernel = load_kernel() if config.lightning_kernel == "fla" else None
        # recomputed, never saved: a table cast to bfloat16 loses the slow heads' decay
        self._slopes = decay_slopes(self.heads, layer, config.num_hidden_layers)

    def forward(
        self, hidden: Tensor, positions: Positions, past: LayerState | None
    ) -> tuple[Tensor, LayerState]:
        """Attention output (B, T, hidden) and the state after the chunk."""
        batch, tokens, _ = hidden.shape
        packed = self.qkv_proj(hidden).view(batch, tokens, self.heads, 3 * self.head_dim)
        gate = self.output_gate(hidden)
        slopes = torch.tensor(self._slopes, device=hidden.device)
        state = None if past is None else past.state
        plain = positions.valid is None and positions.documents is None
        exact = torch.promote_types(hidden.dtype, torch.float32)
        if tokens == 1 and state is not None and plain:
            query, key, value = F.silu(packed[:, 0].to(exact)).chunk(3, dim=-1)  # (B, H, D)
            step, state = lightning_step(query, key, value, slopes, state)
            rows = step[:, None]  # (B, 1, H, D)
        elif self._kernel is not None:
            query, key, value = F.silu(packed.to(exact)).to(hidden.dtype).chunk(3, dim=-1)
            rows, state = lightning_attention_fla(
                self._kernel,
                query,
                key,
                value,
                slopes,
                valid=positions.valid,
                documents=positions.documents,
                state=state,
            )
        else:
            mixed, state = lightning_mix(
                packed,
                gate,
                self.norm.weight,
                slopes,
                eps=self.norm_eps,
                valid=positions.valid,
                documents=positions.documents,
                state=state,
                block_tokens=self.block_tokens,
            )
            return self.out_proj(mixed), LayerState(state=state)
        rows = rows.to(exact)
        mixed = gated_norm(rows, gate.view_as(rows), self.norm.weight, self.norm_eps)
        mixed = mixed.to(hidden.dtype).flatten(2)
        return self.out_proj(mixed), LayerState(state=state)


class SoftmaxAttention(nn.Module):
    """Grouped-query attention; rotary positions on the leading `rotary_dim` dimensions only."""

    def __init__(self, config: MiniMaxVLTextConfig) -> None:
        super().__init__()
        self.head_dim, self.rotary_dim = config.head_dim, config.rotary_dim
        query_dim = config.num_attention_heads * self.head_dim
        kv_dim = config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv_dim, bias=False)
        self.o_proj = nn.Linear(query_dim, config.hidden_size, bias=False)

    def forward(
        self, hidden: Tensor, positions: Positions, past: LayerState | None
    ) -> tuple[Tensor, LayerState]:
        """Attention output (B, T, hidden) and keys and values including the chunk's."""
        batch, tokens, _ = hidden.shape

        def heads(tensor: Tensor) -> Tensor:
            return tensor.view(batch, tokens, -1, self.head_dim).transpose(1, 2)

        query = self._rotate(heads(self.q_proj(hidden)), positions)
        key = self._rotate(heads(self.k_proj(hidden)), positions)
        value = heads(self.v_proj(hidden))
        memory = (past or LayerState()).extend(key, value)
        assert memory.key is not None and memory.value is not None
        mixed = attend(query, memory.key, memory.value, positions.reach)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, -1)), memory

    def _rotate(self, heads: Tensor, positions: Positions) -> Tensor:
        rotated, passed = heads.split([self.rotary_dim, self.head_dim - self.rotary_dim], dim=-1)
        first, second = rotated.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
        rotated = (rotated * positions.cos + turned * positions.sin).to(heads.dtype)
        return torch.cat([rotated, passed], dim=-1)


class DecoderLayer(GradientCheckpointingLayer):
    """Post-norm layer: the residual is the normed input, weighted by alpha (DeepNorm)."""

    def __init__(self, config: MiniMaxVLTextConfig, layer: int) -> None:
        super().__init__()
        lightning = config.attn_type_list[layer] == LIGHTNING
        self.postnorm = config.postnorm
        self.attention_weights = (
            (config.layernorm_linear_attention_alpha, config.layernorm_linear_attention_beta)
            if lightning
            else (config.layernorm_full_attention_alpha, config.layernorm_full_attention_beta)
        )
        self.mlp_weights = (config.layernorm_mlp_alpha, config.layernorm_mlp_beta)
        self.input_layernorm = RmsNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = (
            LightningAttention(config, layer) if lightning else SoftmaxAttention(config)
        )
        self.block_sparse_moe = SparseMoeBlock(config)

    def forward(
        self, hidden: Tensor, positions: Positions, past: LayerState | None
    ) -> tuple[Tensor, LayerState, MoeOutput]:
        """New hidden states, the layer's memory, and what the router did."""
        normed = self.input_layernorm(hidden)
        attended, state = self.self_attn(normed, positions, past)
        residual = normed if self.postnorm else hidden
        hidden = _weighted_sum(residual, attended, self.attention_weights)
        normed = self.post_attention_layernorm(hidden)
        counted = None if positions.valid is None else positions.valid.flatten()
        moe = self.block_sparse_moe(normed.flatten(0, 1), counted)
        residual = normed if self.postnorm else hidden
        return _weighted_sum(residual, moe.hidden.view_as(normed), self.mlp_weights), state, moe


def _weighted_sum(residual: Tensor, added: Tensor, weights: tuple[float, float]) -> Tensor:
    """`alpha * residual + beta * added`."""
    alpha, beta = weights
    return torch.add(added if beta == 1.0 else beta * added, residual, alpha=alpha)


class MiniMaxTextModel(nn.Module):
    """Token embeddings, decoder layers and the last norm."""

    def __init__(self, config: MiniMaxVLTextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = RmsNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self,
        inputs_embeds: Float[Tensor, "batch token hidden"],
        valid: Bool[Tensor, "batch token"] | None = None,
        cache: MiniMaxVLCache | None = None,
        documents: Int[Tensor, "batch token"] | None = None,
    ) -> TextOutput:
        """Reads one chunk after `cache` (None = nothing).

        Args:
            valid: False at padding; None = no padding.
            documents: number of each token's document, rising along the row: 0 continues `cache`,
                others start anew and see only themselves. None = all 0.
        """
        if cache is not None and cache.get_seq_length() == 0:
            cache = None
        if valid is not None and bool(valid.all()):
            valid = None
        positions = self._positions(inputs_embeds, valid, documents, cache)
        hidden = inputs_embeds
        states: list[LayerState] = []
        routed: list[MoeOutput] = []
        for index, layer in enumerate(self.layers):
            past = None if cache is None else cache.layers[index]
            hidden, state, moe = layer(hidden, positions, past)
            states.append(state)
            routed.append(moe)
        new_cache = _cache_after(tuple(states), inputs_embeds, positions, cache)
        logits = tuple(moe.router_logits for moe in routed)
        dropped = [moe.dropped_frac for moe in routed if moe.dropped_frac is not None]
        mean_dropped = torch.stack(dropped).mean() if dropped else None
        return TextOutput(self.norm(hidden), new_cache, logits, mean_dropped)

    def _positions(
        self,
        embeds: Tensor,
        valid: Bool[Tensor, "batch token"] | None,
        documents: Int[Tensor, "batch token"] | None,
        cache: MiniMaxVLCache | None,
    ) -> Positions:
        shape, device = embeds.shape[:2], embeds.device
        every = torch.ones(shape, dtype=torch.bool, device=device) if valid is None else valid
        before = torch.zeros(shape[0], dtype=torch.long, device=device)
        if cache is not None:
            before = cache.num_tokens
        cos, sin = self._rotary(positions_of(every, documents, before))
        causal = cache is None or (shape[1] == 1 and cache.all_valid)
        if causal and valid is None and documents is None:
            return Positions(None, None, None, cos, sin)
        reach = reach_of_chunk(every, documents, None if cache is None else cache.valid)
        return Positions(valid, documents, reach, cos, sin)

    def _rotary(self, index: Int[Tensor, "batch token"]) -> tuple[Tensor, Tensor]:
        half = self.config.rotary_dim // 2
        exponent = torch.arange(half, device=index.device, dtype=torch.float32) / max(half, 1)
        angle = index[..., None].float() * self.config.rope_theta**-exponent
        angle = torch.cat([angle, angle], dim=-1)[:, None]  # (B, 1, T, rotary)
        return angle.cos(), angle.sin()


def _cache_after(
    layers: tuple[LayerState, ...],
    embeds: Tensor,
    positions: Positions,
    cache: MiniMaxVLCache | None,
) -> MiniMaxVLCache:
    """The cache with the chunk in it; of packed documents, the last is the one that goes on."""
    valid, documents = positions.valid, positions.documents
    all_valid = valid is None and documents is None and (cache is None or cache.all_valid)
    if valid is None:
        valid = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
    before = valid[:, :0] if cache is None else cache.valid
    if documents is not None:
        last = documents[:, -1:]
        valid, before = valid & (documents == last), before & (last == 0)
    every = torch.cat([before, valid], dim=1)
    return MiniMaxVLCache(layers=layers, valid=every, all_valid=all_valid)


class LanguageHead(nn.Linear):
    """Next-token logits, in float32 unless `lm_head_fp32` is off (MiniMax-M1 report, section 3.2).

    A module that is called, so that adapters and offloading around it work.
    """

    def __init__(self, config: MiniMaxVLTextConfig) -> None:
        super().__init__(config.hidden_size, config.vocab_size, bias=False)
        self.config = config

    def forward(self, input: Float[Tensor, "... hidden"]) -> Float[Tensor, "... vocab"]:
        """Logits; autocast does not lower the exact ones."""
        if not self.config.lm_head_fp32:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(input.float(), self.weight.float())


class TextWithHead(nn.Module):
    """The decoder with its language-model head, under the released module names."""

    def __init__(self, config: MiniMaxVLTextConfig) -> None:
        super().__init__()
        self.model = MiniMaxTextModel(config)
        self.lm_head: nn.Linear = LanguageHead(config)
