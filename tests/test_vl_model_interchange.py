"""The decoder as transformers' MiniMax and back: same weights, same logits."""

import pytest
import torch
from transformers import MiniMaxConfig, MiniMaxForCausalLM

from vl.models.minimax_vl import MiniMaxTextForCausalLM, MiniMaxVLConfig, MiniMaxVLTextConfig
from vl.models.minimax_vl.config_forms import to_minimax
from vl.models.minimax_vl.interchange import (
    load_transformers_minimax,
    save_for_transformers,
)
from vl.models.minimax_vl.modeling import MiniMaxVLForConditionalGeneration

IDS = torch.randint(0, 97, (2, 70), generator=torch.Generator().manual_seed(1))
THEIRS = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_local_experts": 4,
    "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
    "block_size": 16,
    "full_attn_alpha_factor": 2.1,
    "full_attn_beta_factor": 0.9,
    "linear_attn_alpha_factor": 3.5,
    "linear_attn_beta_factor": 1.1,
    "mlp_alpha_factor": 1.9,
    "mlp_beta_factor": 1.2,
    "initializer_range": 0.1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e7},
}


def close(found, expected, tolerance=2e-6):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * 3)


@torch.no_grad()
def test_a_checkpoint_of_transformers_gives_the_same_logits(tmp_path):
    torch.manual_seed(0)
    theirs = MiniMaxForCausalLM(MiniMaxConfig(**THEIRS)).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_transformers_minimax(tmp_path).eval()
    direct = MiniMaxTextForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(direct(IDS).logits, ours(IDS).logits)
    assert direct.config.to_dict() == ours.config.to_dict()
    expected = theirs(IDS, output_router_logits=True)
    found = ours(IDS, output_router_logits=True)
    assert expected.logits.abs().max() > 1.0
    close(found.logits, expected.logits)
    for one, other in zip(found.router_logits, expected.router_logits, strict=True):
        close(one, other)
    # theirs sums f to k = 2 and pools the layers
    assert expected.aux_loss.item() == pytest.approx(2 * found.aux_loss.item(), rel=0.1)


@torch.no_grad()
def test_a_decoder_of_ours_gives_transformers_the_same_logits(tmp_path):
    torch.manual_seed(0)
    text = {**MiniMaxVLTextConfig.from_transformers_minimax(THEIRS).to_dict(), "vocab_size": 97}
    config = MiniMaxVLConfig(text_config=text, vision_config={"num_hidden_layers": 1})
    ours = MiniMaxVLForConditionalGeneration(config).eval()
    save_for_transformers(ours, tmp_path)
    theirs = MiniMaxForCausalLM.from_pretrained(tmp_path).eval()
    ids = IDS.where(config.image_token_index != IDS, 0)
    close(theirs(ids).logits, ours(ids).logits)


def test_the_configuration_survives_the_way_there_and_back():
    theirs = MiniMaxConfig(**THEIRS)
    again = to_minimax(MiniMaxVLTextConfig.from_transformers_minimax(theirs))
    for name, value in THEIRS.items():
        if name != "rope_parameters":
            assert getattr(again, name) == value, name
    assert again.rope_parameters["rope_theta"] == 1e7
    assert again.rope_parameters["partial_rotary_factor"] == 1.0
    assert (again.bos_token_id, again.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)


def test_a_partial_rotary_width_is_kept_in_both_forms():
    ours = MiniMaxVLTextConfig.from_transformers_minimax({**THEIRS, "rotary_dim": 8})
    assert ours.rotary_dim == 8
    theirs = to_minimax(ours)
    assert theirs.rope_parameters["partial_rotary_factor"] == 0.5
    assert MiniMaxVLTextConfig.from_transformers_minimax(theirs).rotary_dim == 8
    dictionary = {**THEIRS, "model_type": "minimax"}
    dictionary["rope_parameters"] = {**THEIRS["rope_parameters"], "partial_rotary_factor": 0.25}
    assert MiniMaxVLConfig(text_config=dictionary).text_config.rotary_dim == 4


def test_what_the_other_side_cannot_say_is_refused():
    with pytest.raises(ValueError, match="postnorm: False"):
        to_minimax(MiniMaxVLTextConfig(postnorm=False))
    scaled = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(ValueError, match="only rope_type 'default' is built"):
        MiniMaxVLTextConfig.from_transformers_minimax({**THEIRS, "rope_parameters": scaled})
    with pytest.raises(ValueError, match=r"layer_types: found \['sliding_attention'\]"):
        MiniMaxVLTextConfig.from_transformers_minimax(
            {**THEIRS, "layer_types": ["sliding_attention"] * 4}
        )
