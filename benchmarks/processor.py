"""The image processor against transformers' torchvision ones: pictures a CPU second, one thread.

    python benchmarks/processor.py

Sides take turns, round by round; the figures are medians over the rounds, the ratios medians of the
rounds' ratios. Pictures are decoded beforehand; decoding is timed apart.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import LlavaNextImageProcessor, Qwen2VLImageProcessor

from vl.models.minimax_vl import MiniMaxVLImageProcessor
from vl.models.minimax_vl.anyres import RELEASED_PINPOINTS

TILE_PX = 336
BATCH = 16
SIZE = (640, 480)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=15)
    rounds = options.parse_args().rounds
    torch.set_num_threads(1)
    grids = [list(grid) for grid in RELEASED_PINPOINTS]
    side = {"height": TILE_PX, "width": TILE_PX}
    ours = MiniMaxVLImageProcessor(TILE_PX, image_grid_pinpoints=grids)
    exact = MiniMaxVLImageProcessor(TILE_PX, image_grid_pinpoints=grids, resizer="pil")
    llava = LlavaNextImageProcessor(
        size=side, crop_size=side, do_center_crop=False, image_grid_pinpoints=grids
    )
    sides = {
        "LLaVA-NeXT, torchvision": llava,
        "Qwen2-VL, torchvision": Qwen2VLImageProcessor(),
        "ours": ours,
        "ours, resizer pil": exact,
    }
    encoded = pictures_of_noise(BATCH)
    pictures = [decoded(data) for data in encoded]
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, {SIZE} pictures")
    for title, step in (("one by one", 1), (f"batches of {BATCH}", BATCH)):
        calls = {name: runner(processor, pictures, step) for name, processor in sides.items()}
        report(title, measure(calls, rounds))
    seconds = measure({"decode": lambda: [decoded(data) for data in encoded]}, rounds)["decode"]
    print(f"JPEG decoding alone: {BATCH / statistics.median(seconds):.0f} /s")
    found, expected = (side(pictures[0])["pixel_values"] for side in (ours, exact))
    levels = (found - expected).abs() * torch.tensor(ours.image_std)[:, None, None] * 255
    most, mean = levels.max(), levels.mean()
    print(f"torchvision against pil: {most:.2f} levels of 255 at most, {mean:.4f} on average")


def pictures_of_noise(count: int) -> list[bytes]:
    """JPEG files of smooth noise with some grain, which compress about as photographs do."""
    random = np.random.default_rng(0)
    files: list[bytes] = []
    for _ in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC)).astype(int)
        grained = (smooth + random.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
        data = io.BytesIO()
        Image.fromarray(grained).save(data, format="JPEG", quality=90)
        files.append(data.getvalue())
    return files


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def runner(processor, pictures: Sequence[Image.Image], step: int) -> Callable[[], object]:
    chunks = [list(pictures[at : at + step]) for at in range(0, len(pictures), step)]

    def run() -> None:
        for chunk in chunks:
            processor(chunk, return_tensors="pt")

    return run


def measure(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each call in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    return seconds


def report(title: str, seconds: dict[str, list[float]]) -> None:
    print(title)
    for name, values in seconds.items():
        ratios = [
            statistics.median(other / own for other, own in zip(seconds[peer], values, strict=True))
            for peer in list(seconds)[:2]
        ]
        print(
            f"  {name:26s}{BATCH / statistics.median(values):7.0f} /s   "
            f"x{ratios[0]:.2f} LLaVA-NeXT   x{ratios[1]:.2f} Qwen2-VL"
        )


if __name__ == "__main__":
    main()
