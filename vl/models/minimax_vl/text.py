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

from .cache import LayerState, MiniMaxVLCache
from .configuration import LIGHTNING, MiniMaxVLTextConfig
from .lightning import decay_slopes, lightning_attention_packed, lightning_step
from .moe import SparseMoeBlock


class TextOutput(NamedTuple):
    """Normed hidden states, the cache that includes them, and each layer's router probabilities."""

    hidden: Float[Tensor, "batch token hidden"]
    cache: MiniMaxVLCache
    router_probs: tuple[Tensor, ...]


class Positions(NamedTuple):
    """What all layers need to know about one chunk's tokens."""

    valid: Bool[Tensor, "batch token"]
    all_valid: bool
    attended: Bool[Tensor, "batch 1 token key"] | None
    """Which keys each token may see; None = plain causal over a chunk without a prefix."""
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
        self.norm = nn.RMSNorm(inner, eps=1e-6)
        self.out_proj = nn.Linear(inner, config.hidden_size, bias=False)
        # recomputed, never saved: a table cast to bfloat16 loses the slow heads' decay
        self._slopes = decay_slopes(self.heads, layer, config.num_hidden_layers)

    def forward(
        self, hidden: Tensor, positions: Positions, past: LayerState | None
    ) -> tuple[Tensor, LayerState]:
        """Attention output (B, T, hidden) and the state after the chunk."""
        batch, tokens, _ = hidden.shape
        packed = self.qkv_proj(hidden).view(batch, tokens, self.heads, 3 * self.head_dim)
        slopes = torch.tensor(self._slopes, device=hidden.device)
        state = None if past is None else past.state
        if tokens == 1 and state is not None and positions.all_valid:
            query, key, value = F.silu(packed[:, 0]).chunk(3, dim=-1)  # (B, H, D) each
            step, state = lightning_step(query, key, value, slopes, state)
            mixed = step[:, None]  # (B, 1, H, D)
        else:
            output = lightning_attention_packed(
                packed,
                slopes,
                valid=None if positions.all_valid else positions.valid,
                state=state,
                block_tokens=self.block_tokens,
            )
            mixed, state = output.output.transpose(1, 2), output.state
        mixed = self.norm(mixed.reshape(batch, tokens, -1))
        gated = torch.sigmoid(self.output_gate(hidden)) * mixed
        return self.out_proj(gated), LayerState(state=state)


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
        if past is not None and past.key is not None and past.value is not None:
            key = torch.cat([past.key, key], dim=2)
            value = torch.cat([past.value, value], dim=2)
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=positions.attended,
            is_causal=positions.attended is None,
            enable_gqa=True,
        )
        output = self.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))
        return output, LayerState(key=key, value=value)

    def _rotate(self, heads: Tensor, positions: Positions) -> Tensor:
        rotated, passed = heads.split([self.rotary_dim, self.head_dim - self.rotary_dim], dim=-1)
        first, second = rotated.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
        rotated = (rotated * positions.cos + turned * positions.sin).to(heads.dtype)
        return torch.cat([rotated, passed], dim=-1)


class DecoderLayer(nn.Module):
    """Post-norm layer: the residual is the normed input, weighted by alpha (DeepNorm)."""

    def __init__(self, config: MiniMaxVLTextConfig, layer: int) -> None:
        super().__init__()
        self.alpha = config.layernorm_alpha
        lightning = config.attn_type_list[layer] == LIGHTNING
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = (
            LightningAttention(config, layer) if lightning else SoftmaxAttention(config)
        )
        self.block_sparse_moe = SparseMoeBlock(config)

    def forward(
        self, hidden: Tensor, positions: Positions, past: LayerState | None
    ) -> tuple[Tensor, LayerState, Tensor]:
        """New hidden states, the layer's memory, and the router's probabilities."""
        hidden = self.input_layernorm(hidden)
        attended, state = self.self_attn(hidden, positions, past)
        hidden = self.post_attention_layernorm(self.alpha * hidden + attended)
        moe = self.block_sparse_moe(hidden.flatten(0, 1))
        return self.alpha * hidden + moe.hidden.view_as(hidden), state, moe.router_probs


class MiniMaxTextModel(nn.Module):
    """Token embeddings, decoder layers and the last norm."""

    def __init__(self, config: MiniMaxVLTextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self,
        inputs_embeds: Float[Tensor, "batch token hidden"],
        valid: Bool[Tensor, "batch token"] | None = None,
        cache: MiniMaxVLCache | None = None,
    ) -> TextOutput:
        """Reads one chunk after `cache` (None = nothing). `valid` None means no padding."""
        all_valid = valid is None
        if valid is None:
            shape = inputs_embeds.shape[:2]
            valid = torch.ones(shape, dtype=torch.bool, device=inputs_embeds.device)
        positions = self._positions(valid, all_valid, cache)
        hidden = inputs_embeds
        states: list[LayerState] = []
        router_probs: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            past = None if cache is None else cache.layers[index]
            hidden, state, probs = layer(hidden, positions, past)
            states.append(state)
            router_probs.append(probs)
        every = valid if cache is None else torch.cat([cache.valid, valid], dim=1)
        new_cache = MiniMaxVLCache(layers=tuple(states), valid=every)
        return TextOutput(self.norm(hidden), new_cache, tuple(router_probs))

    def _positions(
        self, valid: Bool[Tensor, "batch token"], all_valid: bool, cache: MiniMaxVLCache | None
    ) -> Positions:
        index = (valid.cumsum(1) - 1).clamp_min(0)
        if cache is not None:
            index = index + cache.num_tokens[:, None]
        cos, sin = self._rotary(index)
        if cache is None and all_valid:
            return Positions(valid, all_valid, None, cos, sin)
        tokens = valid.shape[1]
        device = valid.device
        causal = torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()
        # a padding token sees itself, so that no softmax row is empty
        own = torch.eye(tokens, dtype=torch.bool, device=device)
        attended = (causal & valid[:, None, :]) | own
        if cache is not None:
            before = cache.valid[:, None, :].expand(-1, tokens, -1)
            attended = torch.cat([before, attended], dim=2)
        return Positions(valid, all_valid, attended[:, None], cos, sin)

    def _rotary(self, index: Int[Tensor, "batch token"]) -> tuple[Tensor, Tensor]:
        half = self.config.rotary_dim // 2
        exponent = torch.arange(half, device=index.device, dtype=torch.float32) / max(half, 1)
        angle = index[..., None].float() * self.config.rope_theta**-exponent
        angle = torch.cat([angle, angle], dim=-1)[:, None]  # (B, 1, T, rotary)
        return angle.cos(), angle.sin()


class MiniMaxTextForCausalLM(nn.Module):
    """The decoder with its language-model head, under the released module names."""

    def __init__(self, config: MiniMaxVLTextConfig) -> None:
        super().__init__()
        self.model = MiniMaxTextModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def logits(self, hidden: Float[Tensor, "... hidden"]) -> Float[Tensor, "... vocab"]:
        """Next-token logits, computed in float32 (MiniMax-M1 report, section 3.2)."""
        return F.linear(hidden.float(), self.lm_head.weight.float())
