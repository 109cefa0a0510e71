"""`vl score`: stored answers of an evaluation or of training judged again."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_verifiers_cases import BOX, make

from data_specs import write_samples
from recipes.cli import main
from recipes.rescoring import fold_reason, read_param
from recipes.stored_answers import read_context, read_stored
from verifiers import FixedIou, StagedIou

HALF = BOX.replace("90, 90", "50, 90")  # half the box: IoU 0.5


def answer(response, score, status="ok", reason=""):
    return {"response": response, "score": score, "status": status, "reason": reason}


ROWS = [
    replace(make("number", r"\boxed{8}"), id="n0", source="counts"),
    replace(make("text", r"\boxed{EXIT}", ignore_case=True), id="t0", source="words"),
    replace(make("detection", BOX), id="b0", source="boxes"),
]
LINES = [
    {
        "source": "counts",
        "id": "n0",
        "greedy": answer(r"\boxed{7}", 0.0, reason="'7' is not '8'"),
        "samples": [answer(r"\boxed{8}", 1.0), answer("8", 0.0, "no_answer", "nothing")],
    },
    {
        "source": "words",
        "id": "t0",
        "greedy": answer(r"\boxed{EXIST}", 0.0, reason="'EXIST' against 'EXIT': exact"),
        "samples": [answer(r"\boxed{EXIT}", 1.0)],
    },
    {"source": "boxes", "id": "b0", "greedy": answer(HALF, 0.5), "samples": []},
]
NUM_ANSWERS = 6


@pytest.fixture
def run(tmp_path):
    """A run directory with one small evaluation."""
    return write_run(tmp_path / "run", LINES)


def write_run(folder, lines, name="eval/rl/rollouts.jsonl", **config):
    path = folder / name
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = folder / "rows.parquet"
    write_samples(ROWS, rows)
    files = {"heldout": [str(rows)], "train": [str(rows)]}
    config = {"evaluation": {"iou_rule": {"threshold": 0.3}}, "files": files} | config
    (folder / "config.json").write_text(json.dumps(config))
    return path


def said(capsys, *words):
    assert main(["score", *map(str, words)]) == 0
    return capsys.readouterr().out


def refused(capsys, *words):
    assert main(["score", *map(str, words)]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_stored_answers_score_the_same_again(smoke_run, capsys):
    out = said(capsys, smoke_run.out / "eval" / "rl" / "rollouts.jsonl")
    answers = 272 * 3  # every held-out row: greedy and two samples
    assert f"0 of {answers} verdicts moved; rule for boxes FixedIou(threshold=0.5)" in out
    assert "openmoji_count" in out


def test_rollouts_of_training_score_the_same_again(smoke_run, capsys):
    out = said(capsys, smoke_run.out / "rollouts.jsonl")
    groups = len((smoke_run.out / "rollouts.jsonl").read_text().splitlines())
    assert groups > 0 and f"0 of {groups * 4} verdicts moved; rule for boxes StagedIou" in out


def test_a_run_scores_the_same_again_without_the_training_packages(smoke_run):
    code = (
        "import sys\n"
        "absent = 'torch pydantic transformers fastapi httpx jaxtyping jinja2'.split()\n"
        "sys.modules |= dict.fromkeys(absent)\n"
        "from recipes.cli import main\n"
        f"sys.exit(main(['score', {str(smoke_run.out / 'rollouts.jsonl')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "0 of" in done.stdout


def test_a_changed_verdict_is_shown_by_source_and_status(smoke_run, tmp_path, capsys):
    lines = (smoke_run.out / "eval" / "rl" / "rollouts.jsonl").read_text().splitlines()
    row = next(line for line in map(json.loads, lines) if line["source"] == "mnist_count")
    row["greedy"] = {**row["greedy"], "response": row["ground_truth"], "score": 0.0}
    row["samples"] = [{**row["greedy"], "response": "", "score": 1.0, "status": "ok"}]
    path = write_run(tmp_path / "run", [row])
    shutil.copy(smoke_run.out / "config.json", tmp_path / "run")
    out = said(capsys, path)
    assert "2 of 2 verdicts moved" in out
    assert "ok -> no_answer 1" in out and f"{row['id']}: 0.0 (" in out


def test_the_tables_count_by_source_and_by_reason(run, capsys):
    out = said(capsys, run, "--source", "counts", "--param", 'shaping="relative"').splitlines()
    cells = out[1].split()
    # stored: 0, 1, 0; now: 7/8, 1, 0
    assert cells[:7] == ["counts", "3", "0.3333", "0.6250", "1", "0", "0"]
    assert out[3].split(maxsplit=1)[0] == "1"
    assert "ok: '...' is not '...'" in out[3] and "partly: '...' against '...'" in out[3]
    assert "1 of 3 verdicts moved" in out[-1]


def test_another_verifier_starts_without_the_rows_parameters(run, capsys):
    words = ["--source", "words", "--verifier", "text", "--param", 'metric="cer"']
    out = said(capsys, run, *words)
    assert "words                       2   0.5000   0.8750" in out  # 1 - 1/4 and 1
    out = said(capsys, run, "--source", "words", "--verifier", "choice")  # knows no ignore_case
    assert "0 of 2 verdicts moved" in out


def test_a_parameter_is_added_and_null_takes_one_away(run, capsys):
    line = json.loads(run.read_text().splitlines()[1])
    line["greedy"] = answer(r"\boxed{exit}", 1.0)
    run.write_text(json.dumps(line) + "\n")
    assert "0 of 2 verdicts moved" in said(capsys, run)
    assert "1 of 2 verdicts moved" in said(capsys, run, "--param", "ignore_case=null")
    out = said(capsys, run, "--param", "ignore_case=false", "--param", 'references=["exit"]')
    assert "0 of 2 verdicts moved" in out


def test_boxes_are_judged_at_the_runs_rule_or_the_given_one(run, capsys):
    assert "0 of 6 verdicts moved; rule for boxes FixedIou(threshold=0.3)" in said(capsys, run)
    out = said(capsys, run, "--source", "boxes", "--iou-threshold", "0.6")
    assert "boxes" in out and "0.5000   0.0000" in out
    assert "1 of 1 verdicts moved; rule for boxes FixedIou(threshold=0.6)" in out


def test_new_verdicts_are_written_as_lines(run, tmp_path, capsys):
    out = tmp_path / "new" / "verdicts.jsonl"
    assert f"6 verdicts in {out}" in said(capsys, run, "--out", out, "--iou-threshold", "0.6")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == NUM_ANSWERS
    assert [line["answer"] for line in lines[:3]] == ["greedy", "sample 1", "sample 2"]
    assert lines[5]["stored"] == {"score": 0.5, "status": "ok", "reason": ""}
    assert (lines[5]["line"], lines[5]["source"], lines[5]["id"]) == (3, "boxes", "b0")
    assert lines[5]["verdict"]["score"] == 0.0 and lines[5]["verdict"]["verifier"] == "detection"
    assert "exists; choose another file" in refused(capsys, run, "--out", out)


def group_line(step, response, score):
    group = [answer(response, score)]
    return {"stage": "rl", "step": step, "source": "boxes", "id": "b0", "group": group}


def test_training_is_judged_at_the_threshold_of_each_step(tmp_path, capsys):
    lines = [group_line(1, HALF, 0.5), group_line(3, HALF, 0.0)]
    stages = {"stages": [[0.25, 0.4], [1.0, 0.6]]}
    rl = {"iou_rule": stages, "num_steps": 4}
    path = write_run(tmp_path / "run", lines, "rollouts.jsonl", rl=rl)
    assert "0 of 2 verdicts moved; rule for boxes StagedIou" in said(capsys, path)
    stored = read_stored(path)
    contexts = [read_context(stored, answer) for answer in stored.answers]
    assert [context.progress for context in contexts] == [0.0, 0.5]  # (step - 1) / 4
    assert contexts[0].iou_rule == StagedIou(((0.25, 0.4), (1.0, 0.6)))
    assert [c.iou_rule.thresholds(c.progress) for c in contexts] == [(0.4,), (0.6,)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--verifier", "numbr"], "did you mean 'number'?"),
        (["--verifier", "text"], ""),
        (["--param", "shaping=relative"], "A text needs its quotation marks: --param 'shaping="),
        (["--param", "shaping"], "allowed: NAME=JSON"),
        (["--param", "year=true"], "'year' is unknown; allowed: ignore_case, metric"),
        (["--param", 'shaping="log"', "--source", "counts"], "allowed: none, relative"),
        (["--source", "count"], "there are boxes, counts, words"),
        (["--iou-threshold", "2"], "IoU threshold 2.0 is out of range"),
        (["--workers", "0"], "--workers is 0; allowed: at least 1"),
        (["--rows", "{run}/none.parquet"], "none.parquet"),
    ],
)
def test_bad_input_ends_with_2_and_a_remedy(run, words, message, capsys):
    words = [word.format(run=run.parents[2]) for word in words]
    if not message:
        assert main(["score", str(run), *words]) == 0
    else:
        assert message in refused(capsys, run, *words)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"source": "counts", "id": "n0"}, "line 4: found the fields source, id; needed: 'greedy'"),
        (LINES[0] | {"id": 7}, "line 4: id is 7; allowed: str"),
        (LINES[0] | {"samples": ["x"]}, "line 4, sample 1: found 'x'"),
        (LINES[0] | {"greedy": {"response": "x"}}, "line 4, greedy: score is None; allowed: float"),
        (LINES[0] | {"greedy": answer("x", "1")}, "line 4, greedy: score is '1'"),
        (LINES[0] | {"greedy": answer("x", True)}, "line 4, greedy: score is True"),
        (LINES[0] | {"id": "n9"}, "line 4: row 'n9' of 'counts' is not in"),
        (group_line(1, "", 0.0), "holds answers of evaluations and of training"),
        (group_line(1, "", 0.0) | {"group": 7}, "line 4: found the fields stage, step"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path, line, message, capsys):
    path = write_run(tmp_path / "run", [*LINES, line])
    assert message in refused(capsys, path)


def test_a_line_that_is_not_json_is_named(run, capsys):
    run.write_text(run.read_text() + "{\n")
    assert "line 4: b'{\\n' is not JSON" in refused(capsys, run)


def test_a_file_without_answers_or_rows_is_refused(tmp_path, run, capsys):
    assert "give eval/<phase>/rollouts.jsonl" in refused(capsys, tmp_path / "none.jsonl")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert "holds no answer" in refused(capsys, empty)
    lonely = tmp_path / "lonely.jsonl"
    shutil.copy(run, lonely)
    assert "give them with --rows" in refused(capsys, lonely)
    out = said(capsys, lonely, "--rows", run.parents[2] / "rows.parquet", "--source", "counts")
    assert "0 of 3 verdicts moved; rule for boxes FixedIou(threshold=0.5)" in out


@pytest.mark.parametrize("rule", [{"threshold": "x"}, {"stages": [1]}, {}, 7, {"limit": 0.5}])
def test_an_iou_rule_that_cannot_be_read_is_named(tmp_path, rule, capsys):
    path = write_run(tmp_path / "run", LINES, evaluation={"iou_rule": rule})
    error = refused(capsys, path)
    assert "iou_rule" in error and "--iou-threshold" in error
    assert read_stored(path).config["evaluation"] == {"iou_rule": rule}
    assert "6 verdicts moved" in said(capsys, path, "--iou-threshold", "0.3")


def test_a_run_without_a_rule_is_judged_at_one_half(tmp_path):
    stored = read_stored(write_run(tmp_path / "run", LINES, evaluation={}))
    assert read_context(stored, stored.answers[0]).iou_rule == FixedIou(0.5)


@pytest.mark.parametrize(
    ("verdict", "folded"),
    [
        ((1.0, "ok", ""), "right"),
        ((0.875, "ok", "'7' against '8', tolerance 0"), "partly: '...' against '...', tolerance N"),
        ((0.0, "ok", "\"it's\" is not 'a \\'b\\''"), "ok: '...' is not '...'"),
        ((None, "timeout", "no verdict within 2.5 s"), "timeout: no verdict within N s"),
        ((0.0, "no_answer", "x" * 99), "no_answer: " + "x" * 67 + "..."),
    ],
)
def test_reasons_are_folded_to_their_form(verdict, folded):
    assert fold_reason(*verdict) == folded


def test_a_parameter_is_read_as_json():
    assert read_param("threshold=0.5") == ("threshold", 0.5)
    assert read_param('references=["a=b", "c"]') == ("references", ["a=b", "c"])


VOWELS = """
from verifiers import Verdict, Verifier
from verifiers.answer import extract_answer
from verifiers.params import reject_unknown


def vowels(text):
    return [letter for letter in text or "" if letter in "aeiouAEIOU"]


def judge(sample, response, context):
    gold, found = (
        vowels(extract_answer(text).text) for text in (sample.reward.ground_truth, response)
    )
    if not gold:
        return Verdict.unscored("no vowels", status="bad_reference")
    return Verdict.scored(float(found == gold), reason=f"{found} against {gold}")


VERIFIER = Verifier(
    judge=judge, check_params=lambda params: reject_unknown(params, ()), version="3"
)
"""


@pytest.fixture
def installed(tmp_path):
    """The environment of a process that has another package's verifier installed."""
    site = tmp_path / "site"
    info = site / "vowel_rewards-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "vowel_rewards.py").write_text(VOWELS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vowel-rewards\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[vl_triune.verifiers]\nvowels = vowel_rewards:VERIFIER\n"
    )
    root = Path(__file__).parents[1]
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(root)])}


def vl(environment, *words):
    command = [sys.executable, "-m", "recipes.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_an_installed_verifier_judges_stored_answers(installed, run):
    done = vl(installed, "score", run, "--source", "words", "--verifier", "vowels")
    assert done.returncode == 0, done.stderr
    assert "words                       2   0.5000   1.0000" in done.stdout  # EXIST has E and I
    again = vl(installed, "score", run, "--verifier", "vowel")
    assert again.returncode == 2 and "did you mean 'vowels'?" in again.stderr
    absent = vl(os.environ, "score", run, "--verifier", "vowels")
    assert absent.returncode == 2 and "'vowels' is not registered" in absent.stderr


def test_rows_of_an_installed_verifier_are_checked(installed, tmp_path):
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    write_samples([make("vowels", r"\boxed{EXIT}")], good)
    write_samples([make("vowels", r"\boxed{xyz}")], bad)
    assert vl(installed, "data", "check", good).returncode == 0
    done = vl(installed, "data", "check", bad)
    assert done.returncode == 2 and "vowels" in done.stderr + done.stdout
    done = vl(os.environ, "data", "check", good)
    assert done.returncode == 2 and "not registered" in done.stderr + done.stdout


def test_an_installed_verifier_keeps_the_contract(installed):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_verifiers_cases import make\n"
        "from verifiers import verifier_names\n"
        "from verifiers.kit import check_verifier\n"
        "check_verifier('vowels', [make('vowels', r'\\boxed{EXIT}')])\n"
        "print('vowels' in verifier_names())\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=installed, cwd=root
    )
    assert done.stdout == "True\n", done.stderr
