"""What a server accepts as a request, and how it names what it does not."""

import json

import pytest
from serving import ROW

from verifiers import AveragedIou, FixedIou, ScoreContext, StagedIou
from verifiers.server_request import RefusedRequest, read_request
from verifiers.server_schema import PROBLEMS_SHOWN_MAX

GOOD = {"row": ROW, "response": "\\boxed{7}"}


def read(content, items_max=100):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return read_request(body, items_max=items_max)


def test_the_smallest_request_is_one_row_and_one_response():
    batch = read({"items": [GOOD]})
    ((sample, response),) = batch.items
    assert (sample.source, sample.task, sample.reward.verifier) == ("made", "math", "mathverify")
    assert (sample.reward.ground_truth, response) == ("\\boxed{7}", "\\boxed{7}")
    assert (sample.reward.accuracy_ratio, sample.reward.format_ratio) == (1.0, 0.0)
    assert batch.context == ScoreContext()
    assert batch.request_id is None


@pytest.mark.parametrize(
    ("rule", "meant"),
    [
        ({"type": "fixed", "threshold": 0.5}, FixedIou(0.5)),
        ({"type": "staged", "stages": [[0.1, 0.85], [1, 0.9]]}, StagedIou(((0.1, 0.85), (1, 0.9)))),
        ({"type": "averaged", "values": [0.5, 0.75]}, AveragedIou((0.5, 0.75))),
        (None, StagedIou()),
    ],
)
def test_progress_and_rule_reach_the_context(rule, meant):
    batch = read({"items": [GOOD], "progress": 0.25, "iou_rule": rule})
    assert batch.context == ScoreContext(progress=0.25, iou_rule=meant)


BAD_ROW = {**ROW, "reward_model": {"verifier": "text", "ground_truth": 7}}
DEEP = json.loads("[" * 300 + "]" * 300)


@pytest.mark.parametrize(
    ("item", "field", "value", "allowed"),
    [
        ({"row": ROW}, "response", "missing", "a value"),
        ({"row": ROW, "response": None}, "response", "None", "a valid string"),
        ({"row": ROW, "response": 7}, "response", "7", "a valid string"),
        ({"response": "x"}, "row", "missing", "a row as an object"),
        ({"row": "x", "response": ""}, "row", "'x'", "a row as an object, or its index in rows"),
        ({"row": True, "response": ""}, "row", "True", "a row as an object, or its index in rows"),
        ({"row": 0.0, "response": ""}, "row", "0.0", "a row as an object, or its index in rows"),
        ({"row": -1, "response": ""}, "row", "-1", "a row as an object, or its index in rows"),
        ({"row": 1, "response": ""}, "row", "1", "the index of one of 1 rows, from 0"),
        ({**GOOD, "extra": 1}, "extra", "1", "no field of this name"),
        ("text", "", "'text'", "an object"),
        ({"row": {}, "response": ""}, "row.data_source", "None", "a text that is not empty"),
        ({"row": BAD_ROW, "response": ""}, "row.reward_model.ground_truth", "7", "a text"),
        ({"row": {**ROW, "images": [{}]}, "response": ""}, "row.images", "pictures", "none"),
        ({"row": {**ROW, "extra_info": {"a": DEEP}}, "response": ""}, "row", "nested", "254"),
    ],
)
def test_a_malformed_item_is_named_with_what_would_be_right(item, field, value, allowed):
    with pytest.raises(RefusedRequest) as caught:
        read({"items": [GOOD, item, GOOD], "rows": [ROW]})
    assert caught.value.code == 422
    refusal = caught.value.refusal
    (problem,) = refusal.problems
    assert (problem.item, problem.field) == (1, field)
    assert problem.value.startswith(value)
    assert allowed in problem.allowed
    assert refusal.num_problems == 1
    place = f"items[1].{field}" if field else "items[1]"
    assert refusal.error.startswith(f"{place} is {problem.value}; allowed: ")


@pytest.mark.parametrize(
    ("change", "field", "allowed"),
    [
        ({"items": []}, "items", "a length of at least 1"),
        ({"items": "x"}, "items", "a valid list"),
        ({"progress": 1.5}, "progress", "less than or equal to 1"),
        ({"progress": "0.5"}, "progress", "a valid number"),
        ({"progress": True}, "progress", "a valid number"),
        ({"request_id": ""}, "request_id", "a length of at least 1"),
        ({"request_id": 7}, "request_id", "a valid string"),
        ({"rows": [{}]}, "rows[0].data_source", "a text that is not empty"),
        ({"rows": [3]}, "rows.0", "an object"),
        ({"iou_rule": "dynamic"}, "iou_rule", "object"),
        ({"iou_rule": {"type": "dynamic"}}, "iou_rule", "'fixed', 'staged', 'averaged'"),
        ({"iou_rule": {"type": "fixed"}}, "iou_rule.fixed.threshold", "a value"),
        ({"iou_rule": {"type": "fixed", "threshold": 0}}, "iou_rule", "above 0, up to 1"),
        ({"iou_rule": {"type": "staged", "stages": [[0.1, 0.5]]}}, "iou_rule", "end at 1.0"),
        ({"iou_rule": {"type": "staged", "stages": [[1]]}}, "iou_rule.staged.stages.0", "least 2"),
        ({"iou_rule": {"type": "averaged", "values": []}}, "iou_rule", "at least one"),
        ({"steps": 3}, "steps", "no field of this name"),
    ],
)
def test_a_malformed_field_is_named_with_what_would_be_right(change, field, allowed):
    with pytest.raises(RefusedRequest) as caught:
        read({"items": [GOOD]} | change)
    assert caught.value.code == 422
    (problem,) = caught.value.refusal.problems
    assert (problem.item, problem.field) == (None, field)
    assert allowed in problem.allowed


def test_every_bad_item_is_counted_and_the_first_hundred_are_listed():
    items = [GOOD if index % 2 else {"row": ROW, "response": index} for index in range(300)]
    with pytest.raises(RefusedRequest, match=r"\(and 149 more\)") as caught:
        read({"items": items}, items_max=300)
    assert caught.value.refusal.num_problems == 150
    assert [one.item for one in caught.value.refusal.problems] == list(
        range(0, 2 * PROBLEMS_SHOWN_MAX, 2)
    )


def test_too_many_items_are_refused_without_a_look_at_them():
    with pytest.raises(RefusedRequest, match="101 items in one request; allowed: up to 100") as bad:
        read({"items": [None] * 101})
    assert bad.value.code == 413


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"items": [NaN]}', b"[" * 5000, b"\x00"])
def test_a_body_that_is_no_json_is_called_that(body):
    with pytest.raises(RefusedRequest, match="no JSON") as caught:
        read(body)
    assert caught.value.code == 400


@pytest.mark.parametrize("body", [[], None, 7, "x", [[GOOD]]])
def test_json_that_is_no_object_is_refused(body):
    with pytest.raises(RefusedRequest, match=r"the body is .*; allowed: an object") as caught:
        read(body)
    assert caught.value.code == 422


@pytest.mark.parametrize("depth", [300, 600, 5000])
def test_parameters_nested_without_end_are_refused(depth):
    deep = '{"a":' * depth + "1" + "}" * depth
    row = {**ROW, "reward_model": {**ROW["reward_model"], "verifier_parm": deep}}
    with pytest.raises(RefusedRequest) as caught:
        read({"items": [{"row": row, "response": "x"}]})
    assert caught.value.code == 422


def test_a_huge_number_in_the_parameters_is_the_verifiers_business():
    row = {
        **ROW,
        "reward_model": {**ROW["reward_model"], "verifier_parm": '{"a": 1' + "0" * 99 + "}"},
    }
    ((sample, _),) = read({"items": [{"row": row, "response": "x"}]}).items
    assert sample.reward.params == {"a": 10**99}
