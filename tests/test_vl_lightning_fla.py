"""The layout that flash-linear-attention is called with; its own kernels where there is a GPU."""

import importlib.util
import itertools
import sys
import types

import pytest
import torch
from naive_minimax import draw_ids, tiny_text

from vl.models.minimax_vl.lightning import lightning_attention
from vl.models.minimax_vl.lightning_fla import lightning_attention_fla, load_kernel

HEADS, DIM = 4, 32
SLOPES = torch.tensor([0.5, 0.05, 0.9, 0.001])
INSTALLED = importlib.util.find_spec("fla") is not None


def stand_in(q, k, v, *, g_gamma, scale, initial_state, output_final_state, cu_seqlens=None):
    """`chunk_simple_gla` by its documentation, one sequence after the other."""
    assert scale == 1.0 and output_final_state
    rows = [x.transpose(1, 2) for x in (q, k, v)]
    if cu_seqlens is None:
        output, state = lightning_attention(*rows, -g_gamma, state=initial_state)
        return output.transpose(1, 2), state
    assert len(q) == 1
    outputs, states = [], []
    for index, lengths in enumerate(itertools.pairwise(cu_seqlens)):
        parts = [x[:, :, slice(*lengths)] for x in rows]
        output, state = lightning_attention(
            *parts, -g_gamma, state=initial_state[index : index + 1]
        )
        outputs.append(output.transpose(1, 2))
        states.append(state)
    return torch.cat(outputs, 1), torch.cat(states)


def compare(kernel, device, tolerance):
    random = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 3, 70, HEADS, DIM, generator=random).to(device)
    state = torch.randn(3, HEADS, DIM, DIM, generator=random).to(device)
    valid = torch.ones(3, 70, dtype=torch.bool, device=device)
    valid[0, :9] = valid[1, 60:] = False
    documents = torch.zeros(3, 70, dtype=torch.long, device=device)
    documents[1, 20:], documents[2, 0:], documents[2, 31:] = 1, 1, 2
    slopes = SLOPES.to(device)
    for options in (
        {},
        {"state": state},
        {"state": state, "valid": valid},
        {"state": state, "documents": documents},
        {"state": state, "valid": valid, "documents": documents},
    ):
        found, after = lightning_attention_fla(kernel, query, key, value, slopes, **options)
        turned = (x.transpose(1, 2) for x in (query, key, value))
        expected = lightning_attention(*turned, slopes, **options)
        seen = options.get("valid", torch.ones_like(valid))
        wanted = expected.output.transpose(1, 2)
        torch.testing.assert_close(found[seen], wanted[seen], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(after, expected.state, rtol=tolerance, atol=tolerance)


def test_padded_and_packed_rows_are_laid_out_as_the_kernel_documents():
    compare(stand_in, "cpu", 1e-4)


def test_a_row_of_padding_alone_keeps_its_state():
    query = torch.randn(2, 5, HEADS, DIM)
    state = torch.randn(2, HEADS, DIM, DIM)
    for valid in (torch.zeros(2, 5).bool(), torch.tensor([[False] * 5, [True] * 5])):
        output, after = lightning_attention_fla(
            stand_in, query, query, query, SLOPES, valid=valid, state=state
        )
        assert torch.equal(after[0], state[0]) and not output[0].any()


def test_a_model_with_the_kernel_equals_one_without(monkeypatch):
    module = types.ModuleType("fla.ops.simple_gla")
    module.chunk_simple_gla = stand_in
    monkeypatch.setitem(sys.modules, "fla.ops.simple_gla", module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    model, plain = tiny_text(lightning_kernel="fla"), tiny_text()
    ids, mask = draw_ids(2, 14), torch.ones(2, 14, dtype=torch.long)
    mask[0, :5] = 0
    with torch.no_grad():
        found = model(ids, attention_mask=mask).logits
        expected = plain(ids, attention_mask=mask).logits
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(INSTALLED, reason="flash-linear-attention is installed")
def test_without_the_package_the_choice_is_refused():
    with pytest.raises(ImportError, match="needs flash-linear-attention, which is not installed"):
        tiny_text(lightning_kernel="fla")
    with pytest.raises(ValueError, match="lightning_kernel: found 'triton'"):
        tiny_text(lightning_kernel="triton")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.skipif(not INSTALLED, reason="needs flash-linear-attention")
def test_the_kernel_equals_ours_on_a_gpu():
    compare(load_kernel(), "cuda", 2e-2)  # its products are TensorFloat-32
