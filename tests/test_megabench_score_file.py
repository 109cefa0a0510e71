"""A response file scored: official layout, what is unscored and why, gold answers."""

import json

import pytest
from megabench_rows import METRIC_INFO, row

from data_specs.megabench import group_rows
from verifiers.megabench.files import ResultFileError, task_results
from verifiers.megabench.gold import check_gold, gold_response
from verifiers.megabench.registry import Unscored
from verifiers.megabench.score_file import (
    ScoreOptions,
    missing_queries,
    score_responses,
    unscored_reasons,
)

JUDGED = {
    "field_score_function": {"answer": "gpt_4o_as_judge"},
    "aggregation": {"function": "mean", "field_weights": {"answer": 1}},
    "response_parse_function": "answer_string",
    "gpt4o_eval_configs": {
        "judge_model_type": "text only",
        "eval_criteria_prompt": "Is {x} good?",
        "reference_type": "",
        "template_mapping": {"x": "model_output"},
    },
}
HERE = ScoreOptions(workers=0)


def tasks_of(*rows):
    return group_rows((f"made row {number}", item) for number, item in enumerate(rows))


def records_of(tasks, responses):
    rest = iter(responses)
    return [
        {
            "task_name": task.name,
            "global_description": task.description,
            "global_images": [],
            "example_info": {"image_paths": [], "example_text": ""},
            "query_response": [
                {
                    "response": next(rest),
                    "correct_answer": dict(query.answer),
                    "global_idx": query.id,
                    "query_idx": query.index,
                    "images": [],
                    "query_text": query.text,
                }
                for query in task.queries
            ],
        }
        for task in tasks
    ]


def test_scores_stand_where_the_official_file_has_them():
    tasks = tasks_of(row(0), row(1), row(2, task_name="worldle"))
    records = records_of(tasks, ["Answer: B", "Answer: C", "Answer: B"])
    score_responses(tasks, records, options=HERE)
    assert [query["scores"] for query in records[0]["query_response"]] == [
        {"field": {"answer": 1}, "info": {}, "query": 1.0},
        {"field": {"answer": 0}, "info": {}, "query": 0.0},
    ]
    assert (records[0]["task_score"], records[0]["mean_task_score"]) == (1.0, 0.5)
    assert records[0]["eval_type"] == "rule"
    json.dumps(records)


def test_workers_score_as_this_process_does():
    tasks = tasks_of(*(row(n, answer={"answer": str(n)}) for n in range(20)))
    responses = [f"Answer: {n if n % 3 else 'no'}" for n in range(20)]
    alone, crew = records_of(tasks, responses), records_of(tasks, responses)
    seen = []
    score_responses(tasks, alone, options=HERE)
    score_responses(tasks, crew, options=ScoreOptions(workers=2), on_query=seen.append)
    assert crew == alone
    assert seen == list(range(1, 21))


def test_the_reference_of_the_response_file_counts_and_not_the_datasets():
    tasks = tasks_of(row(0))
    records = records_of(tasks, ["Answer: C"])
    records[0]["query_response"][0]["correct_answer"] = {"answer": "C"}
    score_responses(tasks, records, options=HERE)
    assert records[0]["mean_task_score"] == 1.0


def test_without_a_judge_an_open_task_is_unscored_and_in_no_result():
    tasks = tasks_of(row(0), row(1, task_name="poem", metric_info=JUDGED))
    records = records_of(tasks, ["Answer: B", "Answer: B"])
    score_responses(tasks, records, options=HERE)
    assert [result["name"] for result in task_results(records)] == ["waldo"]
    scores = records[1]["query_response"][0]["scores"]
    assert (scores["query"], scores["field"]) == (-1, {})
    assert list(scores["unscored"]["reasons"]) == ["answer"]
    assert list(unscored_reasons(records)) == ["poem"]


def test_a_judge_scores_open_tasks_and_its_failure_leaves_them_unscored():
    tasks = tasks_of(row(0, metric_info=JUDGED), row(1, metric_info=JUDGED))
    records = records_of(tasks, ["Answer: B", "Answer: C"])
    score_responses(tasks, records, judge=lambda message: "**Score**: 7", options=HERE)
    assert records[0]["mean_task_score"] == pytest.approx(0.7)
    assert records[0]["eval_type"] == "llm"

    def down(message):
        raise Unscored("the judge does not answer")

    again = records_of(tasks, ["Answer: B", "Answer: C"])
    score_responses(tasks, again, judge=down, options=HERE)
    assert again[0]["mean_task_score"] == -1
    assert unscored_reasons(again) == {"waldo": {"the judge does not answer": 2}}


def test_responses_that_the_dataset_does_not_have_are_refused():
    tasks = tasks_of(row(0))
    with pytest.raises(ResultFileError, match="task 'worldle' of the responses is not in the"):
        score_responses(tasks, records_of(tasks_of(row(0, task_name="worldle")), ["B"]))
    records = records_of(tasks_of(row(0), row(1)), ["B", "B"])
    with pytest.raises(ResultFileError, match="the responses have query 1, the dataset 1 queries"):
        score_responses(tasks, records)


def test_queries_without_a_response_are_counted():
    tasks = tasks_of(row(0), row(1), row(2))
    records = records_of(tasks, ["B"] * 3)
    del records[0]["query_response"][1:]
    assert missing_queries(tasks, records) == {"waldo": 2}
    score_responses(tasks, records, options=HERE)
    assert records[0]["mean_task_score"] == 1.0  # over those that are there, as upstream's is


def fields(metrics, parser, answer, **columns):
    info = METRIC_INFO | {
        "field_score_function": metrics,
        "aggregation": {"function": "mean", "field_weights": dict.fromkeys(metrics, 1)},
        "response_parse_function": parser,
    }
    return row(0, metric_info=info, answer=answer, **columns)


def test_gold_answers_score_one_and_what_does_not_is_listed():
    good = [
        fields({"a": "exact_str_match", "b": "set_equality"}, "json", {"a": "x", "b": "[1, 2]"}),
        fields({"a": "multi_ref_phrase"}, "answer_string", {"a": "cat, dog"}, task_name="p"),
        fields({"a": "exact_str_match"}, "answer_string", {"a": ""}, task_name="empty"),
        fields({"a": "program_judge"}, "answer_string", {"a": "x"}, task_name="program")
        | {"eval_context": repr({"test_case": {"input": [], "expected": "1"}})},
        row(0, task_name="open", metric_info=JUDGED),
    ]
    bad = fields({"a": "nbbox_iou_tuple"}, "answer_string", {"a": "no box"}, task_name="bad")
    (found,) = check_gold(tasks_of(*good, bad))
    assert (found.task, found.query_idx, found.fields) == ("bad", 0, {"a": 0.0})


def test_a_gold_response_takes_the_first_of_several_phrases_and_all_fields():
    (task,) = tasks_of(fields({"a": "multi_ref_phrase"}, "answer_string", {"a": "[cat, dog]"}))
    assert gold_response(task, task.queries[0]).endswith("Answer: cat")
    (task,) = tasks_of(fields({"a": "exact_str_match"}, "json", {"a": "x", "b": "y"}))
    assert gold_response(task, task.queries[0]).endswith("Answer: {'a': 'x', 'b': 'y'}")
