"""The sparse layer against a loop over tokens, and the balancing loss by hand."""

import pytest
import torch
from torch.nn import functional as F
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from vl.models.minimax_vl import MiniMaxVLTextConfig
from vl.models.minimax_vl.moe import (
    SparseMoeBlock,
    load_balancing_loss,
    slots_within_capacity,
)


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


def test_padding_has_no_say_in_the_balancing_loss():
    probs = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(0)).softmax(-1)
    counted = torch.tensor([True, False, True, True, False])
    found = load_balancing_loss(probs, 2, counted)
    torch.testing.assert_close(found, load_balancing_loss(probs[:, [0, 2, 3]], 2))
    assert abs(found.item() - load_balancing_loss(probs, 2).item()) > 1e-4


def test_the_two_other_forms_of_the_loss_are_multiples_of_ours():
    probs = torch.rand(1, 40, 4, generator=torch.Generator().manual_seed(0)).softmax(-1)
    ours = load_balancing_loss(probs, 2).item()
    theirs = load_balancing_loss_func((probs[0].log(),), 4, 2).item()
    assert theirs == pytest.approx(2 * ours)
    f = F.one_hot(probs[0].topk(2).indices, 4).float().sum(1).mean(0)  # tokens of each expert
    report = (f * probs[0].mean(0)).sum().item() / 4
    assert report == pytest.approx(ours * 2 / 4**2)


def test_an_expert_takes_no_more_than_its_capacity_first_choices_first():
    # 4 tokens, k = 2, E = 3: even share 8/3, capacity ceil(1.0 * 8/3) = 3
    chosen = torch.tensor([[1, 0], [0, 1], [0, 2], [0, 1]])
    kept = slots_within_capacity(chosen, 3, 1.0)
    # expert 0: first choices of tokens 1, 2, 3 fill it, token 0's second choice is dropped;
    # expert 1: first choice of token 0, then second choices of tokens 1 and 3
    assert kept.tolist() == [[True, False], [True, True], [True, True], [True, True]]
    tight = slots_within_capacity(chosen, 3, 0.5)  # capacity ceil(4/3) = 2
    assert tight.tolist() == [[True, False], [True, True], [True, True], [False, False]]


def test_padding_takes_no_room():
    chosen = torch.zeros(4, 1, dtype=torch.long)
    counted = torch.tensor([False, True, False, True])
    # two real tokens, one of two experts: capacity ceil(1.0 * 2 / 2) = 1
    kept = slots_within_capacity(chosen, 2, 1.0, counted)
    assert kept.flatten().tolist() == [False, True, False, False]


def sparse(**settings):
    torch.manual_seed(0)
    config = MiniMaxVLTextConfig(
        hidden_size=6, intermediate_size=5, num_local_experts=5, num_experts_per_tok=2, **settings
    )
    block = SparseMoeBlock(config)
    for param in block.parameters():
        torch.nn.init.normal_(param)
    return block


def test_a_dropped_token_loses_that_expert_and_the_share_is_told():
    block, tokens = sparse(router_capacity_factor=0.5), torch.randn(12, 6)
    found = block(tokens)  # capacity ceil(0.5 * 24 / 5) = 3
    probs = found.router_logits.softmax(-1)
    weights, chosen = probs.topk(2)
    kept = slots_within_capacity(chosen, 5, 0.5)
    weights = weights / weights.sum(-1, keepdim=True) * kept
    expected = torch.zeros_like(tokens)
    for row in range(12):
        for slot in range(2):
            e = chosen[row, slot]
            gate, up = (block.experts.gate_up_proj[e] @ tokens[row]).chunk(2)
            out = block.experts.down_proj[e] @ (F.silu(gate) * up)
            expected[row] += weights[row, slot] * out
    torch.testing.assert_close(found.hidden, expected, rtol=1e-5, atol=1e-5)
    assert not kept.all()
    assert found.dropped_frac.item() == pytest.approx(1 - kept.sum().item() / 24)
    assert block.eval()(tokens).dropped_frac is None


def test_capacity_drops_nobody_when_there_is_room():
    tokens = torch.randn(12, 6)
    wide = sparse(router_capacity_factor=5.0)(tokens)
    assert wide.dropped_frac.item() == 0.0
    torch.testing.assert_close(wide.hidden, sparse()(tokens).hidden)


def test_jitter_moves_the_router_alone_and_only_in_training():
    block, tokens = sparse(router_jitter_noise=0.5), torch.randn(12, 6)
    before = tokens.clone()
    noisy = block(tokens)
    assert torch.equal(tokens, before)
    calm = block.eval()(tokens)
    assert not torch.allclose(noisy.router_logits, calm.router_logits)
    torch.testing.assert_close(calm.hidden, sparse()(tokens).hidden)
    same = (noisy.router_logits.topk(2).indices == calm.router_logits.topk(2).indices).all(-1)
    assert same.any()  # experts read the token as it is: only the weights differ
    for row in same.nonzero().flatten().tolist():
        weights = noisy.router_logits[row].softmax(-1).topk(2)
        mixed = 0
        for weight, e in zip(weights.values / weights.values.sum(), weights.indices, strict=True):
            gate, up = (block.experts.gate_up_proj[e] @ tokens[row]).chunk(2)
            mixed = mixed + weight * (block.experts.down_proj[e] @ (F.silu(gate) * up))
        torch.testing.assert_close(noisy.hidden[row], mixed, rtol=1e-5, atol=1e-5)
