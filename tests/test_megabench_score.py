"""Whole replies scored: official pipeline scores, call forms, and what stays unscored."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from data_specs.megabench import MegaQuery, MegaTask
from verifiers.megabench import Scored, Unscored, registry, score_response

CASES = Path(__file__).parent / "cases" / "megabench" / "pipeline_cases.jsonl"
ROWS = [json.loads(line) for line in CASES.read_text().splitlines()]


def info(parser="json", aux=None, **metrics):
    return {
        "response_parse_function": parser,
        "field_score_function": metrics,
        "aggregation": {
            "function": "mean", "field_weights": dict.fromkeys([*metrics, *(aux or {})], 1)
        },
        "global_aux_metrics": aux or {},
    }  # fmt: skip


def test_pipelines_give_the_official_scores():
    for row in ROWS:
        query = {"correct_answer": row["reference"]}
        found = score_response({"metric_info": row["metric_info"]}, query, row["response"])
        assert not found.unscored, row
        assert found.score == pytest.approx(row["score"], abs=1e-9), row
        assert dict(found.fields) == pytest.approx(row["fields"], abs=1e-9), row


def test_records_of_the_dataset_and_plain_mappings_score_alike():
    task = MegaTask(name="t", metric_info=info("answer_string", a="exact_str_match"))
    query = MegaQuery(id="1", index=0, text="?", answer={"a": "B"})
    record = score_response(task, query, "Answer: B")
    assert record == score_response(task.metric_info, {"correct_answer": {"a": "B"}}, "Answer: B")
    assert (record.score, dict(record.fields), record.parsed) == (1, {"a": 1}, {"a": "B"})


def test_a_missing_field_is_null_and_a_field_without_metric_does_not_count():
    task = info(a="exact_str_match", b="exact_str_match")
    record = score_response(task, {"correct_answer": {"a": "1", "b": "2", "c": "3"}}, '{"a": "1"}')
    assert (record.score, dict(record.fields)) == (0.5, {"a": 1, "b": 0})


def test_references_lose_their_quotes_and_no_reply_is_an_empty_one():
    task = info("answer_string", a="exact_str_match")
    assert score_response(task, {"correct_answer": {"a": "'B'"}}, "Answer: B").score == 1
    assert score_response(task, {"correct_answer": {"a": "B"}}, None).score == 0


def test_a_field_that_is_not_applicable_leaves_the_mean():
    task = info(a="positive_int_match", b="positive_int_match")
    answer = {"correct_answer": {"a": "0", "b": "3"}}
    record = score_response(task, answer, "{'a': '0', 'b': '3'}")
    assert (record.score, dict(record.fields)) == (1, {"a": -1, "b": 1})
    assert score_response(task, {"correct_answer": {"a": "0"}}, "{'a': '0'}").score == -1


def test_an_unknown_metric_leaves_the_query_unscored():
    task = info("answer_string", a="exact_mach")
    record = score_response(task, {"correct_answer": {"a": "B"}}, "Answer: B")
    assert record.score is None
    assert record.fields["a"] is None
    assert "exact_mach" in record.unscored["a"]


def test_call_forms_hand_over_what_upstream_hands_over(monkeypatch):
    calls = []

    def spy(first, second, **rest):
        calls.append((first, second, rest))
        return Scored(0.5, "remark")

    monkeypatch.setattr("verifiers.megabench.score.find_metric", lambda name: spy)
    query = {
        "correct_answer": {"a": "1"}, "eval_context": {"k": 1}, "query_text": "Q", "images": ["i"]
    }  # fmt: skip
    judge = registry.JudgeMessage
    for name in ("symbolic_planning_test", "constrained_generation", "gpt_4o_as_judge"):
        record = score_response(info(a=name), query, "{'a': 'x'}", judge, "sound")
        assert (record.score, dict(record.info)) == (0.5, {"a": "remark"})
    aux = {"near": "geo_proximity_location_dict"}
    score_response(info(aux=aux), query, "{'a': 'x'}")
    (plan, context, _), (reply, constraints, rest), (judged, asked, _), (whole, answer, _) = calls
    assert (plan, context, reply, constraints) == ("x", {"k": 1}, {"a": "x"}, {"k": 1})
    assert rest == {"mode": "sound"}
    assert (judged.prediction, judged.response, judged.references) == ("x", "{'a': 'x'}", answer)
    assert (judged.query_text, judged.images, judged.eval_context) == ("Q", ("i",), {"k": 1})
    assert asked is judge
    assert (whole, answer) == ({"a": "x"}, {"a": "1"})


def test_a_fault_of_ours_is_no_score(monkeypatch):
    def without_judge(*_, **__):
        raise Unscored("no judge")

    monkeypatch.setattr("verifiers.megabench.score.find_metric", lambda name: without_judge)
    task = info(a="gpt_4o_as_judge", b="gpt_4o_as_judge")
    record = score_response(task, {"correct_answer": {"a": "1", "b": "2"}}, "{'a': 'x'}")
    assert record.score is None
    assert record.unscored == {"a": "no judge", "b": "no judge"}


def test_importing_the_verifiers_loads_nothing_of_megabench_and_megabench_nothing_heavy():
    code = (
        "import sys, verifiers; assert 'verifiers.megabench' not in sys.modules\n"
        "import verifiers.megabench\n"
        "heavy = {'sympy', 'nltk', 'rapidfuzz', 'jieba', 'torch', 'unidecode', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout.replace("'", '"'))) <= {"numpy", "rapidfuzz"}
