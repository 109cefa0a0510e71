"""Contracts of every source: what is drawn, what is asked, how answers are spread."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from tasks import TASKS, Scene, installed_tasks
from tasks.build import draw_scene
from tasks.task import NUM_QUESTIONS, SIZE_PX, Question

SOURCES = [source for task in TASKS.values() for source in task.sources]
NUM_SCENES = 300
TWO_ANSWERS = {"symmetric", "trend", "above", "before", "sinks", "rises", "vqa_yes_no"}


@cache
def scenes(source: str, split: str = "train") -> list[Scene]:
    return [draw_scene(source, seed=1, split=split, index=index) for index in range(NUM_SCENES)]


@pytest.mark.parametrize("source", SOURCES)
def test_every_scene_has_four_different_questions_and_an_rgb_image(source: str) -> None:
    for scene in scenes(source):
        assert scene.image.shape == (SIZE_PX, SIZE_PX, 3)
        assert scene.image.dtype == np.uint8
        assert len({question.text for question in scene.questions}) == NUM_QUESTIONS == 4


@pytest.mark.parametrize("source", SOURCES)
def test_every_object_lies_inside_the_image_on_even_pixels(source: str) -> None:
    for scene in scenes(source):
        assert scene.objects or source == "easy_vqa"
        for item in scene.objects:
            x1, y1, x2, y2 = item.box
            assert 0 <= x1 < x2 <= SIZE_PX and 0 <= y1 < y2 <= SIZE_PX, item
            assert all(value % 2 == 0 for value in item.box), item


@pytest.mark.parametrize("source", SOURCES)
def test_equal_seeds_draw_equal_scenes_and_others_do_not(source: str) -> None:
    first, again = (draw_scene(source, seed=3, split="test", index=5) for _ in range(2))
    other = draw_scene(source, seed=4, split="test", index=6)
    assert np.array_equal(first.image, again.image)
    assert (first.objects, first.questions) == (again.objects, again.questions)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_no_answer_is_frequent_enough_to_be_worth_guessing(source: str, split: str) -> None:
    answers: dict[str, Counter[str]] = {}
    for scene in scenes(source, split):
        for question in scene.questions:
            answers.setdefault(question.kind, Counter())[question.answer] += 1
    for kind, counter in answers.items():
        share = counter.most_common(1)[0][1] / counter.total()
        assert share <= (0.62 if kind in TWO_ANSWERS else 0.42), (kind, counter.most_common(3))


def test_labels_and_words_are_small_closed_vocabularies() -> None:
    labels: set[str] = set()
    words: set[str] = set()
    for source in SOURCES:
        for split in ("train", "test"):
            for scene in scenes(source, split):
                labels |= {item.label for item in scene.objects}
                for question in scene.questions:
                    words |= set(re.findall(r"[a-zA-Z]+", question.text))
                    if re.fullmatch("[a-z]{3,}", question.answer):
                        words.add(question.answer)
    assert len(labels) <= 95, sorted(labels)
    assert len(words) <= 200, sorted(words)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_rows_use_the_verifiers_that_their_task_names(task) -> None:
    for source in task.sources:
        used = {question.verifier for scene in scenes(source) for question in scene.questions}
        assert used <= set(task.verifiers)


def test_eight_kinds_have_two_sources_each_and_easy_vqa_stands_apart() -> None:
    macro = [task for task in TASKS.values() if task.in_macro]
    assert len(macro) == 8 and all(len(task.sources) == 2 for task in macro)
    assert not TASKS["vqa"].in_macro
    assert installed_tasks() == TASKS


def test_a_scene_refuses_a_question_asked_twice() -> None:
    question = Question(kind="k", text="t?", answer="1", ground_truth="1", verifier="number")
    with pytest.raises(ValueError, match="4 different texts"):
        Scene(image=np.zeros((64, 64, 3), np.uint8), objects=(), questions=(question,) * 4)
