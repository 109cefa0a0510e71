"""The prompt pool: short, boxed, drawn from (seed, row, epoch)."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

import tasks
from data_specs import ImageRef, Message, RewardSpec, Sample
from tasks import Task, find_task, installed_tasks
from tasks.prompts import POOL, TAG_POOL, THINKING_POOL, instruction, pose, question
from verifiers import VERIFIERS


def row(verifier: str, question: str = "count every dog.") -> Sample:
    reward = RewardSpec(verifier=verifier, answer="3", ground_truth=r"\boxed{3}")
    message = Message(role="user", content=f"<image>{question}")
    return Sample(
        id="s-train-0-0", source="s", task="counting", messages=(message,), images=(), reward=reward
    )


def test_ten_different_short_wordings_say_boxed() -> None:
    assert len(set(POOL)) == 10
    assert all(r"\boxed{}" in text and len(text.split()) <= 5 for text in POOL)


def test_heldout_rows_always_get_the_first_wording() -> None:
    texts = {pose(row("number"), seed=s, epoch=e, heldout=True) for s in (0, 1) for e in (0, 1)}
    assert texts == {r"count every dog. answer in \boxed{}"}


def test_training_rows_draw_a_wording_by_seed_row_and_epoch() -> None:
    text = pose(row("number"), seed=0, epoch=0, heldout=False)
    assert text == pose(row("number"), seed=0, epoch=0, heldout=False)
    assert text.removeprefix("count every dog. ") in POOL
    drawn = {pose(row("number"), seed=0, epoch=epoch, heldout=False) for epoch in range(40)}
    assert len(drawn) > 5


def test_all_wordings_are_equally_likely() -> None:
    counts = Counter(instruction(f"row-{number}", 0, 0) for number in range(2000))
    assert set(counts) == set(POOL)
    assert max(counts.values()) < 260 and min(counts.values()) > 140


def test_box_rows_are_posed_as_they_are() -> None:
    assert pose(row("detection"), seed=0, epoch=0, heldout=False) == "count every dog."


def test_all_wordings_differ_and_are_one_sentence_each() -> None:
    pools = (POOL, TAG_POOL, THINKING_POOL)
    assert [len(pool) for pool in pools] == [10, 10, 10]
    assert len({" ".join(text.lower().split()) for pool in pools for text in pool}) == 30
    for text in (*TAG_POOL, *THINKING_POOL):
        assert text[0].isupper() and text.endswith(".") and text.count(".") == 1
        assert len(text.split()) <= 12 and text == text.strip()
    assert not any("." in text for text in POOL)


def test_every_wording_names_its_form_once_and_no_other() -> None:
    tags = re.compile(r"</?(?:answer|think)>|\\boxed\{\}")
    assert {tuple(tags.findall(text)) for text in POOL} == {(r"\boxed{}",)}
    assert {tuple(tags.findall(text)) for text in TAG_POOL} == {("<answer>", "</answer>")}
    assert {tuple(tags.findall(text)) for text in THINKING_POOL} == {("<think>", "</think>")}
    assert all("step by step" in text for text in THINKING_POOL)


def test_thinking_comes_before_the_instruction_of_the_verifiers_form() -> None:
    posed = pose(row("number"), seed=0, epoch=0, heldout=True, thinking=True)
    assert posed == f"count every dog. {THINKING_POOL[0]} {POOL[0]}"
    posed = pose(row("detection"), seed=0, epoch=0, heldout=True, thinking=True)
    assert posed == f"count every dog. {THINKING_POOL[0]} {TAG_POOL[0]}"


def test_thinking_and_instruction_are_drawn_independently() -> None:
    samples = [replace(row("number"), id=f"row-{number}") for number in range(1500)]
    drawn = Counter(
        pose(sample, seed=0, epoch=0, heldout=False, thinking=True) for sample in samples
    )
    assert len(drawn) == 100


@pytest.mark.parametrize(
    ("verifier", "question", "added"),
    [
        ("number", r"how many? put it in \boxed{}.", [THINKING_POOL[0]]),
        ("detection", "box it in <answer> tags.", [THINKING_POOL[0]]),
        ("number", "how many? think step by step.", [POOL[0]]),
        ("number", "how many? use <think> and <answer> tags.", [POOL[0]]),
    ],
)
def test_what_the_question_says_is_not_said_again(
    verifier: str, question: str, added: list[str]
) -> None:
    posed = pose(row(verifier, question), seed=0, epoch=0, heldout=True, thinking=True)
    assert posed == " ".join([question, *added])


def test_the_verifier_says_what_prompts_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {name: verifier.asks_for for name, verifier in VERIFIERS.items()}
    boxed = dict.fromkeys(("mathverify", "choice", "number", "text"), "boxed")
    tagged = dict.fromkeys(("detection", "point"), "tag")
    assert asked == {**boxed, **tagged, "composite": None}
    for form, added in ((None, ""), ("boxed", f" {POOL[0]}")):
        monkeypatch.setitem(VERIFIERS, "mine", replace(VERIFIERS["number"], asks_for=form))
        assert pose(row("mine"), seed=0, epoch=0, heldout=True) == f"count every dog.{added}"
    assert pose(row("unknown"), seed=0, epoch=0, heldout=True) == "count every dog."


def test_a_task_may_pose_its_rows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(tasks.TASKS["counting"], pose=lambda sample: f"{sample.source}: how many?")
    monkeypatch.setitem(tasks.TASKS, "counting", own)
    posed = pose(row("number"), seed=0, epoch=0, heldout=True)
    assert posed == r"s: how many? answer in \boxed{}"


class Entry:
    """An entry point that gives `task`."""

    group, value = "vl_triune.tasks", "package:TASK"

    def __init__(self, name: str, task: object) -> None:
        self.name, self.task = name, task

    def load(self) -> object:
        return self.task


MINE = Task(name="mine", verifiers=("number",), judged_by="", readers={"s": lambda _split: []})


@pytest.mark.parametrize(
    "entry",
    [
        Entry("mine", 7),
        Entry("yours", MINE),
        Entry("math", replace(MINE, name="math")),
        Entry("mine", replace(MINE, readers={"easy_vqa": MINE.readers["s"]})),
    ],
)
def test_an_entry_point_that_is_no_new_task_is_refused(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_entry_points", lambda: (entry,))
    with pytest.raises(ValueError, match=r"package:TASK.*rename"):
        installed_tasks()


def test_an_installed_task_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Entry("broken", 7)
    monkeypatch.setattr(tasks, "_entry_points", lambda: (broken, Entry("mine", MINE)))
    assert find_task("mine") is MINE and find_task("nothing") is None


def test_markers_stay_only_where_a_row_shows_several_pictures() -> None:
    picture = ImageRef(path="a.png")
    one = replace(row("number", "what differs?"), images=(picture,))
    text = "here <image> and there <image>: what differs?"
    asked = (Message(role="user", content=text),)
    two = replace(one, messages=asked, images=(picture, picture))
    assert question(one) == "what differs?"
    assert question(two) == text
