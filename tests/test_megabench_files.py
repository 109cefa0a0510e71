"""Official files: read, written back the same, merged; and an unscored query in them."""

import json

import pytest

from verifiers.megabench.files import (
    ResultFileError,
    evaluator_summary,
    finish_task,
    merge_results,
    query_score,
    read_responses,
    read_results,
    task_results,
    write_analysis,
    write_responses,
    write_scored,
)


def query(index, score=None, **scores):
    record = {
        "response": f"Answer: {index}",
        "correct_answer": {"a": "1"},
        "global_idx": str(index),
        "query_idx": index,
        "images": [],
        "query_text": "?",
    }
    if score is not None:
        record["scores"] = {"field": {"a": score}, "info": {}, "query": score} | scores
    return record


def task(name, scores, example="Example 1:"):
    return {
        "task_name": name,
        "global_description": "Say it.",
        "global_images": [],
        "example_info": {"image_paths": [], "example_text": example},
        "query_response": [query(index, score) for index, score in enumerate(scores)],
    }


def scored(name, scores, eval_type="rule", example="Example 1:"):
    record = task(name, scores, example)
    finish_task(record, eval_type)
    return record


def test_a_response_file_reads_back_the_same_and_carries_no_scores(tmp_path):
    path = tmp_path / "all_query_responses.json"
    write_responses(path, [scored("waldo", [1.0, 0.5])])
    (read,) = read_responses(path)
    assert read == task("waldo", [None, None])
    assert path.read_text().startswith('[\n    {\n        "task_name": "waldo"')  # as upstream


def test_half_a_surrogate_pair_in_a_response_survives(tmp_path):
    record = task("waldo", [None])
    record["query_response"][0]["response"] = "\ud83d Привет"
    write_responses(tmp_path / "r.json", [record])
    assert read_responses(tmp_path / "r.json") == [record]


def test_task_scores_are_sum_and_mean_with_minus_one_as_zero():
    record = scored("waldo", [1.0, -1, 0.5])
    assert (record["task_score"], record["mean_task_score"]) == (1.5, 0.5)


def test_an_unscored_query_takes_its_task_out_of_the_results():
    record = task("waldo", [1.0, None])
    record["query_response"][1]["scores"] = {
        "field": {},
        "info": {},
        "query": -1,
        "unscored": {"reasons": {"a": "no judge"}, "field": {}},
    }
    finish_task(record, "llm")
    assert record["mean_task_score"] == -1  # which upstream's tools leave out
    assert task_results([record]) == []


def test_what_upstream_takes_for_not_evaluated_is_unscored_and_not_applicable_is_not():
    assert query_score(query(0)) is None
    assert query_score(query(0, -1, field={})) is None
    assert query_score(query(0, -1)) == -1
    assert query_score(query(0, 0.0)) == 0.0


def test_the_evaluators_summary_has_macro_and_micro_means():
    tasks = [scored("a", [1.0, 0.0]), scored("b", [1.0], example=""), scored("c", [0.5], "llm")]
    summary = evaluator_summary(tasks)
    assert summary["macro_mean_score"] == {"rule": 0.75, "llm": 0.5}
    assert summary["micro_mean_score"] == {"rule": 2 / 3, "llm": 0.5}
    assert summary["num_samples_all"] == {"rule": 4, "llm": 2}  # b shows no example
    assert summary["overall_macro_mean_score"] == 2 / 3
    assert summary["overall_micro_mean_score"] == 0.625


def test_a_judged_record_wins_over_a_rule_one_and_else_the_first():
    rule, judged = task_results([scored("a", [0.0])]), task_results([scored("a", [1.0], "llm")])
    assert merge_results([rule, judged]) == judged
    assert merge_results([judged, rule]) == judged
    assert merge_results([rule, task_results([scored("a", [1.0])])]) == rule


def test_results_are_read_from_a_folder_a_scored_file_and_a_list_of_results(tmp_path):
    write_scored(tmp_path / "data_with_scores.json", [scored("waldo", [1.0])])
    write_scored(tmp_path / "data_with_scores_open.json", [scored("ascii_art_30", [0.5], "llm")])
    results = read_results(tmp_path)
    assert [(r["name"], r["score"]) for r in results] == [("waldo", 1.0), ("ascii_art_30", 0.5)]
    assert read_results(tmp_path / "data_with_scores.json") == results[:1]
    write_analysis(tmp_path / "analysis", results, {"model_summary": {}, "keyword_stats": {}})
    assert read_results(tmp_path / "analysis" / "task_results.json") == results


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("{}", "found a dict with nothing; allowed: a list of tasks"),
        ('[{"name": "x"}]', "task 0: found a dict with name; needed: task_name, query_response"),
        (
            json.dumps([{"task_name": "x", "query_response": [{"response": "B"}]}]),
            "task 'x' query 0: found a dict with response; needed: response, correct_answer",
        ),
    ],
)
def test_another_file_is_refused_with_the_place(tmp_path, content, message):
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(ResultFileError, match=message):
        read_responses(path)
