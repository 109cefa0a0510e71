"""How fast rows are checked: `python benchmarks/check_rows.py [--rows N]`.

Draws a file of N rows, each with its own noise image of 5 to 50 kB and its own reference (boxes,
formulas, numbers, words), and checks it: rows per second of processor time (the worker that judges
formulas included), of wall time, and the most memory used.
"""

import argparse
import io
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from data_specs import ImageRef, Message, RewardSpec, Sample, write_samples
from tasks.check import check_files

BYTES = (5_000, 50_000)


def picture(rng):
    """An encoded image of 5 to 50 kB and its size in pixels."""
    while True:
        kind = ("PNG", "JPEG", "JPEG")[int(rng.integers(3))]
        low, high = (40, 125) if kind == "PNG" else (80, 330)
        width, height = (int(side) for side in rng.integers(low, high, 2))
        data = io.BytesIO()
        pixels = Image.frombytes("RGB", (width, height), rng.bytes(width * height * 3))
        pixels.save(data, kind, **({"compress_level": 1} if kind == "PNG" else {"quality": 70}))
        if BYTES[0] <= data.tell() <= BYTES[1]:
            return data.getvalue(), width, height


def reference(rng, number):
    """Verifier and reference of a row; none stands twice."""
    if number % 4 == 0:
        starts, sides = rng.integers(0, 500, (2, 2)), rng.integers(1, 500, (2, 2))
        boxes = np.concatenate([starts, starts + sides], axis=1).tolist()
        items = [{"bbox_2d": box, "label": f"thing {number}"} for box in boxes]
        return "detection", f"<answer>{items}</answer>"
    return (
        ("mathverify", f"\\boxed{{\\frac{{{number}}}{{7}}+x^2}}"),
        ("number", f"\\boxed{{{number}.5}}"),
        ("text", f"\\boxed{{sign {number}}}"),
    )[number % 4 - 1]


def rows(num_rows):
    """The rows of the file."""
    rng = np.random.default_rng(0)
    for number in range(num_rows):
        data, width, height = picture(rng)
        verifier, ground_truth = reference(rng, number)
        yield Sample(
            id=f"row-{number}",
            source=verifier,
            task="made",
            messages=(Message(role="user", content=f"<image>What is number {number}?"),),
            images=(ImageRef(data=data),),
            reward=RewardSpec(verifier=verifier, answer="", ground_truth=ground_truth),
            extra={"image_width": width, "image_height": height},
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    num_rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train_made.parquet"
        write_samples(rows(num_rows), path)
        print(f"{num_rows} rows, {path.stat().st_size / 1e6:.0f} MB")
        for decode in (False, True):
            cpu, wall = cpu_seconds(), time.perf_counter()
            report = check_files(path, decode)
            cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
            report.raise_if_bad()
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            what = "decoded" if decode else "headers"
            print(f"{what}: {num_rows / cpu:.0f} rows a CPU second, {num_rows / wall:.0f} a second")
            print(f"{what}: {most:.0f} MB at most")


def cpu_seconds():
    """Of this process and of the workers that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in spent)


if __name__ == "__main__":
    main()
