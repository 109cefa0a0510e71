"""The run directory: what is written comes back, kills lose nothing, resuming repeats nothing."""

import json
import math
import subprocess
import sys

import pytest
from PIL import Image

from vl.rundir import (
    START,
    Position,
    RunDirError,
    image_path,
    read_config,
    read_eval,
    read_eval_rollouts,
    read_metrics,
    read_rollouts,
)
from vl.runlog import RunLog

ANSWER = {
    "response": "\\boxed{7}",
    "score": 1.0,
    "format": None,
    "reward": 1.0,
    "status": "ok",
    "reason": "equal",
    "parts": {},
    "num_tokens": 5,
}
ROW = {
    "id": "a1",
    "source": "digits",
    "task": "ocr",
    "image_id": "im/1",
    "question": "Which digit?",
    "prompt": "Which digit?",
    "reference": "7",
    "ground_truth": "\\boxed{7}",
}


class FakeWriter:
    def __init__(self, folder, purge_step):
        self.folder, self.purge_step = folder, purge_step
        self.scalars, self.closed = [], False

    def add_scalar(self, tag, scalar_value, global_step):
        self.scalars.append((tag, scalar_value, global_step))

    def close(self):
        self.closed = True


def log_steps(log, *positions):
    for stage, step in positions:
        log.log_metrics(stage=stage, step=step, num_steps=9, values={"reward": step / 10})
        log.log_rollout_group({"stage": stage, "step": step, "group": [ANSWER], **ROW})


def positions(lines):
    return [(line["stage"], line["step"]) for line in lines]


def test_what_is_written_is_read_back(tmp_path):
    with RunLog(tmp_path / "run", make_writer=None) as log:
        log.write_config({"seed": 3})
        log.log_metrics(
            stage="rl", step=1, num_steps=9, values={"source/digits/reward": 0.5, "entropy": None}
        )
        log.log_rollout_group({"stage": "rl", "step": 1, "group": [ANSWER], **ROW})
        log.write_eval_rollouts(
            "rl", [{"phase": "rl", "greedy": ANSWER, "samples": [ANSWER] * 8, **ROW}]
        )
        log.write_eval({"phases": {}})
        run = log.run_dir
    assert read_config(run) == {"seed": 3}
    assert read_metrics(run) == [
        {"stage": "rl", "step": 1, "num_steps": 9, "source/digits/reward": 0.5}
    ]
    assert read_metrics(run, "sft") == []
    assert read_rollouts(run)[0]["group"] == [ANSWER]
    assert len(read_eval_rollouts(run, "rl")[0]["samples"]) == 8
    assert read_eval_rollouts(run, "control") == []
    assert read_eval(run) == {"phases": {}}
    assert not list(run.rglob("*.part"))


def test_every_line_is_on_disk_before_the_log_is_closed(tmp_path):
    log = RunLog(tmp_path, make_writer=None)
    log_steps(log, ("sft", 1))
    assert positions(read_metrics(tmp_path)) == positions(read_rollouts(tmp_path)) == [("sft", 1)]
    log.close()


def test_a_resumed_run_has_each_step_once(tmp_path):
    with RunLog(tmp_path, make_writer=None) as log:
        log.write_config({})
        log_steps(log, ("align", 1), ("sft", 1), ("sft", 2), ("rl", 1), ("rl", 2), ("rl", 3))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage":"rl","ste')  # the kill tore this line
    with RunLog(tmp_path, resume_at=Position("rl", 1), make_writer=None) as log:
        log_steps(log, ("rl", 2))
    expected = [("align", 1), ("sft", 1), ("sft", 2), ("rl", 1), ("rl", 2)]
    assert positions(read_metrics(tmp_path)) == positions(read_rollouts(tmp_path)) == expected
    with RunLog(tmp_path, resume_at=START, make_writer=None):
        assert read_metrics(tmp_path) == read_rollouts(tmp_path) == []


def test_a_torn_last_line_is_left_out_and_a_broken_middle_line_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"stage":"rl","step":1}\n{"stage":"r')
    assert positions(read_metrics(tmp_path)) == [("rl", 1)]
    path.write_text('{"stage":"rl","step":1}\nnonsense\n{"stage":"rl","step":3}\n')
    with pytest.raises(RunDirError, match=r"metrics\.jsonl line 2: b'nonsense"):
        read_metrics(tmp_path)


def test_a_new_run_refuses_a_directory_that_holds_anything(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunDirError, match=r"not empty, found notes\.txt.*--resume"):
        RunLog(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]


def test_resuming_needs_a_run(tmp_path):
    with pytest.raises(RunDirError, match=r"no config\.json"):
        RunLog(tmp_path / "absent", resume_at=START)
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_and_not_logged(tmp_path, value):
    with RunLog(tmp_path, make_writer=None) as log:
        with pytest.raises(RunDirError, match=r"metric 'loss' of sft step 4"):
            log.log_metrics(stage="sft", step=4, num_steps=9, values={"lr": 0.1, "loss": value})
        assert read_metrics(tmp_path) == []


def test_a_misspelt_stage_or_phase_names_the_known_ones(tmp_path):
    with RunLog(tmp_path, make_writer=None) as log:
        with pytest.raises(RunDirError, match=r"'rll' is unknown; known: align, sft, rl, control"):
            log.log_metrics(stage="rll", step=1, num_steps=1, values={})
        with pytest.raises(RunDirError, match=r"'align' is unknown; known: init, sft, rl"):
            log.write_eval_rollouts("align", [])


def test_the_tracker_gets_each_number_in_a_folder_per_stage(tmp_path):
    made = []

    def make(folder, purge_step):
        made.append(FakeWriter(folder, purge_step))
        return made[-1]

    with RunLog(tmp_path, make_writer=make) as log:
        log.write_config({})
        log_steps(log, ("sft", 1), ("rl", 1), ("rl", 2))
    assert [writer.folder.name for writer in made] == ["sft", "rl"]
    assert made[1].scalars == [("reward", 0.1, 1), ("reward", 0.2, 2)]
    assert all(writer.closed and writer.purge_step is None for writer in made)
    with RunLog(tmp_path, resume_at=Position("rl", 1), make_writer=make) as log:
        log_steps(log, ("rl", 2), ("control", 1))
    assert [writer.purge_step for writer in made[2:]] == [2, 1]


def test_images_are_written_once_and_any_image_id_stays_inside_the_run(tmp_path):
    with RunLog(tmp_path, make_writer=None) as log:
        log.write_eval_image("../../x", Image.new("RGB", (4, 4), "red"))
        log.write_eval_image("../../x", Image.new("RGB", (4, 4), "blue"))
    path = image_path(tmp_path, "../../x")
    assert path.parent == tmp_path / "eval" / "images"
    with Image.open(path) as image:
        assert image.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_text_that_is_not_valid_unicode_survives(tmp_path):
    with RunLog(tmp_path, make_writer=None) as log:
        answer = {**ANSWER, "response": "half \ud83d of a pair\n\x00 \u2028"}
        log.log_rollout_group({"stage": "rl", "step": 1, "group": [answer], **ROW})
    assert read_rollouts(tmp_path)[0]["group"][0]["response"] == answer["response"]
    assert len((tmp_path / "rollouts.jsonl").read_bytes().splitlines()) == 1


def test_reading_and_writing_a_run_does_not_load_torch():
    code = "import sys, vl.runlog, vl.rundir; print(json.dumps('torch' in sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, check=True
    )
    assert json.loads(out.stdout) is False
