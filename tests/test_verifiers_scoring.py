import json
import time
from dataclasses import replace

import pytest
from test_verifiers_cases import BOX, make

from data_specs import ImageRef
from verifiers import (
    VERIFIERS,
    Verdict,
    Verifier,
    check_spec,
    registry,
    score,
    score_many,
    verifier_names,
)


def weighted(ground_truth, accuracy_ratio, format_ratio, verifier="detection"):
    sample = make(verifier, ground_truth)
    spec = replace(sample.reward, accuracy_ratio=accuracy_ratio, format_ratio=format_ratio)
    return replace(sample, reward=spec)


def test_the_reward_is_the_weighted_mean_of_score_and_format():
    other = BOX.replace("dog", "cat")
    assert score(weighted(BOX, 0.9, 0.1), other).reward == pytest.approx(0.1)
    assert score(weighted(BOX, 1.0, 1.0), BOX).reward == 1.0
    assert score(weighted(BOX, 3.0, 1.0), other).reward == 0.25
    assert score(weighted(BOX, 1.0, 0.0), other).reward == 0.0


def test_weights_that_are_both_zero_leave_the_row_unscored():
    verdict = score(weighted(BOX, 0.0, 0.0), BOX)
    assert (verdict.score, verdict.reward, verdict.status) == (None, None, "bad_reference")


def test_an_unknown_verifier_is_unscored_and_names_its_neighbour():
    verdict = score(make("detecton", BOX), BOX)
    assert (verdict.score, verdict.status) == (None, "bad_reference")
    assert "did you mean 'detection'?" in verdict.reason
    assert check_spec(make("detecton", BOX).reward) == verdict.reason


@pytest.mark.parametrize(
    ("verifier", "params", "message"),
    [
        ("number", {"relative_tolerence": 0.05}, "'relative_tolerence' is unknown"),
        ("number", {"relative_tolerance": "0.05"}, "is '0.05'; allowed: a number"),
        ("number", {"year": 1}, "year is 1; allowed: true or false"),
        ("text", {"metric": "bleu"}, "allowed: anls, cer, exact"),
        ("text", {"references": [""]}, "none empty"),
        ("choice", {"options": [1]}, "options is"),
        ("detection", {"iou_threshold": 0}, "above 0"),
        ("detection", {"iou_threshold": True}, "allowed: a number"),
        ("detection", {"det_reward_ratio": {"mAP": 1.0}}, "'mAP' is unknown"),
        ("detection", {"det_reward_ratio": {"iou_completeness": 0.3}}, "must be above 0"),
        ("detection", {"det_reward_ratio": {"map": float("nan")}}, "map is nan"),
        ("mathverify", {"strict": True}, "'strict' is unknown"),
    ],
)
def test_a_wrong_parameter_is_the_rows_fault(verifier, params, message):
    sample = make(verifier, BOX if verifier == "detection" else r"\boxed{7}", **params)
    assert message in check_spec(sample.reward)


def test_a_wrong_parameter_never_scores_zero():
    verdict = score(make("text", r"\boxed{a}", metric="bleu"), r"\boxed{b}")
    assert (verdict.score, verdict.status) == (None, "bad_reference")


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_an_empty_reference_is_unscored(verifier):
    verdict = score(make(verifier, ""), r"\boxed{7}")
    assert (verdict.score, verdict.reward, verdict.status) == (None, None, "bad_reference")


def test_a_reference_with_a_broken_box_is_unscored():
    broken = BOX.replace("[10, 10, 90, 90]", "[90, 10, 10, 90]")
    assert score(make("detection", broken), BOX).status == "bad_reference"


def test_a_year_is_exact_if_the_question_asks_for_one():
    sample = make("number", r"\boxed{2010}", "In which year?", relative_tolerance=0.05)
    assert score(sample, r"\boxed{2011}").score == 0.0
    sample = make("number", r"\boxed{2010}", "How many?", relative_tolerance=0.05)
    assert score(sample, r"\boxed{2011}").score == 1.0


def test_a_verdict_knows_who_gave_it_and_equality_ignores_the_time():
    first, second = (score(make("number", r"\boxed{7}"), r"\boxed{7}") for _ in range(2))
    assert (first.verifier, first.version) == ("number", VERIFIERS["number"].version)
    assert first.seconds > 0
    assert first == second == replace(first, seconds=9.0)


def test_unscored_needs_an_unscored_status():
    with pytest.raises(ValueError, match="'ok' is scored"):
        Verdict.unscored("why", status="ok")


class Point:
    """An entry point of another package."""

    name, value = "vowels", "other:vowels"

    def load(self):
        return Verifier(
            judge=lambda sample, response, context: Verdict.scored(2.0),
            check_params=lambda params: None,
            version="9",
        )


def test_an_installed_verifier_is_found_and_its_scores_are_checked(monkeypatch):
    monkeypatch.setattr(registry, "_entry_points", lambda: {"vowels": Point()})
    registry._installed.cache_clear()
    assert "vowels" in verifier_names()
    with pytest.raises(ValueError, match="vowels gave score 2"):
        score(make("vowels", "x"), "y")
    registry._installed.cache_clear()


@pytest.mark.parametrize(
    ("sample", "response", "per_second"),
    [
        (make("mathverify", r"\boxed{7}"), r"I count. \boxed{8}", 20_000),
        (make("mathverify", r"\boxed{7.5}"), r"I count. \boxed{7.50}", 20_000),
        (make("number", r"\boxed{7}"), r"I count. \boxed{8}", 30_000),
        (make("text", r"\boxed{EXIT}"), r"I read. \boxed{EXIST}", 30_000),
        (make("choice", r"\boxed{B}"), r"I pick. \boxed{C}", 30_000),
        (make("detection", BOX), BOX.replace("10, 10", "12, 10"), 5_000),
    ],
    ids=lambda value: value.reward.verifier if hasattr(value, "reward") else "",
)
def test_plain_answers_are_judged_fast(sample, response, per_second):
    sample = replace(sample, images=(ImageRef(data=b"x"),))
    rates = []
    for _ in range(5):
        started = time.process_time()
        for _ in range(1000):
            score(sample, response)
        rates.append(1000 / (time.process_time() - started))
    assert max(rates) > per_second / 2  # half: a test machine is shared


def test_a_verdict_survives_json():
    verdict = score(make("mathverify", r"\boxed{7}"), r"\boxed{7}")
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict
    with pytest.raises(ValueError, match="needed: score, format, reward"):
        Verdict.from_json({"score": 1.0})


@pytest.mark.parametrize("weights", [(float("inf"), 0.0), (1.0, float("nan")), (-1.0, 2.0)])
def test_weights_that_are_no_weights_leave_the_row_unscored(weights):
    verdict = score(weighted(BOX, *weights), BOX)
    assert (verdict.score, verdict.reward, verdict.status) == (None, None, "bad_reference")
    assert "finite, at least 0" in verdict.reason


def test_a_part_that_is_no_number_is_a_fault_of_the_verifier(monkeypatch):
    def judge(sample, response, context):
        return Verdict.scored(1.0, parts={"iou": float("nan")})

    own = Verifier(judge=judge, check_params=lambda params: None, version="1")
    monkeypatch.setitem(registry.VERIFIERS, "own", own)
    (verdict,) = score_many([(make("own", "1"), "1")])
    assert (verdict.score, verdict.status) == (None, "fault")
    assert "part iou = nan" in verdict.reason
