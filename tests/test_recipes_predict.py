"""A finished run looked at again: `vl predict`, `vl eval`, `vl report`."""

import json
import shutil

import pytest
import torch
from PIL import Image

from recipes import evaluation
from recipes.cli import main
from vl.rollout import Rollout
from vl.rundir import PHASES


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "dog.png"
    Image.new("RGB", (80, 40), "white").save(path)
    return path


def test_a_smoke_model_answers_in_text(smoke_run, picture, capsys):
    words = ["--image", str(picture), "--prompt", "how many dogs?"]
    assert main(["predict", "--model", str(smoke_run.out), *words]) == 0
    assert capsys.readouterr().out.strip()


def test_boxes_in_an_answer_are_drawn(smoke_run, picture, monkeypatch, capsys, tmp_path):
    text = "<answer>[{'bbox_2d': [250, 250, 750, 750], 'label': 'dog'}]</answer>"
    answer = Rollout(token_ids=(1,), logprobs=(0.0,), text=text, stop="end")
    monkeypatch.setattr(evaluation, "sample_rollouts", lambda *_: [[answer]])
    words = ["--image", str(picture), "--prompt", "box every dog."]
    assert main(["predict", "--model", str(smoke_run.out / "final"), *words]) == 0
    drawn = picture.with_name("dog_boxes.png")
    assert f"{text}\nboxes drawn in {drawn}" in capsys.readouterr().out
    with Image.open(drawn) as image:
        scale = image.width // 80
        assert image.size == (80 * scale, 40 * scale) and scale > 1
        assert image.getpixel((20 * scale, 20 * scale)) != (255, 255, 255)  # the left side
        assert image.getpixel((40 * scale, 25 * scale)) == (255, 255, 255)  # the inside


def test_a_folder_without_a_model_is_refused(picture, tmp_path, capsys):
    words = ["--image", str(picture), "--prompt", "how many?"]
    assert main(["predict", "--model", str(tmp_path), *words]) == 2
    assert "give the folder final/ of a finished run" in capsys.readouterr().err


def test_eval_repeats_the_numbers_of_the_run(smoke_run, tmp_path, capsys):
    rows = next(smoke_run.cache.glob("data-*")) / "test"
    words = ["--model", str(smoke_run.out / "final"), "--samples", "0", "--out"]
    assert main(["eval", str(rows), *words, str(tmp_path / "eval")]) == 0
    assert "macro" in capsys.readouterr().out
    found = json.loads((tmp_path / "eval" / "eval.json").read_text())["phases"]["rl"]
    stored = json.loads((smoke_run.out / "eval.json").read_text())["phases"]["rl"]
    assert set(found["source"]) == set(stored["source"])
    assert (tmp_path / "eval" / "report.html").exists()
    assert main(["score", str(tmp_path / "eval" / "eval" / "rl" / "rollouts.jsonl")]) == 0
    assert "0 of 272 verdicts moved" in capsys.readouterr().out
    assert main(["eval", str(rows), *words, str(tmp_path / "eval")]) == 2
    assert "not empty" in capsys.readouterr().err


def test_a_report_is_rendered_again(smoke_run, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "metrics.jsonl", "eval.json"):
        shutil.copy(smoke_run.out / name, run)
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert all(f'"{phase}"' in page or phase in page.lower() for phase in PHASES)


def test_a_saved_processor_loads_without_warnings(smoke_run, caplog):
    policy = evaluation.load_policy(smoke_run.out)
    assert type(policy.processor).__name__ == "MiniMaxVLProcessor"
    assert not policy.model.training and caplog.text == ""
    (seen,) = policy.features([policy.encode([Image.new("RGB", (64, 64))])])
    assert torch.isfinite(seen.tokens).all()
