"""RL of a saved transformers model from the command line: trained, evaluated, saved, resumed."""

import io
import json
from functools import partial

import pytest
import torch
from smoke import numbers
from tiny_hf import picture, tiny
from tiny_vl import judge_by_length
from transformers import AutoModelForImageTextToText

from data_specs import ImageRef, Message, RewardSpec, Sample, write_samples
from recipes import pipeline
from recipes.cli import main
from recipes.load import load_policy
from vl.rl import RlStage
from vl.rundir import read_metrics


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved tiny Qwen2.5-VL, training rows and held-out rows with one and with two pictures."""
    home = tmp_path_factory.mktemp("vlm")
    tiny("qwen25").save(home / "model")
    for split, start in (("train", 0), ("test", 50)):
        write_samples([row(start + number) for number in range(6)], home / f"{split}_count.parquet")
    return home


def row(number):
    pictures = tuple(ImageRef(data=png(10 * number + index)) for index in range(1 + number % 2))
    marks = "<image>" * len(pictures)
    return Sample(
        id=f"dots_{number}",
        source="dots",
        task="counting",
        messages=(Message(role="user", content=f"{marks}how many dots?"),),
        images=pictures,
        reward=RewardSpec(verifier="number", answer="3", ground_truth="\\boxed{3}"),
    )


def png(seed):
    data = io.BytesIO()
    picture(seed).save(data, format="PNG")
    return data.getvalue()


def train(folder, out, *more):
    return main(
        [
            *("train", "vlm_rl", "--smoke", "--out", str(out)),
            *("--model.path", str(folder / "model")),
            *("--data.train_files", str(folder / "train_count.parquet")),
            *("--data.heldout_files", str(folder / "test_count.parquet")),
            *more,
        ]
    )


@pytest.mark.parametrize("lora", [None, {"rank": 2}], ids=["full", "lora"])
def test_a_saved_model_is_trained_evaluated_and_saved_whole(
    folder, tmp_path, lora, capsys, monkeypatch
):
    monkeypatch.setattr("vl.groups.score_with", judge_by_length)  # else all rewards are 0
    more = [] if lora is None else ["--model.lora", json.dumps(lora)]
    assert train(folder, tmp_path / "run", "--rl.optimizer.lr", "0.01", *more) == 0
    lines = read_metrics(tmp_path / "run", "rl")
    assert [line["step"] for line in lines] == [1, 2]
    for line in lines:
        assert line["grad_norm"] > 0 and line["rollout_match/max_difference"] < 1e-4
        assert {"eval/score", "source/dots/eval/score", "grad_norm/llm"} <= set(line)
        assert "grad_norm/vit" not in line  # frozen
    evaluation = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert set(evaluation["phases"]) == {"init", "rl"}
    assert set(evaluation["differences"]) == {"rl - init"}
    assert evaluation["notes"] and not any("control" in note for note in evaluation["notes"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "RL made no clear difference to the macro average after the start" in page
    before = tiny("qwen25").model.state_dict()
    final = tmp_path / "run" / "final"
    after = AutoModelForImageTextToText.from_pretrained(final).state_dict()
    assert set(after) == set(before)
    moved = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert moved and all("visual" not in name for name in moved)
    assert load_policy(tmp_path / "run").end_ids == tiny("qwen25").end_ids
    said = capsys.readouterr().err
    assert "vit" in said and "frozen" in said
    rows = str(folder / "test_count.parquet")
    words = ["eval", rows, "--model", str(final), "--out", str(tmp_path / "eval"), "--samples", "0"]
    assert main(words) == 0


def test_a_path_without_a_model_is_refused(folder, tmp_path, capsys):
    assert train(folder, tmp_path / "run", "--model.path", "") == 2
    assert "model.path: found nothing" in capsys.readouterr().err


def test_evaluating_during_the_run_changes_nothing_of_it(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("vl.groups.score_with", judge_by_length)

    def lines(out, every):
        rate = ("--rl.optimizer.lr", "0.01", "--evaluate_every", every)
        assert train(folder, tmp_path / out, *rate) == 0
        return [
            {
                name: value
                for name, value in line.items()
                if "eval/" not in name and not name.endswith("_s") and "seconds/" not in name
            }
            for line in read_metrics(tmp_path / out, "rl")
        ]

    assert lines("with", "1") == lines("without", "0")


def test_a_run_with_sft_and_a_reference_that_dies_in_rl_goes_on_to_the_same_numbers(
    folder, tmp_path, monkeypatch
):
    """The reference is the model after SFT, also in a run that resumes behind it."""
    monkeypatch.setattr("vl.groups.score_with", judge_by_length)
    monkeypatch.setattr(pipeline, "run_stage", partial(pipeline.run_stage, checkpoint_every=1))
    words = [
        *("--sft", '{"num_steps": 1, "pictures_per_step": 2}', "--algorithm", "grpo"),
        *("--rl.loss.kl", '{"coefficient": 0.1}', "--rl.optimizer.lr", "0.003"),
        *("--rl.num_steps", "3", "--evaluate_every", "0"),
    ]
    assert train(folder, tmp_path / "straight", *words) == 0
    update = RlStage.update

    def die(stage, groups, step):
        if step == 2:
            raise SystemError("killed")
        return update(stage, groups, step)

    with monkeypatch.context() as dying:
        dying.setattr(RlStage, "update", die)
        with pytest.raises(SystemError, match="killed"):
            train(folder, tmp_path / "killed", *words)
    assert main(["train", "vlm_rl", "--out", str(tmp_path / "killed"), "--resume"]) == 0
    lines = numbers(tmp_path / "killed")
    assert lines == numbers(tmp_path / "straight") and lines[-1]["kl"] > 0
