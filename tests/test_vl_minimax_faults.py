"""Sixteen faults of transformers' MiniMax (5.23), each shown on its classes, and ours without it.

B1 to B16 number them. Both models hold the same weights; what is right is said by `naive_minimax`
or by the same model reading each row alone in one pass. B2 to B10 turn the rotary numbers fully,
so that B1 does not hide them. Not shown: the released remote code, which cannot be trained at all
(its lightning layer has no training path), since it is in no package; and ours for B16, which has
no tensor-parallel plan to compare.
"""

import copy

import pytest
import torch
from naive_minimax import draw_ids, naive_logits, tiny_text
from transformers import MiniMaxConfig, MiniMaxForCausalLM
from transformers.models.minimax.modeling_minimax import (
    MiniMaxCache,
    MiniMaxLightningAttention,
    MiniMaxSparseMoeBlock,
)

from vl.models.minimax_vl.lightning import lightning_attention, lightning_step
from vl.models.minimax_vl.lightning_spans import decay_slopes
from vl.models.minimax_vl.moe import SparseMoeBlock

PATTERN = [0, 0, 0, 1]  # lightning first, as released
FINE = 1e-5


def pair(rotary_dim=8, **overrides):
    """Ours and theirs with the same weights."""
    ours = tiny_text(attn_type_list=PATTERN, rotary_dim=rotary_dim, **overrides)
    own = ours.config
    config = MiniMaxConfig(
        vocab_size=own.vocab_size,
        hidden_size=own.hidden_size,
        intermediate_size=own.intermediate_size,
        num_hidden_layers=own.num_hidden_layers,
        num_attention_heads=own.num_attention_heads,
        num_key_value_heads=own.num_key_value_heads,
        head_dim=own.head_dim,
        num_local_experts=own.num_local_experts,
        num_experts_per_tok=own.num_experts_per_tok,
        layer_types=["full_attention" if kind else "linear_attention" for kind in PATTERN],
        rope_parameters={
            "rope_type": "default",
            "rope_theta": own.rope_theta,
            "partial_rotary_factor": rotary_dim / own.head_dim,
        },
        rms_norm_eps=own.rms_norm_eps,
        block_size=8,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        **{f"{name}_attn_alpha_factor": own.layernorm_mlp_alpha for name in ("full", "linear")},
        mlp_alpha_factor=own.layernorm_mlp_alpha,
    )
    theirs = MiniMaxForCausalLM(config).eval()
    weights = {name.replace("block_sparse_moe", "mlp"): x for name, x in ours.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert not unexpected and all("decay" in name or "slope" in name for name in missing)
    return ours, theirs


OURS, THEIRS = pair()
IDS = draw_ids(2, 20)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def gap(found, expected):
    """Largest difference."""
    return float((found.double() - expected.double()).abs().max())


def right(ids=IDS):
    """The logits of each row, read alone in one pass."""
    return torch.stack([naive_logits(OURS, row) for row in ids])


def test_where_theirs_is_right_both_agree_with_the_formulas():
    for model in (OURS, THEIRS):
        assert gap(model(IDS).logits, right()) < FINE


def test_b1_they_rotate_all_dimensions_whatever_the_configuration_says():
    ours, theirs = pair(rotary_dim=4)
    expected = torch.stack([naive_logits(ours, row) for row in IDS])
    assert gap(theirs(IDS).logits, expected) > 1e-3
    assert gap(ours(IDS).logits, expected) < FINE


def test_b2_their_cache_has_no_length_when_the_first_layer_is_lightning():
    cache = MiniMaxCache()
    THEIRS(IDS[:, :19], past_key_values=cache, use_cache=True)
    assert cache.get_seq_length() == 0
    step = THEIRS(IDS[:, 19:], past_key_values=cache, use_cache=True)
    assert gap(step.logits, right()[:, 19:]) > 1e-3
    own = OURS(IDS[:, :19]).past_key_values
    assert own.get_seq_length() == 19
    assert gap(OURS(IDS[:, 19:], past_key_values=own).logits, right()[:, 19:]) < FINE


def left_padded(pads=6):
    """Row 0 with padding in front, row 1 whole; and the positions of the real tokens."""
    ids, mask = IDS.clone(), torch.ones_like(IDS)
    ids[0, :pads], mask[0, :pads] = 0, 0
    return ids, mask, (mask.cumsum(1) - 1).clamp_min(0)


def test_b3_their_padded_rows_decode_wrongly_from_a_cache():
    ids, mask, positions = left_padded()
    expected = naive_logits(OURS, ids[0, 6:])[-1]
    cache = MiniMaxCache()
    THEIRS(
        ids[:, :19], attention_mask=mask[:, :19], position_ids=positions[:, :19],
        past_key_values=cache, use_cache=True,
    )  # fmt: skip
    step = THEIRS(
        ids[:, 19:], attention_mask=mask, position_ids=positions[:, 19:],
        past_key_values=cache, use_cache=True,
    )  # fmt: skip
    assert gap(step.logits[0, 0], expected) > 1e-3
    own = OURS(ids[:, :19], attention_mask=mask[:, :19]).past_key_values
    step = OURS(ids[:, 19:], attention_mask=mask, past_key_values=own)
    assert gap(step.logits[0, 0], expected) < FINE


def test_b4_they_cannot_read_a_prompt_in_chunks():
    cache = MiniMaxCache()
    THEIRS(IDS[:, :8], past_key_values=cache, use_cache=True)
    rest = {"position_ids": torch.arange(8, 20)[None], "use_cache": True}
    mask = torch.ones_like(IDS)
    mask[0, 0] = 0  # without padding no mask is made, and the answer is only wrong
    with pytest.raises(RuntimeError):
        THEIRS(
            IDS[:, 8:], attention_mask=mask, past_key_values=copy.deepcopy(cache),
            **rest,
        )  # fmt: skip
    found = THEIRS(IDS[:, 8:], past_key_values=copy.deepcopy(cache), **rest)
    assert gap(found.logits, right()[:, 8:]) > 1e-3
    own = OURS(IDS[:, :8]).past_key_values
    assert gap(OURS(IDS[:, 8:], past_key_values=own).logits, right()[:, 8:]) < FINE


def test_b5_their_beams_keep_the_states_of_other_beams():
    beams = torch.tensor([1, 1])
    cache = MiniMaxCache()
    THEIRS(IDS, past_key_values=cache, use_cache=True)
    cache.reorder_cache(beams)
    state = cache.get_linear_cache(0)
    assert gap(state[0], state[1]) > 0.1  # two copies of row 1 would be equal
    own = OURS(IDS).past_key_values.select(beams)
    assert all(
        torch.equal(x[0], x[1]) for s in own.layers for x in (s.state, s.key) if x is not None
    )


def test_b6_their_cache_cannot_be_repeated():
    cache = MiniMaxCache()
    THEIRS(IDS, past_key_values=cache, use_cache=True)
    with pytest.raises(IndexError):
        cache.batch_repeat_interleave(2)
    wide = OURS(IDS[:, :19]).past_key_values.expand(2)
    step = OURS(IDS[:, 19:].repeat_interleave(2, 0), past_key_values=wide)
    assert gap(step.logits[:, 0], right()[:, 19].repeat_interleave(2, 0)) < FINE


def test_b7_their_reset_leaves_the_states_and_ours_needs_none():
    cache = MiniMaxCache()
    THEIRS(IDS, past_key_values=cache, use_cache=True)
    cache.reset()
    assert cache.get_linear_cache(0).abs().max() > 0.01
    before = OURS(IDS[:, :10]).past_key_values
    first = OURS(IDS[:, 10:], past_key_values=before).logits
    assert torch.equal(OURS(IDS[:, 10:], past_key_values=before).logits, first)


def test_b8_their_right_padding_wears_the_state_away():
    ids, mask = IDS[:, :12].clone(), torch.ones(2, 12, dtype=torch.long)
    ids[0, 7:], mask[0, 7:] = 0, 0
    token = IDS[:, 12:13]
    expected = naive_logits(OURS, torch.cat([ids[0, :7], token[0]]))[-1]
    cache = MiniMaxCache()
    THEIRS(ids, attention_mask=mask, past_key_values=cache, use_cache=True)
    theirs = cache.get_linear_cache(0)[0]
    own = OURS(ids, attention_mask=mask).past_key_values
    alone = OURS(ids[:1, :7]).past_key_values.layers[0].state[0]
    assert gap(theirs, alone) > 0.1 * alone.abs().max()
    assert gap(own.layers[0].state[0], alone) < FINE
    assert gap(OURS(token, past_key_values=own).logits[0, 0], expected) < FINE


def test_b9_their_lightning_layers_see_padding_through_a_four_dimensional_mask():
    ids, mask, positions = left_padded()
    expected = naive_logits(OURS, ids[0, 6:])
    seen = torch.ones(20, 20).tril().bool() & mask[:, None, None].bool()
    seen = seen | torch.eye(20).bool()
    logits = THEIRS(ids, attention_mask=seen, position_ids=positions).logits
    assert gap(logits[0, 6:], expected) > 1e-2
    with pytest.raises(ValueError, match="Pass \\(batch, token\\)"):
        OURS(ids, attention_mask=seen)
    assert gap(OURS(ids, attention_mask=mask).logits[0, 6:], expected) < FINE


def test_b10_their_packed_documents_read_each_other():
    packed, positions = IDS[:1], torch.tensor([[*range(9), *range(11)]])
    expected = naive_logits(OURS, packed[0, 9:])
    assert gap(THEIRS(packed, position_ids=positions).logits[0, 9:], expected) > 1e-2
    assert gap(OURS(packed, position_ids=positions).logits[0, 9:], expected) < FINE


def test_b11_their_decay_and_state_are_bfloat16_in_a_bfloat16_model():
    layer = copy.deepcopy(THEIRS.model.layers[2].self_attn).bfloat16()
    slopes = decay_slopes(4, 2, 4)
    their_decay = torch.exp(-layer.slope_rate).flatten()
    assert their_decay[3] == 1.0 and slopes[3] == pytest.approx(0.0013, rel=0.01)

    random = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 4, 600, 8, generator=random).bfloat16() for _ in range(3))
    exact = lightning_attention(*(x.double() for x in (query, key, value)), torch.tensor(slopes))
    ours, theirs = torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8).bfloat16()
    errors = {"ours": [], "theirs": []}
    for t in range(600):  # theirs: the decoding branch of MiniMaxLightningAttention.forward
        q, k, v = (x[:, :, t] for x in (query, key, value))
        found, ours = lightning_step(q, k, v, torch.tensor(slopes), ours)
        added = k[..., :, None] @ v[..., None, :]
        theirs = their_decay.view(1, 4, 1, 1) * theirs + added
        errors["ours"].append(gap(found, exact.output[:, :, t]))
        errors["theirs"].append(gap((q[..., None, :] @ theirs)[..., 0, :], exact.output[:, :, t]))
    assert max(errors["ours"]) < 1e-3
    assert min(errors["theirs"][-50:]) > 0.1
    assert sum(errors["theirs"][-50:]) > 2 * sum(errors["theirs"][50:100])


def test_b12_their_decay_tables_are_saved():
    assert len(THEIRS.state_dict()) - len(OURS.state_dict()) == 4 * 3
    assert not [name for name in OURS.state_dict() if "decay" in name or "slope" in name]
    assert not list(OURS.buffers())


def test_b13_their_layer_factor_is_slightly_off():
    theirs = THEIRS.model.layers[2].self_attn.slope_rate.flatten()
    released = torch.tensor([2.0 ** (-2 * (head + 1)) * (1 - 2 / 3 + 1e-5) for head in range(4)])
    assert 1e-6 < gap(theirs / released, torch.ones(4)) < 1e-4
    assert gap(torch.tensor(decay_slopes(4, 2, 4)) / released, torch.ones(4)) < 1e-6


def test_b14_their_router_noise_changes_the_residual():
    hidden = torch.randn(1, 6, 32)
    theirs = MiniMaxSparseMoeBlock(
        MiniMaxConfig(
            hidden_size=32, intermediate_size=8, num_local_experts=4, router_jitter_noise=0.5
        )
    ).train()
    theirs(given := hidden.clone())
    assert gap(given, hidden) > 0.1
    ours = tiny_text(router_jitter_noise=0.5).model.layers[0].block_sparse_moe.train()
    assert isinstance(ours, SparseMoeBlock)
    ours(given := hidden[0].clone())
    assert torch.equal(given, hidden[0])


def test_b15_their_cache_cannot_go_back_and_ours_need_not():
    with pytest.raises(RuntimeError, match="does not support `crop`"):
        MiniMaxCache().crop(1)
    snapshot = OURS(IDS[:, :10]).past_key_values
    OURS(draw_ids(2, 4, seed=9), past_key_values=snapshot)  # drafted, and not wanted
    logits = OURS(IDS[:, 10:], past_key_values=snapshot).logits
    assert gap(logits, right()[:, 10:]) < FINE


def test_b16_their_tensor_parallel_plan_leaves_lightning_layers_out():
    plan = MiniMaxConfig.base_model_tp_plan
    assert any("q_proj" in key for key in plan)
    assert not any("qkv_proj" in key or "output_gate" in key for key in plan)
    assert hasattr(MiniMaxLightningAttention(THEIRS.config, 0), "qkv_proj")
