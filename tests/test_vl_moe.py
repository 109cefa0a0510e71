"""The sparse layer against a loop over tokens, and the balancing loss by hand."""

import pytest
import torch
from torch.nn import functional as F

from vl.models.minimax_vl import MiniMaxVLTextConfig
from vl.models.minimax_vl.moe import SparseMoeBlock, load_balancing_loss


@pytest.fixture
def block():
    torch.manual_seed(0)
    config = MiniMaxVLTextConfig(
        hidden_size=6, intermediate_size=5, num_local_experts=5, num_experts_per_tok=2
    )
    block = SparseMoeBlock(config)
    for param in block.parameters():
        torch.nn.init.normal_(param)
    return block


def one_token(block, token):
    """The definition, an expert at a time."""
    probs = (block.gate.weight @ token).softmax(-1)
    best = sorted(range(5), key=lambda e: -probs[e].item())[:2]
    total = sum(probs[e] for e in best)
    mixed = torch.zeros_like(token)
    for e in best:
        gate, up = (block.experts.gate_up_proj[e] @ token).chunk(2)
        mixed = mixed + probs[e] / total * (block.experts.down_proj[e] @ (F.silu(gate) * up))
    return mixed


def test_the_layer_equals_a_loop_over_tokens_and_experts_in_value_and_gradient(block):
    tokens = torch.randn(11, 6)
    found = block(tokens)
    expected = torch.stack([one_token(block, token) for token in tokens])
    torch.testing.assert_close(found.hidden, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn(11, 6)
    params = list(block.parameters())
    gradients = torch.autograd.grad((found.hidden * weight).sum(), params)
    wanted = torch.autograd.grad((expected * weight).sum(), params)
    for got, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_an_expert_that_nobody_chose_does_no_harm(block):
    with torch.no_grad():
        block.gate.weight.zero_()
        block.gate.weight[1, 0], block.gate.weight[3, 0] = 4.0, 3.0
    tokens = torch.rand(4, 6) + 0.5
    torch.testing.assert_close(
        block(tokens).hidden, torch.stack([one_token(block, t) for t in tokens])
    )


def test_the_balancing_loss_is_one_at_balance():
    # four tokens, each expert chosen twice, mean probability 1/4 each
    probs = torch.tensor(
        [[0.4, 0.4, 0.1, 0.1], [0.1, 0.1, 0.4, 0.4], [0.4, 0.1, 0.4, 0.1], [0.1, 0.4, 0.1, 0.4]]
    )
    assert load_balancing_loss(probs[None], 2).item() == pytest.approx(1.0)


def test_the_balancing_loss_of_a_collapsed_router():
    # every token to expert 0 with 0.7: 4 * (1 * 0.7); the second layer is at balance
    collapsed = torch.tensor([[0.7, 0.1, 0.1, 0.1]]).expand(4, 4)
    balanced = torch.eye(4)
    both = torch.stack([collapsed, balanced])
    assert load_balancing_loss(both, 1).item() == pytest.approx((2.8 + 1.0) / 2)
