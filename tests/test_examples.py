"""The examples run as the README prints them."""

import importlib.util
from pathlib import Path

import pytest

import tasks
import tasks.build
from data_specs import Message, RewardSpec, Sample
from tasks.build import build
from tasks.check import check_files
from verifiers import VERIFIERS, score
from verifiers.kit import check_verifier

ROOT = Path(__file__).parents[1]


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dated(truth):
    return Sample(
        id="photo_1",
        source="photos",
        task="science",
        messages=(Message(role="user", content="When was it taken?"),),
        images=(),
        reward=RewardSpec(verifier="date", answer=truth, ground_truth=f"\\boxed{{{truth}}}"),
    )


@pytest.fixture
def date_verifier(monkeypatch):
    monkeypatch.setitem(VERIFIERS, "date", example("add_verifier").VERIFIER)


def test_the_example_verifier_keeps_to_the_contract(date_verifier):
    check_verifier("date", [dated("2024-02-29"), dated("1969-07-20")])


@pytest.mark.parametrize(
    ("response", "expected", "status"),
    [
        (r"\boxed{2024-02-29}", 1.0, "ok"),
        ("<answer>2024-02-28</answer>", 0.5, "ok"),
        (r"\boxed{2023-02-28}", 0.0, "ok"),
        (r"\boxed{29 February}", 0.0, "unparseable"),
    ],
)
def test_the_example_verifier_scores(date_verifier, response, expected, status):
    verdict = score(dated("2024-02-29"), response)
    assert (verdict.score, verdict.status) == (expected, status)


def test_a_wrong_reference_of_the_example_is_unscored(date_verifier):
    verdict = score(dated("yesterday"), r"\boxed{2024-02-29}")
    assert (verdict.score, verdict.status) == (None, "bad_reference")


def test_the_example_task_is_drawn_and_every_row_is_right(tmp_path, monkeypatch):
    task = example("add_task").TASK
    monkeypatch.setitem(tasks.TASKS, "squares", task)
    report = build(
        tmp_path,
        seed=0,
        num_train_images=5,
        num_heldout_images=3,
        sources=["dark_square"],
        processes=1,
    )
    assert report.num_rows == 4 * (5 + 3)
    checked = check_files([tmp_path / "train", tmp_path / "test"])
    assert checked.problems == () and checked.rows_by_task == {"squares": 32}


@pytest.mark.parametrize("name", ["add_task", "add_task_of_files"])
def test_an_example_task_has_at_most_forty_lines(name):
    assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) <= 40


@pytest.mark.parametrize("name", ["add_verifier", "add_task"])
def test_the_readme_prints_the_example(name):
    lines = (ROOT / "examples" / f"{name}.py").read_text().splitlines()
    shown = "\n".join(lines[lines.index("from __future__ import annotations") + 2 :])
    assert f"```python\n{shown}\n```" in (ROOT / "README.md").read_text()
