"""`vl model info`: how large a MiniMax-VL is and what a token costs, without its weights."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .progress import show

if TYPE_CHECKING:
    from vl.models.minimax_vl import MiniMaxVLConfig

_RAW = argparse.RawDescriptionHelpFormatter
_CONTEXT_TOKENS = 8192


def add_parsers(commands: Any) -> None:
    """Adds the commands of this file."""
    model = commands.add_parser(
        "model",
        help="sizes and costs of a MiniMax-VL",
        formatter_class=_RAW,
        epilog="example:\n  vl model info vl_01 --image 640x480",
    )
    verbs = model.add_subparsers(dest="verb", required=True, metavar="VERB")
    info = verbs.add_parser(
        "info",
        help="parameters, memory, image tokens and operations a token",
        formatter_class=_RAW,
        description="Prints what follows from a configuration alone; no weights are read.",
        epilog="examples:\n"
        "  vl model info vl_01\n"
        "  vl model info tiny --image 640x480\n"
        "  vl model info runs/orsta_tiny --context 2048",
    )
    info.add_argument(
        "model",
        nargs="?",
        default="vl_01",
        help="preset (tiny, vl_01), model folder or run directory (default vl_01)",
    )
    info.add_argument(
        "--image", action="append", default=[], metavar="WxH", help="a picture's size in pixels"
    )
    info.add_argument(
        "--context",
        type=int,
        default=_CONTEXT_TOKENS,
        metavar="TOKENS",
        help=f"tokens already read, or of the prompt (default {_CONTEXT_TOKENS})",
    )
    info.set_defaults(run=_info)


def _info(arguments: argparse.Namespace) -> int:
    if arguments.context < 1:
        raise ValueError(f"--context: {arguments.context} tokens; it must be 1 or more")
    pictures = [_size(text) for text in arguments.image]
    config = _read_config(arguments.model)
    for line in describe(config, arguments.context, pictures):
        show(line)
    return 0


def describe(
    config: MiniMaxVLConfig, context_tokens: int, pictures: list[tuple[int, int]]
) -> list[str]:
    """The lines of `vl model info`; pictures as (width, height) in pixels."""
    from vl.models.minimax_vl.size import decode_flops, model_size, picture_size, prefill_flops

    size = model_size(config)
    lines = [f"{'parameters':<22}{size.total:>20,}"]
    lines += [f"  {part:<20}{count:>20,}" for part, count in size.parameters.items() if count]
    lines += [
        f"{'active per token':<22}{size.active_per_token:>20,}  without embedding and head",
        f"{'weights':<22}{_bytes(size.weight_bytes):>20}  bfloat16, routers float32",
        f"{'training state':<22}{_bytes(size.training_bytes):>20}  "
        "float32 weights, gradients and Adam's moments; no activations",
        f"{'cache per token':<22}{_bytes(size.kv_bytes_per_token):>20}  bfloat16",
        f"{'state per sequence':<22}{_bytes(size.state_bytes):>20}  float32, of any length",
        f"{'operations per token':<22}{_flops(prefill_flops(config, context_tokens)):>20}  "
        f"reading a prompt of {context_tokens:,} tokens",
        f"{'':<22}{_flops(decode_flops(config, context_tokens)):>20}  "
        f"writing after {context_tokens:,} tokens",
    ]
    for width, height in pictures:
        found = picture_size(config, height, width)
        lines.append(
            f"{f'picture {width}x{height}':<22}{f'{found.num_tokens:,} tokens':>20}  "
            f"{found.num_tiles} tiles, {_flops(found.vision_flops)} in tower and projector"
        )
    return lines


def _read_config(name: str) -> MiniMaxVLConfig:
    from transformers import AutoConfig

    from vl.models.minimax_vl import MiniMaxVLConfig
    from vl.models.minimax_vl.configuration import PRESETS

    if name in PRESETS:
        return MiniMaxVLConfig(**PRESETS[name])
    folder = Path(name)
    folder = folder / "final" if (folder / "final").is_dir() else folder
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{name}: neither a preset ({', '.join(PRESETS)}) nor a folder with a config.json"
        )
    config = AutoConfig.from_pretrained(folder)
    if not isinstance(config, MiniMaxVLConfig):
        raise ValueError(
            f"{folder}: holds a {config.model_type} model; sizes are known for MiniMax-VL alone"
        )
    return config


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise ValueError(f"--image: found {text!r}; write width x height in pixels, e.g. 640x480")
    return int(found[1]), int(found[2])


def _bytes(count: int) -> str:
    return _scaled(count, 1024, ("bytes", "KiB", "MiB", "GiB", "TiB"))


def _flops(count: int) -> str:
    return _scaled(count, 1000, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"))


def _scaled(count: float, base: int, units: tuple[str, ...]) -> str:
    for unit in units:
        if count < base or unit == units[-1]:
            return f"{count:,.0f} {unit}" if unit == units[0] else f"{count:,.1f} {unit}"
        count /= base
    raise AssertionError("the last unit takes any number")
