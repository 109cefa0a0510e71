"""The sparse feed-forward layer: a router sends each token to its top-k experts.

Source: MiniMax-01 report (arXiv 2501.08313) sections 2.1 and 4.2. Dropless by default, as the
released inference code; with a capacity, experts drop what is too much, as in its training.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration import MiniMaxVLTextConfig

_PART_TOKENS = 512
"""Tokens an expert works on at once where no graph is kept."""


class MoeOutput(NamedTuple):
    """Layer output, the router's logits (float32), and the share of routed slots dropped."""

    hidden: Float[Tensor, "token hidden"]
    router_logits: Float[Tensor, "token expert"]
    dropped_frac: Float[Tensor, ""] | None
    """None where nothing can be dropped."""


class Experts(nn.Module):
    """All experts' weights, fused: `down(silu(gate x) * (up x))` each."""

    def __init__(self, config: MiniMaxVLTextConfig) -> None:
        super().__init__()
        experts, inner, hidden = (
            config.num_local_experts,
            config.intermediate_size,
            config.hidden_size,
        )
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * inner, hidden))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, inner))

    def forward(self, tokens: Tensor, counts: list[int]) -> Tensor:
        """Tokens sorted by expert, `counts[e]` of them for expert e."""
        gate_up, down = self.gate_up_proj, self.down_proj
        if torch.is_grad_enabled():
            # the backward of an index each would fill zeros for all other experts, each time
            gate_up, down = gate_up.unbind(0), down.unbind(0)
        outputs: list[Tensor] = []
        for expert, chunk in enumerate(tokens.split(counts)):
            if not counts[expert]:
                continue
            # without a graph in parts, whose inner values stay in a core's cache
            whole = torch.is_grad_enabled() or chunk.device.type != "cpu"
            for part in chunk.split(counts[expert] if whole else _PART_TOKENS):
                gate, up = F.linear(part, gate_up[expert]).chunk(2, dim=-1)
                outputs.append(F.linear(F.silu(gate) * up, down[expert]))
        return torch.cat(outputs) if outputs else tokens


class Router(nn.Linear):
    """Experts' logits in float32, whatever the weight's type and autocast."""

    def forward(self, input: Float[Tensor, "token hidden"]) -> Float[Tensor, "token expert"]:
        """One logit an expert."""
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(input.float(), self.weight.float())


class SparseMoeBlock(nn.Module):
    """Router and experts; weights of the chosen experts sum to 1."""

    def __init__(self, config: MiniMaxVLTextConfig) -> None:
        super().__init__()
        self.num_experts_per_tok = config.num_experts_per_tok
        self.num_experts = config.num_local_experts
        self.jitter_noise = config.router_jitter_noise
        self.capacity_factor = config.router_capacity_factor
        self.gate = Router(config.hidden_size, config.num_local_experts, bias=False)
        self.experts = Experts(config)

    def forward(
        self,
        hidden: Float[Tensor, "token hidden"],
        counted: Bool[Tensor, " token"] | None = None,
    ) -> MoeOutput:
        """Mix of the top-k experts' outputs for every token.

        Args:
            counted: False at padding, which takes no expert's room; None = all are real.
        """
        seen = hidden.float()
        if self.training and self.jitter_noise:
            # departs from the released code: it multiplies the layer's input in place, residual
            # and experts included; this is Switch Transformer's rule (arXiv 2101.03961, 2.2)
            noise = torch.empty_like(seen).uniform_(1 - self.jitter_noise, 1 + self.jitter_noise)
            seen = seen * noise
        logits = self.gate(seen)  # called, so that adapters around it count
        probs = logits.softmax(-1)
        weights, chosen = probs.topk(self.num_experts_per_tok, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        if self.capacity_factor is None or not self.training:
            return MoeOutput(self._mix(hidden, weights, chosen), logits, None)
        kept = slots_within_capacity(chosen, self.num_experts, self.capacity_factor, counted)
        real = torch.ones_like(kept) if counted is None else counted[:, None].expand_as(kept)
        dropped = 1.0 - kept.sum() / real.sum().clamp_min(1)
        return MoeOutput(self._mix(hidden, weights, chosen, kept), logits, dropped)

    @torch.compiler.disable()  # how many tokens an expert gets is known only when it runs
    def _mix(
        self,
        hidden: Float[Tensor, "token hidden"],
        weights: Float[Tensor, "token slot"],
        chosen: Int[Tensor, "token slot"],
        kept: Bool[Tensor, "token slot"] | None = None,
    ) -> Float[Tensor, "token hidden"]:
        """Sum over slots of weight x expert(token); slots not `kept` add nothing."""
        slots = self.num_experts_per_tok
        if self.num_experts == 1 and kept is None:
            return self.experts(hidden, [hidden.shape[0]])
        flat = chosen.flatten()
        if kept is not None:  # dropped slots go behind the last expert
            flat = torch.where(kept.flatten(), flat, self.num_experts)
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=self.num_experts).tolist()[: self.num_experts]
        order = order[: sum(counts)]
        token = order // slots
        outputs = self.experts(hidden.index_select(0, token), counts)
        outputs = outputs * weights.flatten()[order, None].to(hidden.dtype)
        return torch.zeros_like(hidden).index_add(0, token, outputs)


def slots_within_capacity(
    chosen: Int[Tensor, "token slot"],
    num_experts: int,
    factor: float,
    counted: Bool[Tensor, " token"] | None = None,
) -> Bool[Tensor, "token slot"]:
    """Which of the tokens' choices their experts have room for.

    An expert takes ceil(factor * tokens * k / E) tokens. First choices go before second ones, and
    earlier tokens before later ones. Source: GShard (arXiv 2006.16668) algorithm 1.
    """
    tokens, slots = chosen.shape
    num_counted = tokens if counted is None else int(counted.sum())
    capacity = math.ceil(factor * num_counted * slots / num_experts)
    taken = F.one_hot(chosen.T.flatten(), num_experts)  # slot by slot, tokens in order
    if counted is not None:
        taken = taken * counted.repeat(slots)[:, None]
    place = (taken.cumsum(0) * taken).sum(-1)  # 1 = the expert's first token, 0 = padding
    return ((place > 0) & (place <= capacity)).view(slots, tokens).T


def load_balancing_loss(
    router_probs: Float[Tensor, "layer token expert"],
    num_experts_per_tok: int,
    counted: Bool[Tensor, " token"] | None = None,
) -> Float[Tensor, ""]:
    """`E * sum_i f_i P_i`, f_i = expert i's share of chosen slots, P_i = its mean probability.

    1.0 at perfect balance. Source: Switch Transformer (arXiv 2101.03961) eq. 4, averaged over
    layers. Two other forms of the same sum are in use, so coefficients do not carry over:
    transformers lets f sum to k and pools the layers (about k times this); the MiniMax-01
    report (section 4.2) writes `(1/E) * sum_i f_i m_i`, this times k / E^2.

    Args:
        counted: False at padding, which is left out; None = all tokens are real.
    """
    experts = router_probs.shape[-1]
    if counted is not None:
        router_probs = router_probs[:, counted]
    chosen = router_probs.topk(num_experts_per_tok, dim=-1).indices
    share = F.one_hot(chosen, experts).float().mean((1, 2))
    return experts * (share * router_probs.mean(1)).sum(-1).mean()
