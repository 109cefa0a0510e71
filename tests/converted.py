"""Runs `vl data convert` on small files made by a test, and reads what came of it."""

import io
import json
import random
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from data_specs import Sample, read_samples
from recipes.cli import main
from tasks.check import check_files


class Converted(NamedTuple):
    """The end of one run of the command."""

    code: int
    samples: list[Sample]
    listed: list[dict]
    """The lines of the list of what was left out."""
    out: Path

    def kinds(self, by_rule=False):
        """(kind, id) of every record that was left out, in order."""
        return [(line["kind"], line["id"]) for line in self.listed if line["by_rule"] is by_rule]


def convert(folder, format_name, *words, name="rows.parquet", checked=True):
    """Converts and, unless told otherwise, asserts that `vl data check` finds nothing wrong."""
    out = folder / "out" / name
    code = main(["data", "convert", format_name, *map(str, words), "--out", str(out)])
    listed = out.with_name(f"{out.stem}.problems.jsonl")
    lines = listed.read_text().splitlines() if listed.exists() else []
    samples = []
    if out.exists() and checked:
        report = check_files(out)
        assert report.problems == (), [str(problem) for problem in report.problems]
        samples = list(read_samples(out))
    return Converted(code, samples, [json.loads(line) for line in lines], out)


def picture(path, size=(100, 200), seed=0, **options):
    """Writes a picture of noise, as PNG unless the name says otherwise, and gives its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = random.Random(seed).randbytes(size[0] * size[1] * 3)
    data = io.BytesIO()
    kind = "JPEG" if path.suffix == ".jpg" else "PNG"
    Image.frombytes("RGB", size, noise).save(data, kind, **options)
    path.write_bytes(data.getvalue())
    return data.getvalue()


def write(path, value):
    """Writes JSON, or JSON lines if the name says so, and gives the path."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(item) + "\n" for item in value))
    else:
        path.write_text(json.dumps(value))
    return path


def answer(*boxes):
    """The ground truth with these (x1, y1, x2, y2, label) boxes."""
    items = [f"{{'bbox_2d': {list(box[:4])}, 'label': {box[4]!r}}}" for box in boxes]
    return f"<answer>[{', '.join(items)}]</answer>"


def truths(samples):
    """Question to ground truth of the rows."""
    return {item.question: item.reward.ground_truth for item in samples}
