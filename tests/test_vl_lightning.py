"""Lightning attention: blocked, recurrent and quadratic forms agree; padding leaves no trace."""

import math

import pytest
import torch

from vl.models.minimax_vl.lightning import (
    decay_slopes,
    lightning_attention,
    lightning_attention_packed,
    lightning_step,
)

HEADS, DIM = 3, 4
SLOPES = torch.tensor([0.5, 0.05, 0.9])


def draw(batch, tokens, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, HEADS, tokens, DIM, generator=random) for _ in range(3)]


def quadratic(query, key, value, slopes):
    """The definition, o_t = sum_{j <= t} e^{-s (t - j)} (q_t . k_j) v_j, in the inputs' type."""
    tokens = query.shape[2]
    output = torch.zeros_like(query)
    for t in range(tokens):
        for j in range(t + 1):
            decay = torch.exp(-slopes * (t - j))[None, :, None]
            dot = (query[:, :, t] * key[:, :, j]).sum(-1, keepdim=True)
            output[:, :, t] = output[:, :, t] + decay * dot * value[:, :, j]
    return output


@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 23])
def test_blocked_recurrent_and_quadratic_forms_agree(tokens):
    query, key, value = draw(2, tokens)
    blocked = lightning_attention(query, key, value, SLOPES, block_tokens=8)
    expected = quadratic(query.double(), key.double(), value.double(), SLOPES.double())
    torch.testing.assert_close(blocked.output.double(), expected, rtol=1e-5, atol=1e-5)
    state = torch.zeros(2, HEADS, DIM, DIM)
    for t in range(tokens):
        output, state = lightning_step(query[:, :, t], key[:, :, t], value[:, :, t], SLOPES, state)
        torch.testing.assert_close(output, blocked.output[:, :, t], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, blocked.state, rtol=1e-5, atol=1e-5)


def test_two_tokens_by_hand():
    ones = torch.ones(1, 1, 2, 1)
    key, value = torch.tensor([[[[2.0], [3.0]]]]), torch.tensor([[[[5.0], [7.0]]]])
    found = lightning_attention(ones, key, value, torch.tensor([math.log(2.0)]))
    # S_1 = 2*5 = 10, S_2 = 10/2 + 3*7 = 26
    torch.testing.assert_close(found.output.flatten(), torch.tensor([10.0, 26.0]))
    assert found.state.item() == pytest.approx(26.0)


@pytest.mark.parametrize("split", [1, 5, 8, 12])
def test_an_initial_state_continues_exactly(split):
    query, key, value = draw(2, 13)
    whole = lightning_attention(query, key, value, SLOPES, block_tokens=4)
    state, outputs = None, []
    for part in (slice(0, split), slice(split, 13)):
        pieces = (t[:, :, part] for t in (query, key, value))
        output, state = lightning_attention(*pieces, SLOPES, state=state, block_tokens=4)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 2), whole.output, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, whole.state, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "places",
    [range(4, 11), range(0, 7), [0, 1, 4, 5, 8, 9, 10]],
    ids=["left", "right", "middle"],
)
def test_a_padded_row_is_what_it_is_alone(places):
    places = list(places)
    query, key, value = draw(1, 7)
    alone = lightning_attention(query, key, value, SLOPES, block_tokens=4)
    valid = torch.zeros(1, 11, dtype=torch.bool)
    valid[0, places] = True
    padded = []
    for tensor in (query, key, value):
        wide = torch.full((1, HEADS, 11, DIM), 9.0)  # what stands at padding must not matter
        wide[:, :, places] = tensor
        padded.append(wide)
    found = lightning_attention(*padded, SLOPES, valid=valid, block_tokens=4)
    torch.testing.assert_close(found.output[:, :, places], alone.output, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.state, alone.state, rtol=1e-5, atol=1e-5)


def test_slopes_of_a_power_of_two_fall_by_halves():
    first = decay_slopes(8, 0, 5)
    assert first == pytest.approx([2.0**-h * (1 + 1e-5) for h in range(1, 9)])
    assert decay_slopes(8, 4, 5) == pytest.approx([2.0**-h * 1e-5 for h in range(1, 9)])
    assert decay_slopes(8, 2, 5) == pytest.approx([2.0**-h * (0.5 + 1e-5) for h in range(1, 9)])


def test_slopes_of_other_counts_take_every_second_of_the_next_power():
    # 6 heads: the four of 2^-2 ... 2^-8, then the first and third of eight: 2^-1, 2^-3
    expected = [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]
    assert decay_slopes(6, 0, 1) == pytest.approx([s * (1 + 1e-5) for s in expected])


def test_the_inputs_type_comes_back_and_the_state_stays_float32():
    query, key, value = (t.bfloat16() for t in draw(1, 5))
    found = lightning_attention(query, key, value, SLOPES)
    assert (found.output.dtype, found.state.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("tokens", [3, 8, 21, 75])  # 75 tokens are more than one span of blocks
def test_gradients_are_those_of_the_quadratic_form(tokens):
    query, key, value = (x.double().requires_grad_() for x in draw(1, tokens))
    state = torch.randn(1, HEADS, DIM, DIM, dtype=torch.float64, requires_grad=True)
    slopes = SLOPES.double()
    weights = torch.randn(1, HEADS, tokens, DIM, dtype=torch.float64)
    found = lightning_attention(query, key, value, slopes, state=state, block_tokens=8)
    ((found.output * weights).sum() + found.state.square().sum()).backward()
    grads = [x.grad.clone() for x in (query, key, value, state)]
    for x in (query, key, value, state):
        x.grad = None
    # the initial state as a token before the first: o_t gains e^{-s (t + 1)} q_t S
    steps = torch.arange(1, tokens + 1, dtype=torch.float64)
    decay = torch.exp(-slopes[:, None] * steps)[None, :, :, None]
    output = quadratic(query, key, value, slopes) + decay * (query @ state)
    last = torch.exp(-slopes[:, None] * (tokens - steps))[None, :, :, None]
    final = decay[:, :, -1:] * state + (key * last).transpose(-1, -2) @ value
    ((output * weights).sum() + final.square().sum()).backward()
    for grad, x in zip(grads, (query, key, value, state), strict=True):
        torch.testing.assert_close(grad, x.grad, rtol=1e-9, atol=1e-9)


def test_gradcheck_with_padding_documents_and_activation():
    packed = torch.randn(2, 11, HEADS, 3 * DIM, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, HEADS, DIM, DIM, dtype=torch.float64, requires_grad=True)
    valid = torch.ones(2, 11, dtype=torch.bool)
    valid[0, :3] = valid[1, 9:] = False
    documents = torch.tensor([[0] * 11, [0] * 5 + [1] * 6])

    def run(packed, state):
        return tuple(
            lightning_attention_packed(
                packed, SLOPES.double(), valid=valid, documents=documents, state=state,
                block_tokens=4,
            )
        )  # fmt: skip

    assert torch.autograd.gradcheck(run, (packed, state))


@pytest.mark.parametrize("lengths", [[3, 7, 5], [8, 8, 4], [1, 40, 30]])
def test_packed_documents_are_what_they_are_alone(lengths):
    query, key, value = draw(1, sum(lengths))
    documents = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    first = torch.randn(1, HEADS, DIM, DIM)
    together = lightning_attention(
        query, key, value, SLOPES, documents=documents, state=first, block_tokens=4
    )
    start, alone = 0, None
    for number, length in enumerate(lengths):
        part = slice(start, start + length)
        pieces = (x[:, :, part] for x in (query, key, value))
        state = first if number == 0 else None  # the first document continues what came before
        alone = lightning_attention(*pieces, SLOPES, state=state, block_tokens=4)
        torch.testing.assert_close(together.output[:, :, part], alone.output, rtol=1e-5, atol=1e-5)
        start += length
    torch.testing.assert_close(together.state, alone.state, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", [511, 512, 513, 700])
def test_half_precision_keeps_its_state_in_float32(tokens):
    query, key, value = draw(1, tokens)
    exact = lightning_attention(query, key, value, SLOPES)
    halves = (x.bfloat16() for x in (query, key, value))
    found = lightning_attention(*halves, SLOPES)
    assert (found.output.dtype, found.state.dtype) == (torch.bfloat16, torch.float32)
    error = (found.output.float() - exact.output).pow(2).mean().sqrt()
    assert error < 0.01 * exact.output.pow(2).mean().sqrt()
