"""The reference answers, recomputed from what was drawn by other means than the makers'."""

from __future__ import annotations

import ast

import numpy as np
import pytest

from tasks import TASKS, Scene
from tasks.build import draw_scene
from tasks.charts import bar_windows
from tasks.task import SceneObject, per_mille

NUM_SCENES = 120


def drawn(source: str, **options) -> list[Scene]:
    options = {"seed": 7, "split": "test", **options}
    return [draw_scene(source, index=index, **options) for index in range(NUM_SCENES)]


def answers(scene: Scene) -> dict[str, str]:
    return {question.text: question.answer for question in scene.questions}


@pytest.mark.parametrize("icons", ["seen", "unseen"])
def test_icon_pixels_fill_their_boxes_and_nothing_else(icons: str) -> None:
    for scene in drawn("openmoji_detect", icons=icons):
        light = scene.image.min(axis=2) > 215  # the paper: every colour of it is pale
        outside = np.ones((64, 64), bool)
        for item in scene.objects:
            x1, y1, x2, y2 = item.box
            outside[y1:y2, x1:x2] = False
            ink = ~light[y1:y2, x1:x2]
            rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
            # A faint first or last line may look like paper; one pixel, not more.
            assert rows[0] <= 1 and rows[-1] >= y2 - y1 - 2, (item, rows)
            assert columns[0] <= 1 and columns[-1] >= x2 - x1 - 2, (item, columns)
        assert light[outside].all()


def test_unseen_icons_change_the_drawings_and_not_the_questions() -> None:
    for seen, unseen in zip(
        drawn("openmoji_detect"), drawn("openmoji_detect", icons="unseen"), strict=True
    ):
        assert [item.label for item in seen.objects][:1] and not np.array_equal(
            seen.image, unseen.image
        )


@pytest.mark.parametrize("source", ["openmoji_count", "mnist_count"])
def test_counts_are_the_numbers_of_drawn_objects(source: str) -> None:
    for scene in drawn(source):
        labels = [item.label for item in scene.objects]
        for text, answer in answers(scene).items():
            name = text.removeprefix("count every ").removesuffix(".")
            every = name in ("icon", "digit")
            assert int(answer) == (len(labels) if every else labels.count(name)), text


@pytest.mark.parametrize("source", ["openmoji_detect", "mnist_detect"])
def test_detection_lists_every_instance_in_reading_order(source: str) -> None:
    for scene in drawn(source):
        for question in scene.questions:
            name = question.text.removeprefix("box every ").removesuffix(".")
            wanted = [i for i in scene.objects if name in (i.label, "icon", "digit")]
            wanted.sort(key=lambda item: (item.box[1], item.box[0]))
            found = ast.literal_eval(question.answer)
            assert [item["bbox_2d"] for item in found] == [list(per_mille(i.box)) for i in wanted]
            assert {item["label"] for item in found} == {name}
            assert question.ground_truth == f"<answer>{question.answer}</answer>"


def _middle(item: SceneObject) -> tuple[float, float]:
    return item.box[0] + item.box[2], item.box[1] + item.box[3]


def test_relations_single_out_one_object_by_a_clear_margin() -> None:
    rule = {
        "left": (0, min), "right": (0, max), "upper": (1, min), "lower": (1, max),
    }  # fmt: skip
    for scene in drawn("openmoji_relation"):
        for text, answer in answers(scene).items():
            _, _, word, name = text.removesuffix(".").split()
            pool = [item for item in scene.objects if name in (item.label, "icon")]
            if word in rule:
                axis, extreme = rule[word]
                assert len(pool) == 2
                values = sorted(_middle(item)[axis] / 2 for item in pool)
                assert values[1] - values[0] >= 8
                target = extreme(pool, key=lambda item: _middle(item)[axis])
            else:
                sides = {max(i.box[2] - i.box[0], i.box[3] - i.box[1]): i for i in pool}
                assert len(sides) == len(pool)
                target = sides[max(sides) if word == "largest" else min(sides)]
            assert str(list(per_mille(target.box))) in answer


def test_colour_phrases_fit_exactly_one_digit() -> None:
    for scene in drawn("mnist_colour"):
        assert len({question.answer for question in scene.questions}) == 4
        for text in answers(scene):
            what = text.split()[3].removesuffix(".")
            assert what == "digit" or what in {item.label for item in scene.objects}


def test_handwritten_sums_are_right() -> None:
    for scene in drawn("mnist_sum"):
        left, sign, right = (item.label for item in scene.objects if item.label)
        if sign.isdigit():  # objects are drawn digit, sign, digit
            raise AssertionError(scene.objects)
        wanted = {"+": int(left) + int(right), "-": int(left) - int(right)}
        wanted["x"] = int(left) * int(right)
        assert answers(scene)["solve."] == str(wanted[sign])
        for text, value in {
            "which number is larger?": max(left, right),
            "which number is smaller?": min(left, right),
            "what is the left number plus 1?": int(left) + 1,
        }.items():
            assert answers(scene).get(text, str(value)) == str(value)


def test_printed_geometry_and_equations_are_right() -> None:
    for scene in drawn("font_geometry"):
        told = answers(scene)
        if scene.objects[0].label == "rectangle":
            width, height = (int(item.label) for item in scene.objects[1:])
            assert told["find the area."] == str(width * height)
            assert told["find the perimeter."] == str(2 * width + 2 * height)
            assert told["find the longer side."] == str(max(width, height))
        else:
            text = "".join(item.label for item in scene.objects)
            left, right = text.replace("x", told["find x."]).split("=")
            plus, minus = left.split("+"), left.split("-")
            value = sum(map(int, plus)) if len(plus) == 2 else int(minus[0]) - int(minus[1])
            assert value == int(right)


def test_words_and_rows_read_as_drawn() -> None:
    for source, ask in (("font_words", "read the word."), ("mnist_rows", "read the number.")):
        for scene in drawn(source):
            ordered = sorted(scene.objects, key=lambda item: item.box[0])
            text = "".join(item.label for item in ordered)
            told = answers(scene)
            assert told[ask] == text
            for part, value in {
                "letter": text[0], "two letters": text[:2], "digit": text[0], "two digits": text[:2]
            }.items():  # fmt: skip
                assert told.get(f"read the first {part}.", value) == value


def test_bar_answers_follow_from_the_drawn_heights() -> None:
    for scene in drawn("vega_bars"):
        bars = [item.box for item in scene.objects if item.label == "bar"]
        heights = [(54 - box[1]) // 5 for box in bars]
        told = answers(scene)
        assert heights.count(max(heights)) == heights.count(min(heights)) == 1
        highest, lowest = heights.index(max(heights)), heights.index(min(heights))
        assert told.get("which bar is highest?", "ABCD"[highest]) == "ABCD"[highest]
        assert told.get("which bar is lowest?", "ABCD"[lowest]) == "ABCD"[lowest]
        for letter, height in zip("ABCD", heights, strict=False):
            assert told.get(f"what is the value of {letter}?", str(height)) == str(height)
    assert {len(heights) for pool in bar_windows(heldout=True).values() for _, heights in pool} == {
        3, 4,
    }  # fmt: skip


def test_grid_answers_follow_from_the_drawn_tiles() -> None:
    for scene in drawn("arc_grids"):
        rows = sorted({item.box[1] for item in scene.objects})
        columns = sorted({item.box[0] for item in scene.objects})
        tiles = {(i.box[1], i.box[0]): i.label.removesuffix(" tile") for i in scene.objects}
        names = list(tiles.values())
        mirrored = all(tiles[y, x] == tiles[y, m] for y in rows for x, m in zip(
            columns, columns[::-1], strict=True))  # fmt: skip
        for text, answer in answers(scene).items():
            words = text.removesuffix("?").split()
            if text == "how many colours?":
                assert answer == str(len(set(names)))
            elif words[0] == "how":
                assert answer == str(names.count(words[2]))
            elif words[0] == "what":
                assert answer == tiles[rows[int(words[4]) - 1], columns[int(words[6]) - 1]]
            else:
                assert answer == ("yes" if mirrored else "no")


def test_the_odd_icon_is_where_the_answers_say() -> None:
    for scene in drawn("odd_icon"):
        labels = [item.label for item in scene.objects]
        told = answers(scene)
        cell = int(told["which cell is odd?"]) - 1
        assert labels.count(labels[cell]) == 1 and len(set(labels)) == 2
        assert told.get("which row is odd?", str(cell // 3 + 1)) == str(cell // 3 + 1)
        assert told.get("which column is odd?", str(cell % 3 + 1)) == str(cell % 3 + 1)
        assert told.get("what is the odd icon?", labels[cell]) == labels[cell]


@pytest.mark.parametrize("name", TASKS)
def test_rows_are_judged_as_what_they_are(name: str) -> None:
    task = TASKS[name]
    found = {
        (question.verifier, question.answer.lstrip("-").isdecimal())
        for source in task.sources
        for scene in drawn(source)
        for question in scene.questions
    }
    expected = {
        "math": {("mathverify", True)},
        "ocr": {("text", True), ("text", False)},  # 078 is read, not counted
        "counting": {("number", True)},
        "vqa": {("text", False)},
    }
    boxes = {("detection", False)}
    words = {("number", True), ("text", False)}
    assert found == expected.get(name, boxes if name in ("grounding", "detection") else words)
    assert {verifier for verifier, _ in found} == set(task.verifiers)
