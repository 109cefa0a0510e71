"""What servers and clients say to each other survives the way, and nothing else is believed."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verifiers_cases import BOX, make

from data_specs import DataSpecError, RewardSpec
from verifiers import (
    AveragedIou,
    FixedIou,
    ScoreContext,
    StagedIou,
    Verdict,
    score,
)
from verifiers.server_request import read_request
from verifiers.wire import (
    WireError,
    checked,
    decode_answer,
    encode_answer,
    encode_request,
    encode_row,
)

RULES = [FixedIou(0.5), StagedIou(), StagedIou(((0.3, 0.5), (1.0, 0.9))), AveragedIou((0.5, 1.0))]
SAMPLE = replace(
    make("detection", BOX, det_reward_ratio={"map": 1.0}),
    extra={"coordinate_space": "per_mille", "image_width": 640, "objects": ["a", "b"]},
)
GOOD = Verdict(
    score=0.5, format=1.0, reward=0.75, reason="half", parts={"map": 0.5}, verifier="x", version="1"
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    responses=st.lists(st.text(), min_size=1, max_size=6),
    progress=st.floats(0, 1),
    rule=st.sampled_from(RULES),
)
def test_a_request_is_read_as_it_was_meant(responses, progress, rule):
    samples = [SAMPLE, make("text", "\\boxed{été\u2028\x00}")]
    context = ScoreContext(progress=progress, iou_rule=rule)
    pairs = [(index % 2, response) for index, response in enumerate(responses)]
    body = encode_request([encode_row(sample) for sample in samples], pairs, context, "one")
    batch = read_request(body, items_max=6)
    assert batch.context == context
    assert batch.request_id == "one"
    for (sample, response), (row, sent) in zip(batch.items, pairs, strict=True):
        assert replace(sample, where="") == samples[row]
        assert response == sent


def test_half_a_surrogate_pair_becomes_one_replacement_character():
    body = encode_request([encode_row(SAMPLE)], [(0, "a\ud800b"), (0, "c")], ScoreContext(), "i")
    assert [text for _, text in read_request(body, items_max=2).items] == ["a\ufffdb", "c"]


def test_a_row_of_many_rollouts_travels_once():
    body = encode_request(
        [encode_row(make("text", "NEEDLE"))], [(0, "x")] * 8, ScoreContext(), "one"
    )
    assert body.count(b"NEEDLE") == 1
    assert len(read_request(body, items_max=8).items) == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"accuracy_ratio": float("nan")}, "accuracy_ratio is nan"),
        ({"accuracy_ratio": 0.0}, "a sum above 0"),
        ({"params": {"f": object()}}, "not JSON serializable"),
        ({"verifier": ""}, "reward_model.verifier"),
    ],
)
def test_a_row_that_no_server_would_take_is_not_sent(change, said):
    reward = replace(RewardSpec(verifier="text", answer="", ground_truth="x"), **change)
    with pytest.raises(DataSpecError, match=said):
        encode_row(replace(SAMPLE, reward=reward))
    with pytest.raises(DataSpecError, match="not to be said in JSON"):
        encode_row(replace(SAMPLE, extra={"huge": 10**400}))


def test_verdicts_survive_the_way():
    verdicts = [
        score(SAMPLE, BOX),
        score(SAMPLE, "nothing"),
        score(make("nobody", "x"), "y"),
        GOOD,
        Verdict.unscored("late", status="timeout"),
    ]
    answer = encode_answer(verdicts, "one", "0.1.0")
    assert decode_answer(answer, "one", 5) == verdicts
    assert [one.seconds for one in decode_answer(answer, "one", 5)] == [
        one.seconds for one in verdicts
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score": 1.5}, "score 1.5"),
        ({"score": None}, "status ok with score None"),
        ({"score": True}, "score True"),
        ({"score": "0.5"}, "score '0.5'"),
        ({"status": "timeout"}, "status timeout with score 0.5"),
        ({"status": "great"}, "status 'great'"),
        ({"status": ["ok"]}, "must be texts"),
        ({"reward": None}, "reward None"),
        ({"reward": -0.1}, "reward -0.1"),
        ({"format": 2}, "format 2"),
        ({"parts": {"map": None}}, "parts"),
        ({"parts": [1]}, "parts"),
        ({"seconds": -1.0}, "seconds -1.0"),
        ({"reason": None}, "must be texts"),
        ({"mood": "good"}, "the fields .*mood"),
    ],
)
def test_a_verdict_that_cannot_be_true_is_not_believed(change, said):
    answer = json.loads(encode_answer([GOOD, GOOD], "one", "0"))
    answer["verdicts"][1] |= change
    with pytest.raises(WireError, match=f"verdict 1.*{said}"):
        decode_answer(json.dumps(answer).encode(), "one", 2)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>502</html>", "no JSON"),
        (b"[1]", "needed: an object"),
        (b'{"request_id":"two","verdicts":[]}', "the answer to 'two'"),
        (b'{"request_id":"one","verdicts":[]}', "0 verdicts on 1 items"),
        (b'{"request_id":"one"}', "verdicts are None"),
        (b'{"request_id":"one","verdicts":[null]}', "verdict 0 is None"),
        (b'{"request_id":"one","verdicts":[{}]}', "verdict 0: a verdict with the fields"),
        (b'{"request_id":"one","verdicts":[{"score":NaN}]}', "no JSON"),
    ],
)
def test_an_answer_to_something_else_is_not_believed(body, said):
    with pytest.raises(WireError, match=said):
        decode_answer(body, "one", 1)


def test_what_json_cannot_say_is_a_fault_before_it_is_sent():
    bad = replace(GOOD, parts={"map": float("nan")})
    fault = checked(bad)
    assert (fault.score, fault.reward, fault.status) == (None, None, "fault")
    assert (fault.verifier, fault.version) == ("x", "1")
    assert "nan" in fault.reason
    assert checked(GOOD) is GOOD
