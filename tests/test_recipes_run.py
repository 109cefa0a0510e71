"""The smoke run through the command line: everything it writes, resuming, kept stages."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from smoke import SMALL, data_only, numbers, train

from recipes import RECIPES
from recipes.cli import main
from recipes.recipe import recipe_from_json
from vl.rl import RlStage
from vl.rundir import MACRO_TASKS, PHASES, STAGES, read_eval, read_eval_rollouts, read_metrics
from vl.sft import SftStage
from vl.summary import summarise_difference, summarise_phase


def test_a_smoke_run_writes_the_whole_run_directory(smoke_run):
    names = {path.name for path in smoke_run.out.iterdir()}
    assert names >= {
        "config.json",
        "metrics.jsonl",
        "rollouts.jsonl",
        "checkpoints",
        "eval",
        "eval.json",
        "final",
        "report.html",
        "tensorboard",
    }
    assert list((smoke_run.out / "eval" / "images").glob("*.png"))
    assert not list(smoke_run.out.rglob("*.part"))
    page = (smoke_run.out / "report.html").read_text()
    assert all(task in page for task in MACRO_TASKS)


def test_a_smoke_run_passes_every_stage_and_rl_really_updates(smoke_run):
    lines = read_metrics(smoke_run.out)
    assert list(dict.fromkeys(line["stage"] for line in lines)) == list(STAGES)
    rl = [line for line in lines if line["stage"] == "rl"]
    assert len(rl) == 6
    assert sum(line["reward"] for line in rl) > 0.0
    assert max(line.get("grad_norm", 0.0) for line in rl) > 0.0
    assert {line["unscored"] for line in rl} == {0.0}
    assert any(key.startswith("source/") for key in rl[0])


def test_eval_json_follows_from_the_stored_answers(smoke_run):
    stored = read_eval(smoke_run.out)
    assert stored is not None and tuple(stored["phases"]) == PHASES
    lines = {phase: read_eval_rollouts(smoke_run.out, phase) for phase in PHASES}
    for phase in PHASES:
        assert json.loads(json.dumps(summarise_phase(lines[phase]))) == stored["phases"][phase]
    again = summarise_difference(lines["rl"], lines["sft"])
    assert json.loads(json.dumps(again)) == stored["differences"]["rl - sft"]
    assert set(stored["phases"]["rl"]["task"]) == {*MACRO_TASKS, "vqa"}
    # by hand: the mean of the greedy scores of one task
    counting = [line["greedy"]["score"] for line in lines["rl"] if line["task"] == "counting"]
    found = stored["phases"]["rl"]["task"]["counting"]["greedy"]
    assert found["n"] == len(counting) and found["mean"] == pytest.approx(
        sum(counting) / len(counting)
    )


def test_config_json_is_the_recipe(smoke_run):
    content = json.loads((smoke_run.out / "config.json").read_text())
    files = content.pop("files")
    assert len(files["train"]) == len(files["heldout"]) == 17
    assert recipe_from_json(content) == RECIPES["orsta_tiny"](smoke=True)


def test_a_used_out_is_refused_and_left_alone(smoke_run, capsys):
    before = sorted(path.name for path in smoke_run.out.iterdir())
    assert train(smoke_run.out, smoke_run.cache) == 2
    assert "not empty" in capsys.readouterr().err
    assert sorted(path.name for path in smoke_run.out.iterdir()) == before


def test_another_rl_number_does_not_repeat_the_sft(tmp_path, smoke_run, capsys, monkeypatch):
    monkeypatch.setattr(SftStage, "run_step", lambda *_: pytest.fail("SFT is repeated"))
    words = ["--control=false", "--evaluation.num_samples=0", "--rl.num_steps=1"]
    words += ["--rl.optimizer.lr=2e-3"]
    assert train(tmp_path / "run", smoke_run.cache, *words) == 0
    assert "sft: kept from an earlier run" in capsys.readouterr().err
    kept, first = numbers(tmp_path / "run"), numbers(smoke_run.out)
    assert [x for x in kept if x["stage"] == "sft"] == [x for x in first if x["stage"] == "sft"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory, smoke_run):
    """An uninterrupted small run with its own stages."""
    folder = tmp_path_factory.mktemp("straight")
    assert train(folder / "run", data_only(smoke_run.cache, folder / "cache"), *SMALL) == 0
    return folder / "run"


def test_rl_has_something_to_repeat(straight):
    rl = [line for line in numbers(straight) if line["stage"] == "rl"]
    assert sum(line.get("grad_norm", 0.0) > 0.0 for line in rl) >= 2


@pytest.mark.parametrize(("stage", "name", "step"), [(SftStage, "sft", 5), (RlStage, "rl", 2)])
def test_a_stopped_run_goes_on_to_the_same_numbers(
    stage, name, step, straight, smoke_run, tmp_path, monkeypatch, capsys
):
    out, cache = tmp_path / "run", straight.parent / "cache"
    if stage is SftStage:  # else kept stages are taken
        cache = data_only(smoke_run.cache, tmp_path / "cache")
    run_step = stage.run_step

    def interrupted(self, number):
        if number == step - 1:
            signal.raise_signal(signal.SIGINT)
        return run_step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "run_step", interrupted)
        assert train(out, cache, *SMALL) == 130
    said = capsys.readouterr().err
    assert f"stopped after step {step} of" in said
    assert f"continue with: vl train --out {out} --cache {cache} --resume" in said
    assert (out / "checkpoints" / f"{name}-{step}.pt").is_file()
    assert numbers(out) != numbers(straight)

    assert main(["train", "--out", str(out), "--cache", str(cache), "--resume"]) == 0
    assert numbers(out) == numbers(straight)
    for phase in ("init", "sft", "rl"):
        assert read_eval_rollouts(out, phase) == read_eval_rollouts(straight, phase)
    assert (out / "report.html").exists()


def test_a_stop_within_the_last_evaluation_repeats_no_step(straight, tmp_path, monkeypatch):
    out, cache = tmp_path / "run", straight.parent / "cache"
    with monkeypatch.context() as patch:
        patch.setattr("recipes.pipeline.write_folder", _interrupt)
        assert train(out, cache, *SMALL) == 130
    monkeypatch.setattr(RlStage, "run_step", lambda *_: pytest.fail("RL is repeated"))
    assert main(["train", "--out", str(out), "--cache", str(cache), "--resume"]) == 0
    assert numbers(out) == numbers(straight)


def _interrupt(*_):
    raise KeyboardInterrupt


def test_a_real_ctrl_c_ends_the_process_with_130(tmp_path, smoke_run):
    out = tmp_path / "run"
    cache = data_only(smoke_run.cache, tmp_path / "cache")
    words = ["train", "orsta_tiny", "--smoke", "--sft.num_steps=9999", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "recipes.cli", *words, "--cache", str(cache)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while (
        not (out / "metrics.jsonl").exists() or '"sft"' not in (out / "metrics.jsonl").read_text()
    ):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said and f"vl train --out {out} --cache {cache} --resume" in said
    assert list((out / "checkpoints").glob("sft-*.pt"))


def test_a_run_is_repeated_from_its_config_alone(straight, smoke_run, tmp_path):
    out = tmp_path / "again"
    cache = data_only(smoke_run.cache, tmp_path / "cache")
    config = straight / "config.json"
    assert main(["train", str(config), "--out", str(out), "--cache", str(cache)]) == 0
    assert numbers(out) == numbers(straight)


def test_resuming_without_a_run_is_refused(tmp_path, capsys):
    assert main(["train", "--out", str(tmp_path), "--resume"]) == 2
    assert "nothing to resume" in capsys.readouterr().err
    assert main(["train", "--out", str(tmp_path), "--resume", "--seed", "1"]) == 2
    assert "keeps its config.json" in capsys.readouterr().err


def test_too_many_unscored_rollouts_stop_the_run_with_a_message(
    tmp_path, smoke_run, monkeypatch, capsys
):
    from vl import groups as groups_module

    def unscored(scoring, items, context):
        verdicts = score_with(scoring, items, context)
        return [replace(v, score=None, reward=None, status="fault") for v in verdicts]

    score_with = groups_module.score_with
    monkeypatch.setattr(groups_module, "score_with", unscored)
    words = ["--control=false", "--evaluation.num_samples=0"]
    assert train(tmp_path / "run", smoke_run.cache, *words) == 2
    said = capsys.readouterr().err
    assert "unscored" in said or "could not be judged" in said
