"""Sizes worked out from a configuration, against published figures and models that exist."""

import math

import pytest
import torch
from tiny_vl import tiny_policy
from torch.utils.flop_counter import FlopCounterMode

from recipes.cli import main
from vl.models.minimax_vl import MiniMaxVLConfig, MiniMaxVLForConditionalGeneration
from vl.models.minimax_vl.size import decode_flops, model_size, picture_size, prefill_flops

VL_01 = MiniMaxVLConfig.preset("vl_01")
TINY = MiniMaxVLConfig.preset("tiny")


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return MiniMaxVLForConditionalGeneration(TINY).eval()


def test_the_published_model_has_its_published_sizes():
    size = model_size(VL_01)
    parts = size.parameters
    vision = parts["vision tower"] + parts["projector"] + parts["newline"]
    assert size.total - vision == 456_089_655_296
    assert parts["vision tower"] == 303_505_408
    assert parts["projector"] == 1024 * 6144 + 6144 + 6144 * 6144 + 6144
    assert parts["embedding"] == parts["head"] == 200_064 * 6144
    assert parts["experts"] == 80 * 32 * 3 * 6144 * 9216
    assert size.active_per_token == pytest.approx(45.945e9, abs=1e6)
    assert size.weight_bytes - 2 * vision == 912_210_767_872
    assert size.kv_bytes_per_token == 40_960
    assert size.state_bytes == 280 * 2**20
    assert size.training_bytes == 16 * size.total


def test_parts_add_up_to_the_weights_of_real_models(tiny):
    for model in (tiny, tiny_policy().model):
        size = model_size(model.config)
        assert size.total == sum(param.numel() for param in model.parameters())
        tower = sum(param.numel() for param in model.vision_tower.parameters())
        assert size.parameters["vision tower"] == tower
        gates = [
            n for n, _ in model.named_parameters() if n.endswith("block_sparse_moe.gate.weight")
        ]
        routers = sum(math.prod(model.get_parameter(name).shape) for name in gates)
        assert size.parameters["routers"] == routers


@torch.no_grad()
def test_operations_of_a_written_token_are_those_counted(tiny):
    past = tiny(torch.arange(4, 37)[None]).past_key_values
    with FlopCounterMode(display=False) as counter:
        tiny(torch.tensor([[7]]), past_key_values=past)
    products = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    lightning = 7 * 5 * 4 * 64 * 64  # 7 layers, 4 heads: decay, update and reading of 64 x 64
    softmax = 4 * 4 * 64 * 34  # scores and mix of 34 keys
    assert decode_flops(TINY, 33) == products + lightning + softmax


@torch.no_grad()
def test_operations_of_a_read_token_are_those_counted(tiny):
    with FlopCounterMode(display=False) as counter:
        tiny(torch.randint(4, 1000, (1, 256)), logits_to_keep=1)
    products = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    head = 2 * 1024 * 128
    lightning = 7 * 256 * (4 * 256 * 64 + 4 * 256 * 64)  # blocks of 64 tokens, states of 64 x 64
    softmax = 4 * 256 * 256 * 257 // 2
    assert 256 * prefill_flops(TINY, 256) == products - head + lightning + softmax


@torch.no_grad()
def test_operations_of_a_picture_are_those_counted(tiny):
    found = picture_size(TINY, 168, 168)
    assert (found.num_tiles, found.num_tokens) == (10, 16 + 12 * 13)
    with FlopCounterMode(display=False) as counter:
        tiny.image_features(torch.zeros(10, 3, 56, 56))
    attention = 10 * 2 * 4 * 17**2 * 128  # tiles, layers
    assert found.vision_flops == counter.get_total_flops() + attention


def test_a_stem_of_convolutions_is_counted():
    config = MiniMaxVLConfig(
        vision_config={"stem_channels": [8, 16, 16], "num_hidden_layers": 1, "image_size": 32},
        spatial_merge_size=2,
    )
    model = MiniMaxVLForConditionalGeneration(config)
    assert model_size(config).total == sum(param.numel() for param in model.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.image_features(torch.zeros(1, 3, 32, 32))
    assert picture_size(config, 9, 9).vision_flops == counter.get_total_flops() + 4 * 16**2 * 128


def test_vl_model_info_prints_the_sizes(capsys):
    assert main(["model", "info", "vl_01", "--image", "640x480", "--context", "8192"]) == 0
    lines = capsys.readouterr().out.splitlines()
    words = {line.split("  ")[0]: line.split() for line in lines}
    assert words["parameters"][1] == "456,437,219,328"
    assert words["active per token"][3] == "45,944,920,064"
    assert words["state per sequence"][3:5] == ["280.0", "MiB"]
    assert words["picture 640x480"][2:6] == ["2,340", "tokens", "5", "tiles,"]


def test_vl_model_info_of_a_folder_reads_no_weights(tmp_path, capsys):
    TINY.save_pretrained(tmp_path / "final")
    assert main(["model", "info", str(tmp_path)]) == 0
    assert f"{model_size(TINY).total:,}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing: neither a preset (tiny, vl_01) nor a folder with a config.json"),
        (["tiny", "--image", "640"], "--image: found '640'; write width x height"),
        (["tiny", "--context", "0"], "--context: 0 tokens"),
    ],
)
def test_vl_model_info_refuses_what_it_cannot_read(arguments, message, capsys):
    assert main(["model", "info", *arguments]) == 2
    assert message in capsys.readouterr().err
