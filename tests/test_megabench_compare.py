"""Intervals and paired comparisons: coverage, exact means, what is paired with what."""

import random

import pytest

from verifiers.megabench.compare import TaskScores, compare, groups_of, intervals, scores_by_task

META = {
    name: {
        "app": "Coding" if name in "ab" else "Science",
        "skills": ["Reading", "Logic"],
        "input_format": "",
        "output_format": "exact_text",
        "num_input": "1-image",
    }
    for name in "abcd"
}


def scores(values, eval_type="rule"):
    return TaskScores(eval_type, dict(enumerate(values)))


def test_groups_are_the_sets_and_every_keyword_that_has_a_task():
    tasks = {"a": scores([1]), "c": scores([0], "llm"), "unknown": scores([1])}
    assert groups_of(tasks, META) == {
        "core": ["a", "unknown"],
        "open": ["c"],
        "overall": ["a", "c", "unknown"],
        "app/Coding": ["a"],
        "app/Science": ["c"],
        "skills/Reading": ["a", "c"],
        "skills/Logic": ["a", "c"],
        "output_format/exact_text": ["a", "c"],
        "input_num/1-image": ["a", "c"],
    }
    assert "overall" not in groups_of({"a": scores([1])}, META)


def test_a_mean_is_over_tasks_of_their_means():
    tasks = {"a": scores([1.0, 0.0, 0.0, 1.0]), "b": scores([1.0])}
    found = intervals(tasks, {"core": ["a", "b"], "b": ["b"]})
    assert found["core"].mean == 0.75
    assert (found["core"].num_tasks, found["core"].num_queries) == (2, 5)
    assert found["core"].low < 0.75 < found["core"].high
    assert found["b"] == (1.0, 1.0, 1.0, 1, 1)  # one query says nothing of its spread


def test_the_interval_has_the_width_of_the_usual_estimate():
    # 80 tasks of 3 queries, one of them right: unbiased variance 1/3 of a query, 1/9 of a mean
    tasks = {f"t{n}": scores([1.0, 0.0, 0.0]) for n in range(80)}
    found = intervals(tasks, {"core": list(tasks)})["core"]
    expected = 2 * 1.96 * (1 / 9 / 80) ** 0.5
    assert found.high - found.low == pytest.approx(expected, rel=0.06)


def test_intervals_hold_the_true_mean_about_95_times_in_100():
    draw, held = random.Random(5), 0
    for trial in range(200):
        chances = [0.3, 0.8, 0.5]
        tasks = {
            f"{trial}/{n}": scores([float(draw.random() < chance) for _ in range(14)])
            for n, chance in enumerate(chances)
        }
        found = intervals(tasks, {"core": list(tasks)}, num_resamples=400)["core"]
        held += found.low <= sum(chances) / 3 <= found.high
    assert 180 <= held <= 198  # 190 expected, of a normal approximation at 14 queries a task


def test_a_resample_depends_on_the_task_and_not_on_its_neighbours():
    tasks = {"a": scores([1, 0, 1]), "b": scores([0, 0, 1])}
    both = intervals(tasks, {"a": ["a"], "b": ["b"]})
    alone = intervals({"b": tasks["b"]}, {"b": ["b"]})
    assert both["b"] == alone["b"]
    assert intervals(tasks, {"a": ["a"]}, seed=1)["a"].mean == both["a"].mean


def test_a_paired_difference_counts_queries_and_is_narrower():
    draw = random.Random(1)
    base = [float(draw.random() < 0.5) for _ in range(60)]
    better = [max(old, float(draw.random() < 0.3)) for old in base]
    found = compare({"a": scores(base)}, {"a": scores(better)}, META)
    core = found.differences["core"]
    assert core.interval.mean == pytest.approx((sum(better) - sum(base)) / 60)
    assert core.num_better == sum(new > old for new, old in zip(better, base, strict=True))
    assert core.num_worse == 0
    assert core.is_clear
    one = intervals({"a": scores(base)}, {"a": ["a"]})["a"]
    assert core.interval.high - core.interval.low < one.high - one.low


def test_a_model_does_not_differ_from_itself():
    tasks = {"a": scores([1, 0, 1])}
    difference = compare(tasks, tasks, META).differences["core"]
    assert difference.interval == (0.0, 0.0, 0.0, 1, 3)
    assert not difference.is_clear


def test_queries_are_paired_by_their_index():
    first = {"a": TaskScores("rule", {0: 1.0, 1: 0.0})}
    second = {"a": TaskScores("rule", {1: 0.0, 0: 1.0})}
    assert compare(first, second, META).differences["core"].num_better == 0


def test_tasks_that_cannot_be_paired_are_named():
    first = {"a": scores([1]), "b": scores([1]), "c": scores([1, 1])}
    second = {"a": scores([1]), "c": scores([1]), "d": scores([1])}
    found = compare(first, second, META)
    assert list(found.tasks) == ["a"]
    assert found.left_out == {
        "b": "not scored in the second",
        "c": "other queries",
        "d": "not scored in the first",
    }


def test_only_tasks_with_all_queries_scored_are_compared():
    def record(name, values):
        queries = [
            {"query_idx": n, "scores": {"field": {"a": v}, "info": {}, "query": v}}
            if v is not None
            else {"query_idx": n}
            for n, v in enumerate(values)
        ]
        return {"task_name": name, "eval_type": "rule", "query_response": queries}

    found = scores_by_task([record("a", [1.0, -1]), record("b", [1.0, None]), record("c", [])])
    assert found == {"a": TaskScores("rule", {0: 1.0, 1: 0.0})}  # -1 counts as 0
    assert found["a"].mean == 0.5
