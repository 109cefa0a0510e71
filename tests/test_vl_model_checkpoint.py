"""Checkpoints: the published names, tensor by tensor, in and out; nothing random by accident."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from vl.models.minimax_vl import (
    MiniMaxTextForCausalLM,
    MiniMaxVLConfig,
    MiniMaxVLForConditionalGeneration,
    MiniMaxVLTextConfig,
)
from vl.models.minimax_vl.checkpoint_names import published_tensors

VL_01 = MiniMaxVLConfig.preset("vl_01")
KEYS_SHA256 = "d0caf1b714cdfc4caa65b56cbec591668d77b0e2a5d6cf3b5af169531311c886"
"""Of the sorted names of the released checkpoint, one a line."""

RELEASED_TEXT = {
    "model_type": "minimax_text_01",
    "architectures": ["MiniMaxText01ForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_minimax_text_01.MiniMaxText01Config"},
    "vocab_size": 97,
    "hidden_size": 24,
    "intermediate_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "attn_type_list": [0, 1, 0],
    "rotary_dim": 4,
    "rope_theta": 10000000,
    "num_local_experts": 3,
    "num_experts_per_tok": 2,
    "shared_intermediate_size": [0],
    "shared_moe_mode": "sigmoid",
    "layernorm_full_attention_alpha": 3.5565588200778455,
    "layernorm_full_attention_beta": 1.0,
    "layernorm_linear_attention_alpha": 3.5565588200778455,
    "layernorm_linear_attention_beta": 1.0,
    "layernorm_mlp_alpha": 3.5565588200778455,
    "layernorm_mlp_beta": 1.0,
    "postnorm": True,
    "router_aux_loss_coef": 0.001,
    "router_jitter_noise": 0.0,
    "output_router_logits": False,
    "hidden_act": "silu",
    "attention_dropout": 0.0,
    "sliding_window": None,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-05,
    "max_position_embeddings": 8192,
    "bos_token_id": None,
    "eos_token_id": None,
}
RELEASED = {
    "model_type": "minimax_vl_01",
    "architectures": ["MiniMaxVL01ForConditionalGeneration"],
    "auto_map": {"AutoConfig": "configuration_minimax_vl_01.MiniMaxVL01Config"},
    "ignore_index": -100,
    "image_grid_pinpoints": "[[28, 28], [28, 56], [56, 28]]",
    "image_seq_length": 4,
    "image_token_index": 95,
    "projector_hidden_act": "gelu",
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "default",
    "text_config": RELEASED_TEXT,
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_act": "gelu",
        "hidden_size": 16,
        "image_size": 28,
        "intermediate_size": 20,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "patch_size": 14,
        "projection_dim": 24,
        "vocab_size": 32000,
    },
}


@pytest.fixture
def released(tmp_path):
    """A folder as published: config.json, two shards of bfloat16 with float32 gates, an index."""
    folder = tmp_path / "released"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(RELEASED))
    shapes = published_tensors(AutoConfig.from_pretrained(folder))
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=generator).to(
            torch.float32 if name.endswith("block_sparse_moe.gate.weight") else torch.bfloat16
        )
        for name, shape in shapes.items()
    }
    write_shards(folder, tensors)
    return folder, tensors


def write_shards(folder, tensors):
    for old in folder.glob("*.safetensors"):
        old.unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2]}
    shards["model-00002-of-00002.safetensors"] = names[1::2]
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {n: file for file, part in shards.items() for n in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def read_folder(folder):
    return {
        name: tensor
        for file in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def test_the_names_of_vl_01_are_the_released_ones():
    names = sorted(published_tensors(VL_01))
    assert len(names) == 8637
    assert hashlib.sha256("\n".join(names).encode()).hexdigest() == KEYS_SHA256


def test_the_full_model_has_exactly_these_tensors_with_experts_fused():
    with torch.device("meta"):
        model = MiniMaxVLForConditionalGeneration(VL_01)
    found = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    published = published_tensors(VL_01)
    experts = {name for name in published if ".experts." in name}
    fused = {name: shape for name, shape in found.items() if ".experts." in name}
    assert {n: s for n, s in found.items() if n not in fused} == {
        n: s for n, s in published.items() if n not in experts
    }
    assert len(experts) == 80 * 32 * 3
    assert set(fused.values()) == {(32, 2 * 9216, 6144), (32, 6144, 9216)} and len(fused) == 160


@pytest.mark.parametrize("options", [{"dtype": "auto"}, {"dtype": torch.bfloat16}, {}])
def test_a_released_folder_loads_and_is_saved_back_identically(released, tmp_path, options):
    folder, tensors = released
    model = AutoModelForImageTextToText.from_pretrained(folder, device_map="cpu", **options)
    assert isinstance(model, MiniMaxVLForConditionalGeneration)
    layer = model.language_model.model.layers[1]
    prefix = "language_model.model.layers.1.block_sparse_moe"
    w1, w3 = (tensors[f"{prefix}.experts.2.{name}.weight"] for name in ("w1", "w3"))
    assert torch.equal(layer.block_sparse_moe.experts.gate_up_proj[2], torch.cat([w1, w3]))
    assert torch.equal(layer.block_sparse_moe.gate.weight, tensors[f"{prefix}.gate.weight"])
    assert layer.block_sparse_moe.gate.weight.dtype == torch.float32
    assert layer.self_attn.q_proj.weight.dtype == torch.bfloat16
    model.save_pretrained(tmp_path / "again", max_shard_size="8KB")
    assert len(list((tmp_path / "again").glob("*.safetensors"))) > 2
    same(read_folder(tmp_path / "again"), tensors)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "again")
    same(again.state_dict(), model.state_dict())


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:The following device_map keys do not match:UserWarning")
def test_parts_kept_on_disk_give_the_same_logits(released, tmp_path):
    folder, _ = released
    ids = torch.arange(6)[None]
    pictures = {"pixel_values": torch.randn(2, 3, 28, 28), "image_sizes": torch.tensor([[28, 28]])}
    ids = torch.cat([ids, torch.full((1, 4 + 2 * 3), 95)], 1)
    logits = []
    for place in ("cpu", "disk"):
        places = {"language_model.model": "cpu", "language_model.lm_head": place}
        places |= {"vision_tower": place, "multi_modal_projector": "cpu", "image_newline": "cpu"}
        model = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32, device_map=places, offload_folder=tmp_path / "offload"
        )
        assert model.language_model.lm_head.weight.is_meta == (place == "disk")
        logits.append(model(ids, **pictures).logits)
    assert torch.equal(*logits)


def test_a_float32_model_reads_the_same_numbers(released):
    folder, tensors = released
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert torch.equal(model.image_newline, tensors["image_newline"].float())


def test_the_released_configuration_is_read_as_it_is(released):
    config = AutoConfig.from_pretrained(released[0])
    text, vision = config.text_config, config.vision_config
    assert text.layernorm_mlp_alpha == 3.5565588200778455 and text.rotary_dim == 4
    assert vision.use_class_token and vision.hidden_act == "gelu"
    assert config.image_grid_pinpoints == [[28, 28], [28, 56], [56, 28]]
    assert config.image_token_id == 95 and config.num_image_tokens == 4
    assert not hasattr(config, "auto_map") and not hasattr(text, "auto_map")


def test_the_preset_has_the_published_residual_weights():
    assert VL_01.text_config.layernorm_mlp_alpha == pytest.approx(3.5565588200778455, abs=1e-15)
    assert VL_01.text_config.attn_type_list.index(1) == 7
    assert VL_01.num_picture_tokens(480, 640) == 2340
    with pytest.raises(ValueError, match="preset: found 'small'; allowed are tiny, vl_01"):
        MiniMaxVLConfig.preset("small")


def test_a_missing_head_is_an_error_that_names_it(released):
    folder, tensors = released
    write_shards(folder, {k: v for k, v in tensors.items() if k != "language_model.lm_head.weight"})
    with pytest.raises(ValueError, match=r"1 missing: language_model\.lm_head\.weight"):
        AutoModelForImageTextToText.from_pretrained(folder)


@pytest.mark.parametrize("names", [("w3",), ("w1", "w2", "w3")])
def test_a_missing_expert_is_an_error_that_names_it(released, names):
    folder, tensors = released
    expert = "language_model.model.layers.0.block_sparse_moe.experts.1"
    gone = {f"{expert}.{name}.weight" for name in names}
    write_shards(folder, {name: value for name, value in tensors.items() if name not in gone})
    with pytest.raises(ValueError, match=rf"{len(gone)} missing: .*experts\.1\.w3\.weight"):
        AutoModelForImageTextToText.from_pretrained(folder)


def test_a_tensor_of_no_use_is_an_error_that_names_it(released):
    folder, tensors = released
    write_shards(folder, {**tensors, "language_model.model.layers.3.extra": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"1 of no use: language_model\.model\.layers\.3\.extra"):
        AutoModelForImageTextToText.from_pretrained(folder)


def test_the_last_norm_of_clip_and_decay_tables_are_passed_over(released):
    folder, tensors = released
    extra = {"vision_tower.vision_model.post_layernorm.weight": torch.ones(16)}
    extra["vision_tower.vision_model.post_layernorm.bias"] = torch.ones(16)
    extra["language_model.model.layers.0.self_attn.slope_rate"] = torch.ones(4, 1, 1)
    write_shards(folder, {**tensors, **extra})
    model, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert isinstance(model, MiniMaxVLForConditionalGeneration)
    assert not info["missing_keys"] and not info["unexpected_keys"]


def test_the_text_model_reads_and_writes_its_published_names(tmp_path):
    settings = {key: value for key, value in RELEASED_TEXT.items() if key != "model_type"}
    model = MiniMaxTextForCausalLM(MiniMaxVLTextConfig(**settings)).eval()
    model.save_pretrained(tmp_path)
    shapes = {name: tuple(value.shape) for name, value in read_folder(tmp_path).items()}
    assert shapes == published_tensors(model.config)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert isinstance(again, MiniMaxTextForCausalLM)
    ids = torch.arange(9)[None]
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_settings_that_the_released_model_does_not_have_are_refused():
    for options, message in (
        ({"shared_intermediate_size": 64}, "shared_intermediate_size: found 64"),
        ({"shared_intermediate_size": [0, 8]}, r"shared_intermediate_size: found \[0, 8\]"),
        ({"attention_dropout": 0.1}, "attention_dropout: found 0.1"),
        ({"hidden_act": "gelu"}, "hidden_act: found 'gelu'"),
        ({"sliding_window": 128}, "sliding_window: found 128"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings: found True"),
        ({"num_experts_per_tok": 5}, "num_experts_per_tok: 5"),
        ({"router_capacity_factor": 0.0}, "router_capacity_factor: 0.0"),
        ({"router_jitter_noise": 1.0}, "router_jitter_noise: 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            MiniMaxVLTextConfig(**options)
    for options, message in (
        ({"vision_feature_layer": 3}, "vision_feature_layer: found 3"),
        ({"vision_feature_select_strategy": "all"}, "found 'all'"),
        ({"vision_feature_select_strategy": "full"}, "it needs use_class_token"),
        ({"projector_hidden_act": "gellu"}, "projector_hidden_act: found 'gellu'"),
        ({"image_seq_length": 576}, "image_seq_length: found 576"),
        ({"vision_config": {"attention_dropout": 0.1}}, "vision attention_dropout"),
        ({"vision_config": {"num_attention_heads": 3}}, "vision num_attention_heads: 3"),
    ):
        with pytest.raises(ValueError, match=message):
            MiniMaxVLConfig(**options)
