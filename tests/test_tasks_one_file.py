"""One file of forty lines adds a task: built, checked, judged, trained on and evaluated."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from data_specs import read_samples
from tasks import TASKS, Task
from tasks.build import build, draw_scene

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "add_task_of_files.py"


def write_clicks(folder, split, num_pictures):
    """Pictures and boxes as another tool would leave them: PNG files and lines of JSON."""
    folder.mkdir(exist_ok=True)
    lines = []
    for index in range(num_pictures):
        scene = draw_scene("openmoji_detect", seed=3, split=split, index=index)
        name = f"{split}_{index}.png"
        data = io.BytesIO()
        Image.fromarray(scene.image).save(data, "PNG")
        (folder / name).write_bytes(data.getvalue())
        item = scene.objects[0]
        line = {"image": name, "size": [64, 64], "name": item.label, "box": list(item.box)}
        lines.append(json.dumps(line) + "\n")
    (folder / f"{split}.jsonl").write_text("".join(lines))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A folder with the example as an installed package, and a function that runs Python there."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copy(EXAMPLE, folder / "pointing.py")
    write_clicks(folder / "clicks", "train", 12)
    write_clicks(folder / "clicks", "test", 4)
    info = folder / "pointing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pointing\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vl_triune.tasks]\npointing = pointing:TASK\n")
    return folder


def python(package, *words):
    """Standard output of Python with the package on its path."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=package,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(package), str(ROOT)])},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


VL = ("-c", "import sys; from recipes.cli import main; sys.exit(main(sys.argv[1:]))")


@pytest.fixture(scope="module")
def built(package):
    """The rows, drawn by `vl data build`."""
    counts = ("--train-images", "10", "--heldout-images", "9")
    python(package, *VL, "data", "build", "--out", "data", "--sources", "clicks", *counts)
    return package / "data"


def test_a_reader_without_rows_is_refused(tmp_path, monkeypatch):
    task = Task(name="none", verifiers=(), judged_by="", readers={"nothing": lambda _split: []})
    monkeypatch.setitem(TASKS, "none", task)
    counts = {"num_train_images": 1, "num_heldout_images": 1}
    with pytest.raises(ValueError, match="'nothing': found no rows for split 'train'"):
        build(tmp_path, seed=0, sources=["nothing"], processes=1, **counts)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_reader_gives_its_rows_up_to_the_number_of_pictures(built):
    names = {path.name for path in built.rglob("*.parquet")}
    assert names == {"train_pointing_clicks_10.parquet", "test_pointing_clicks_4.parquet"}
    rows = list(read_samples([built / "test"]))
    assert [row.id for row in rows] == [f"clicks-test-{n}" for n in range(4)]
    assert {(row.source, row.task, row.extra["split"]) for row in rows} == {
        ("clicks", "pointing", "test")
    }
    manifest = json.loads((built / "data.json").read_text())
    assert [file["num_images"] for file in manifest["files"]] == [10, 4]
    assert "| pointing | the point lies within the box |" in (built / "DATA_CARD.md").read_text()


def test_its_rows_pass_the_check_and_the_kit(package, built):
    said = python(package, *VL, "data", "check", built / "train", built / "test")
    assert re.search(r"14 +clicks", said)
    code = (
        "from data_specs import read_samples\n"
        "from verifiers.kit import check_verifier\n"
        "check_verifier('point', list(read_samples(['data/test']))[:2])"
    )
    python(package, "-c", code)


def test_its_own_pose_is_what_prompts_say(package, built):
    code = (
        "from data_specs import read_samples\n"
        "from tasks.prompts import pose\n"
        "row = next(iter(read_samples(['data/test'])))\n"
        "print(row.question)\n"
        "print(pose(row, seed=0, epoch=0, heldout=True))\n"
        "print(pose(row, seed=0, epoch=0, heldout=True, thinking=True))"
    )
    name, posed, thinking = python(package, "-c", code).splitlines()
    assert posed == f"click the {name}."
    assert thinking == (
        f"click the {name}. Think step by step between <think> and </think> first. "
        "Give the answer between <answer> and </answer>."
    )


def test_it_is_trained_on_and_evaluated(package, built):
    words = ["--train_files", built / "train", "--heldout_files", built / "test"]
    words += ["--control=false", "--evaluation.num_samples=0", "--align.num_steps=2"]
    words += ["--sft.num_steps=4", "--rl.num_steps=2"]
    out = ("--out", "run", "--cache", "cache")
    python(package, *VL, "train", "orsta_tiny", "--smoke", *out, *words)
    text = (package / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    rl = [line for line in lines if line["stage"] == "rl"]
    assert len(rl) == 2
    assert all(any(key.startswith("source/clicks/") for key in line) for line in rl)
    evaluation = json.loads((package / "run" / "eval.json").read_text())
    assert set(evaluation["phases"]["rl"]["source"]) == {"clicks"}
    assert evaluation["phases"]["rl"]["task"]["pointing"]["greedy"]["n"] == 4
