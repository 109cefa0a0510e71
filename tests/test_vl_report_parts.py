"""Parts of the report by hand-worked numbers: sentences, tables, choice of rows."""

from collections import Counter

import pytest

from vl.report.gallery import choose_rows, compared_phases
from vl.report.numbers_in_words import duration, signed_percent, verdict
from vl.report.run_view import (
    Evaluation,
    HeldOutRow,
    Interval,
    PhaseScores,
    RunView,
    Scores,
    is_correct,
)
from vl.report.tables import result_tables, unscored_rows


def scores(mean, low, high):
    return Scores(by_measure={"avg@8": Interval(mean, low, high, 300)})


def phase(mean, low, high, **tasks):
    return PhaseScores(
        macro=scores(mean, low, high),
        tasks={name: scores(*values) for name, values in tasks.items()},
        sources={},
    )


def run_view(tmp_path, *, evaluation=None, metrics=(), rows=()):
    return RunView(
        run_dir=tmp_path,
        recipe="tiny",
        seed=1,
        config=None,
        metrics=metrics,
        evaluation=evaluation,
        rows=rows,
        task_of_source={"a": "ocr", "b": "math"},
    )


def evaluation(change, gap=None, **tasks):
    phases = {"sft": phase(0.451, 0.44, 0.46), "rl": phase(0.563, 0.55, 0.57)}
    differences = {"rl - sft": phase(*change, **tasks)}
    if gap is not None:
        phases["control"] = phase(0.48, 0.47, 0.49)
        differences["rl - control"] = phase(*gap)
    return Evaluation(phases=phases, differences=differences, seconds={}, notes=[])


def test_a_rise_clear_of_zero_is_called_a_rise(tmp_path):
    found = evaluation((0.112, 0.098, 0.126), math=(0.2, 0.1, 0.3), ocr=(0.01, -0.02, 0.04))
    sentences = verdict(run_view(tmp_path, evaluation=found))
    assert sentences == [
        "RL raised the macro average from 45.1 to 56.3 (+11.2, 95 % interval 9.8 to 12.6; "
        "mean of 8 samples).",
        "1 of 2 tasks are clearly higher after RL; none is clearly lower.",
    ]


def test_a_fall_and_a_task_that_fell_are_named(tmp_path):
    found = evaluation((-0.03, -0.05, -0.01), math=(-0.2, -0.3, -0.1), vqa=(-0.2, -0.3, -0.1))
    sentences = verdict(run_view(tmp_path, evaluation=found))
    assert sentences[0].startswith("RL lowered the macro average from")
    assert "(−3.0, 95 % interval −5.0 to −1.0;" in sentences[0]
    assert sentences[1] == "0 of 1 tasks are clearly higher after RL; clearly lower: math."


def test_a_change_that_may_be_chance_is_not_called_a_rise(tmp_path):
    sentences = verdict(run_view(tmp_path, evaluation=evaluation((0.02, -0.01, 0.05))))
    assert sentences[0].startswith("RL made no clear difference to the macro average after SFT")


def test_the_control_stands_beside_the_headline(tmp_path):
    found = evaluation((0.112, 0.098, 0.126), gap=(0.083, -0.001, 0.17))
    sentences = verdict(run_view(tmp_path, evaluation=found))
    assert sentences[1] == (
        "The same seconds spent on more SFT reached 48.0; RL stands 8.3 points above that "
        "(95 % interval of the difference −0.1 to 17.0, not clear of zero)."
    )


def test_a_run_without_evaluation_says_where_it_is(tmp_path):
    metrics = [{"stage": "rl", "step": 40, "num_steps": 300}]
    assert verdict(run_view(tmp_path, metrics=metrics)) == [
        "In progress: rl step 40 of 300. RL has not been evaluated yet."
    ]


def test_unscored_counts_add_up_over_rl_steps_and_absent_is_not_zero(tmp_path):
    metrics = [
        {"stage": "rl", "step": 1, "source/a/unscored": 2, "source/b/unscored": 0},
        {"stage": "rl", "step": 2, "source/a/unscored": 1},
        {"stage": "sft", "step": 1, "source/a/unscored": 9},
    ]
    rows = unscored_rows(run_view(tmp_path, metrics=metrics))
    assert [(row.task, row.source, row.training, row.is_sick) for row in rows] == [
        ("math", "b", 0, False),
        ("ocr", "a", 3, True),
    ]
    without = Evaluation(
        phases={
            "sft": PhaseScores(
                macro=Scores(by_measure={}), tasks={}, sources={"a": Scores(by_measure={})}
            )
        },
        differences={},
        seconds={},
        notes=[],
    )
    (row,) = unscored_rows(run_view(tmp_path, evaluation=without))
    assert (row.evaluated, row.training) == ([None], None)


def test_tasks_outside_the_macro_average_come_last_and_apart(tmp_path):
    found = evaluation((0.1, 0.05, 0.15))
    extra = phase(0.5, 0.4, 0.6, vqa=(0.1, 0, 0.2), ocr=(0.2, 0.1, 0.3), math=(0.3, 0.2, 0.4))
    found = Evaluation(phases={"sft": extra}, differences=found.differences, seconds={}, notes=[])
    (table,) = result_tables(run_view(tmp_path, evaluation=found))
    assert [(row.name, row.kind) for row in table.rows] == [
        ("Macro average", "macro"),
        ("math", "task"),
        ("ocr", "task"),
        ("vqa", "apart"),
    ]


def answer(score):
    return {
        "response": "",
        "score": score,
        "format": 1.0,
        "status": "ok",
        "reason": "",
        "num_tokens": 1,
    }


def held_out(index, before, after, source="a", task="ocr"):
    line = {"id": f"row{index}", "source": source, "task": task, "image_id": None}
    greedy = {"sft": answer(before), "rl": answer(after)}
    return HeldOutRow(line=line, greedy=greedy, samples={})


def test_the_gallery_mixes_right_and_wrong_and_is_the_same_in_any_order():
    rows = [held_out(i, 0.0, 1.0) for i in range(50)]
    rows += [held_out(50 + i, 1.0, 1.0) for i in range(50)]
    rows += [held_out(100 + i, 0.0, None) for i in range(3)] + [held_out(200, 1.0, 0.0)]
    chosen = choose_rows(rows, "sft", "rl", 12)
    kinds = Counter((is_correct(row.greedy["sft"]), is_correct(row.greedy["rl"])) for row in chosen)
    assert kinds == {(False, True): 4, (True, True): 4, (False, False): 3, (True, False): 1}
    assert choose_rows(rows[::-1], "sft", "rl", 12) == chosen


def test_sources_take_turns_and_none_shows_more_than_its_share():
    rows = [
        held_out(i, 0.0, 1.0, source=s, task=t)
        for i in range(9)
        for s, t in (("a", "ocr"), ("b", "math"))
    ]
    chosen = choose_rows(rows, "sft", "rl", 2)
    assert [row.line["source"] for row in chosen] == ["b", "a", "b", "a"]  # math comes before ocr


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        (("init", "sft", "rl", "control"), ("sft", "rl")),
        (("init", "sft"), ("init", "sft")),
        (("init",), ("init", "init")),
        (("init", "rl"), ("init", "rl")),
        (("init", "sft", "control"), ("sft", "control")),
        ((), None),
    ],
)
def test_the_gallery_compares_sft_with_rl_or_what_there_is(tmp_path, phases, expected):
    found = Evaluation(
        phases={name: phase(0.5, 0.4, 0.6) for name in phases}, differences={}, seconds={}, notes=[]
    )
    assert compared_phases(run_view(tmp_path, evaluation=found)) == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.26, "4.3 s"), (59.2, "59 s"), (341.25, "5 min 41 s"), (7260, "2 h 01 min")],
)
def test_durations_read_naturally(seconds, text):
    assert duration(seconds) == text


def test_minus_is_a_minus_sign():
    assert signed_percent(-0.004) == "−0.4"
    assert signed_percent(0.112) == "+11.2"
