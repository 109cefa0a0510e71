"""The sparse feed-forward layer: a router sends each token to its top-k experts.

Source: MiniMax-01 report (arXiv 2501.08313) section 2.1; dropless, as the released inference code.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration import MiniMaxVLTextConfig


class MoeOutput(NamedTuple):
    """Layer output and the router's probabilities over all experts (float32)."""

    hidden: Float[Tensor, "token hidden"]
    router_probs: Float[Tensor, "token expert"]


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
        outputs: list[Tensor] = []
        for expert, chunk in enumerate(tokens.split(counts)):
            gate, up = F.linear(chunk, self.gate_up_proj[expert]).chunk(2, dim=-1)
            outputs.append(F.linear(F.silu(gate) * up, self.down_proj[expert]))
        return torch.cat(outputs)


class SparseMoeBlock(nn.Module):
    """Router and experts; weights of the chosen experts sum to 1."""

    def __init__(self, config: MiniMaxVLTextConfig) -> None:
        super().__init__()
        self.num_experts_per_tok = config.num_experts_per_tok
        self.num_experts = config.num_local_experts
        self.gate = nn.Linear(config.hidden_size, config.num_local_experts, bias=False)
        self.experts = Experts(config)

    def forward(self, hidden: Float[Tensor, "token hidden"]) -> MoeOutput:
        """Mix of the top-k experts' outputs for every token."""
        probs = F.linear(hidden.float(), self.gate.weight.float()).softmax(-1)
        weights, chosen = probs.topk(self.num_experts_per_tok, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=self.num_experts).tolist()
        routed = hidden.index_select(0, order // self.num_experts_per_tok)
        outputs = self.experts(routed, counts) * weights.flatten()[order, None].to(hidden.dtype)
        mixed = torch.zeros_like(hidden).index_add(0, order // self.num_experts_per_tok, outputs)
        return MoeOutput(mixed, probs)


def load_balancing_loss(
    router_probs: Float[Tensor, "layer token expert"], num_experts_per_tok: int
) -> Float[Tensor, ""]:
    """`E * sum_i f_i P_i`, f_i = expert i's share of chosen slots, P_i = its mean probability.

    1.0 at perfect balance. Source: Switch Transformer (arXiv 2101.03961) eq. 4, averaged over
    layers; f is normalised to sum 1 (transformers' version sums to k).
    """
    experts = router_probs.shape[-1]
    chosen = router_probs.topk(num_experts_per_tok, dim=-1).indices
    share = F.one_hot(chosen, experts).float().mean((1, 2))
    return experts * (share * router_probs.mean(1)).sum(-1).mean()
