"""Lightning attention: blocked, recurrent and quadratic forms agree; padding leaves no trace."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vl.models.minimax_vl.lightning import (
    lightning_attention,
    lightning_mix,
    lightning_step,
)
from vl.models.minimax_vl.lightning_spans import decay_slopes
from vl.models.minimax_vl.norm import RmsNorm

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


def matrix_form(query, key, value, slopes):
    """The same as one masked matrix product, for long rows."""
    gap = torch.arange(query.shape[2])[:, None] - torch.arange(query.shape[2])
    decay = torch.exp(-slopes[:, None, None] * gap).masked_fill(gap < 0, 0.0)
    return (query @ key.transpose(-1, -2) * decay) @ value


def recurrent(query, key, value, slopes):
    state, outputs = torch.zeros(*query.shape[:2], DIM, DIM), []
    for t in range(query.shape[2]):
        step, state = lightning_step(query[:, :, t], key[:, :, t], value[:, :, t], slopes, state)
        outputs.append(step)
    return torch.stack(outputs, 2), state


def relative_error(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


def test_the_matrix_form_is_the_definition():
    inputs = [x.double() for x in draw(2, 9)]
    torch.testing.assert_close(
        matrix_form(*inputs, SLOPES.double()), quadratic(*inputs, SLOPES.double())
    )


@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 255, 256, 257, 700])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocked_recurrent_and_quadratic_forms_agree(tokens, dtype):
    inputs = [x.to(dtype) for x in draw(2, tokens)]
    expected = matrix_form(*(x.double() for x in inputs), SLOPES.double())
    blocked = lightning_attention(*inputs, SLOPES)
    steps, state = recurrent(*inputs, SLOPES)
    # bfloat16 keeps 8 bits of the output, an error of 2^-9 at most; its inputs are exact here
    bound = 1e-5 if dtype == torch.float32 else 2**-9
    assert relative_error(blocked.output, expected) < bound
    assert relative_error(steps, expected) < 1e-5
    assert blocked.state.dtype == state.dtype == torch.float32
    torch.testing.assert_close(state, blocked.state, rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(1, 150),
    st.sampled_from([1, 3, 8, 16, 64]),
    st.integers(1, 3),
    st.floats(1e-6, 5.0),
    st.integers(0, 99),
)
def test_any_length_block_and_decay_agree_with_the_quadratic_form(tokens, block, batch, rate, seed):
    slopes = SLOPES * rate
    inputs = draw(batch, tokens, seed)
    found = lightning_attention(*inputs, slopes, block_tokens=block)
    expected = matrix_form(*(x.double() for x in inputs), slopes.double())
    assert relative_error(found.output, expected) < 1e-5


@pytest.mark.parametrize("tokens", [40, 600])
def test_gradients_in_bfloat16_are_near_those_in_float64(tokens):
    random = torch.Generator().manual_seed(tokens)
    shapes = [(2, tokens, HEADS, 3 * DIM), (2, tokens, HEADS * DIM), (HEADS * DIM,)]
    drawn = [torch.randn(shape, generator=random).bfloat16() for shape in shapes]
    grads = []
    for dtype in (torch.bfloat16, torch.float64):
        inputs = [x.clone().to(dtype).requires_grad_() for x in drawn]
        found = lightning_mix(*inputs, SLOPES.to(torch.float64), eps=1e-6)
        found.output.sum().backward()
        grads.append([x.grad for x in inputs])
    for half, exact in zip(*grads, strict=True):
        assert half.dtype == torch.bfloat16
        assert relative_error(half, exact) < 2**-8


def test_under_autocast_the_state_is_as_exact_as_without():
    inputs = draw(1, 90)
    alone = lightning_attention(*inputs, SLOPES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = lightning_attention(*inputs, SLOPES)
        step = lightning_step(*(x[:, :, 0] for x in inputs), SLOPES, found.state)
    assert torch.equal(found.state, alone.state) and torch.equal(found.output, alone.output)
    assert torch.equal(
        step[0], lightning_step(*(x[:, :, 0] for x in inputs), SLOPES, alone.state)[0]
    )


def test_the_mix_is_the_gated_norm_of_the_attention():
    packed, gate = torch.randn(2, 37, HEADS, 3 * DIM), torch.randn(2, 37, HEADS * DIM)
    weight = torch.rand(HEADS * DIM)
    query, key, value = torch.nn.functional.silu(packed).transpose(1, 2).chunk(3, -1)
    attention = lightning_attention(query, key, value, SLOPES).output.transpose(1, 2).flatten(2)
    normed = attention / (attention.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight
    found = lightning_mix(packed, gate, weight, SLOPES, eps=1e-6, block_tokens=8)
    torch.testing.assert_close(found.output, torch.sigmoid(gate) * normed, rtol=1e-5, atol=1e-5)


def test_rms_norm_and_its_gradients_are_torchs():
    ours, theirs = RmsNorm(5, eps=1e-5).double(), torch.nn.RMSNorm(5, eps=1e-5).double()
    x = torch.randn(3, 7, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 7, 5, dtype=torch.float64)
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(torch.arange(1.0, 6.0))
    found = [torch.autograd.grad((n(x) * weights).sum(), (x, n.weight)) for n in (ours, theirs)]
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(*found)


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


def test_gradcheck_with_padding_documents_activation_norm_and_gate():
    packed = torch.randn(2, 11, HEADS, 3 * DIM, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, HEADS, DIM, DIM, dtype=torch.float64, requires_grad=True)
    gate = torch.randn(2, 11, HEADS * DIM, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(HEADS * DIM, dtype=torch.float64, requires_grad=True)
    valid = torch.ones(2, 11, dtype=torch.bool)
    valid[0, :3] = valid[1, 9:] = False
    documents = torch.tensor([[0] * 11, [0] * 5 + [1] * 6])

    def run(packed, gate, weight, state):
        return tuple(
            lightning_mix(
                packed, gate, weight, SLOPES.double(), eps=1e-6, valid=valid,
                documents=documents, state=state, block_tokens=4,
            )
        )  # fmt: skip

    assert torch.autograd.gradcheck(run, (packed, gate, weight, state))


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
