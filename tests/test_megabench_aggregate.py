"""Field scores to summaries: the official figures to the last bit, and what unscored does."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers.megabench.aggregate import (
    aggregate,
    aggregate_fields,
    application_tree,
    compensated_sum,
    eval_type_of,
    mean_of_task,
    official_dimensions,
    single_image,
    with_dimensions,
)

CASES = Path(__file__).parent / "cases" / "megabench"
FIELDS = [json.loads(line) for line in (CASES / "aggregation_cases.jsonl").read_text().splitlines()]


def result(name, score, eval_type="rule", num_query=10):
    return {
        "name": name, "score": score, "eval_type": eval_type, "num_demo": 1, "num_query": num_query
    }  # fmt: skip


@pytest.mark.parametrize("case", FIELDS, ids=lambda case: case["id"])
def test_fields_become_the_official_query_score(case):
    scores = {name: math.nan if s is None else s for name, s in case["response"].items()}
    found = aggregate_fields(case["metric"], scores, case["extra"]["field_weights"])
    assert found == case["official_score"]


@pytest.mark.parametrize("name", ["qwen2_vl_7b", "gemini_2_0_1206_single_image"])
def test_task_results_become_the_official_summary_bit_for_bit(name):
    case = json.loads((CASES / f"summary_{name}.json").read_text())
    found = aggregate(case["task_results"])
    assert json.dumps(found) == json.dumps(case["expected"])  # the order of keywords as well


def test_the_single_image_part_of_a_full_run_has_the_published_counts():
    case = json.loads((CASES / "summary_qwen2_vl_7b.json").read_text())
    summary = aggregate(single_image(case["task_results"]))["model_summary"]
    assert summary["core"]["num_eval_tasks"] == 273
    assert summary["open"]["num_eval_tasks"] == 42
    assert summary["open"]["num_eval_samples"] == 808


def test_dimensions_count_what_the_paper_counts():
    dimensions = official_dimensions().values()
    assert len(dimensions) == 505
    assert sum(entry["app"] == "Perception" for entry in dimensions) == 145
    assert sum("Planning and Decision Making" in entry["skills"] for entry in dimensions) == 37


def test_a_weighted_mean_leaves_out_what_does_not_apply():
    # (1 * 0.5 + 5 * 1) / (1 + 5); the -1 and its weight of 2 are gone
    assert (
        aggregate_fields("mean", {"a": 0.5, "b": -1, "c": 1}, {"a": 1, "b": 2, "c": 5}) == 5.5 / 6
    )
    assert aggregate_fields("min", {"a": 0.5, "b": -1}, {}) == 0.5
    assert aggregate_fields("mean", {"a": -1, "b": math.nan}, {"a": 1, "b": 1}) == -1


def test_where_upstream_stops_nothing_counts():
    assert aggregate_fields("mean", {"a": 1.0}, {}) == -1
    assert aggregate_fields("mean", {"a": 1.0}, {"a": 0}) == -1
    assert aggregate_fields("mean", {"a": 1.0, "b": 0.0}, {"b": 2}) == 0.0


def test_an_unscored_field_makes_the_query_unscored_if_it_counts():
    assert aggregate_fields("mean", {"a": 1.0, "b": None}, {"a": 1, "b": 1}) is None
    assert aggregate_fields("mean", {"a": 1.0, "b": None}, {"a": 1, "b": 0}) == 1.0
    assert aggregate_fields("min", {"a": 0.0, "b": None}, {}) is None


def test_an_unscored_query_makes_the_task_unscored_and_minus_one_counts_as_zero():
    assert mean_of_task([1.0, -1, 0.5]) == 0.5
    assert mean_of_task([1.0, None]) is None
    assert mean_of_task([]) == 0.0


def test_overall_is_weighted_by_tasks_and_none_without_one_of_the_sets():
    tasks = [result("waldo", 1.0), result("worldle", 0.5), result("ascii_art_30", 0.0, "llm")]
    summary = aggregate(tasks)["model_summary"]
    assert summary["core"]["macro_mean_score"] == 0.75
    assert summary["overall_score"] == 0.5
    assert aggregate(tasks[:2])["model_summary"]["overall_score"] is None
    assert aggregate([])["model_summary"] == {"core": None, "open": None, "overall_score": None}


def test_tasks_without_dimensions_are_left_out():
    assert aggregate([result("no such task", 1.0)])["model_summary"]["core"] is None


def test_the_application_tree_has_a_mean_at_every_node():
    meta = {
        "a": {"taxonomy_tree_path": "Coding;Debugging"},
        "b": {"taxonomy_tree_path": "Coding;Generation"},
        "c": {"taxonomy_tree_path": "Science"},
    }
    results = [result("a", 1.0), result("b", 0.5), result("c", 0.25)]
    tree = application_tree(with_dimensions(results, meta).values())
    assert [(branch["path"], branch["count"], branch["average_score"]) for branch in tree] == [
        (("Coding",), 2, 0.75),
        (("Coding", "Debugging"), 1, 1.0),
        (("Coding", "Generation"), 1, 0.5),
        (("Science",), 1, 0.25),
    ]


def test_one_judged_field_makes_a_task_open():
    assert eval_type_of(["exact_str_match", "gpt_4o_as_judge"]) == "llm"
    assert eval_type_of(["exact_str_match"]) == "rule"


@settings(derandomize=True)
@given(st.lists(st.floats(-1e6, 1e6)))
def test_the_compensated_sum_is_that_of_exact_arithmetic_to_an_ulp(values):
    exact = math.fsum(values)
    assert compensated_sum(values) == pytest.approx(exact, rel=1e-15, abs=1e-9)
    assert compensated_sum([1.0, 1e100, 1.0, -1e100]) == 2.0  # as Python 3.12's sum, not 0.0


@settings(derandomize=True)
@given(
    st.dictionaries(
        st.sampled_from("abcdefghijkl"), st.one_of(st.just(-1), st.floats(0, 1)), max_size=12
    )
)
def test_a_query_score_lies_between_its_fields(scores):
    weights = {name: 1 + ord(name) % 3 for name in "abcdefghijkl"}
    found = aggregate_fields("mean", scores, weights)
    kept = [score for score in scores.values() if score >= 0]
    if not kept:
        assert found == -1
    else:
        assert min(kept) - 1e-12 <= found <= max(kept) + 1e-12
