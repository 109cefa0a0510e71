"""The case tables: response, reference, expected score, and why."""

import json
from pathlib import Path

import pytest

from data_specs import Message, RewardSpec, Sample
from verifiers import VERIFIERS, score
from verifiers.kit import check_verifier

CASES = Path(__file__).parent / "cases"


def make(verifier, ground_truth, question="How many?", **params):
    return Sample(
        id="one",
        source="made",
        task="math",
        messages=(Message(role="user", content=question),),
        images=(),
        reward=RewardSpec(verifier=verifier, answer="", ground_truth=ground_truth, params=params),
    )


def table(verifier):
    rows = json.loads((CASES / f"{verifier}.json").read_text())
    for row in rows:
        yield pytest.param(verifier, row, id=f"{verifier}: {row['why']}")


@pytest.mark.parametrize(("verifier", "row"), [case for name in VERIFIERS for case in table(name)])
def test_a_case_scores_what_its_table_says(verifier, row):
    sample = make(verifier, row["reference"], **(row.get("params") or {}))
    verdict = score(sample, row["response"])
    assert verdict.score == pytest.approx(row["expected"], abs=1e-12), (row["why"], verdict)
    assert verdict.reward == verdict.score
    assert verdict.score == 1.0 or verdict.reason


BOX = "<answer>[{'bbox_2d': [10, 10, 90, 90], 'label': 'dog'}]</answer>"
GOLDS = {
    "mathverify": [
        make("mathverify", gold)
        for gold in (r"\boxed{7}", r"\boxed{\frac{1}{2}}", r"\boxed{x+1}", r"\boxed{left}")
    ],
    "number": [
        make("number", r"\boxed{7}"),
        make("number", r"\boxed{7.5}", relative_tolerance=0.05),
        make("number", r"\boxed{Norway}"),
        make("number", r"\boxed{12}", shaping="relative"),
        make("number", r"\boxed{12\%}", shaping="relative", relative_tolerance=0.05),
    ],
    "text": [
        make("text", r"\boxed{EXIT}"),
        make("text", r"\boxed{50\%}", metric="cer"),
        make("text", r"\boxed{way out}", metric="wer"),
        make("text", r"\boxed{Exit}", metric="anls", ignore_case=True, references=["way out"]),
    ],
    "choice": [
        make("choice", r"\boxed{B}"),
        make("choice", r"\boxed{B}", options=["x", "y"]),
        make("choice", r"\boxed{B) a dog}"),
        make("choice", r"\boxed{no}", options=["yes", "no"]),
    ],
    "composite": [
        make("composite", r"\boxed{7}", parts=[{"verifier": "number"}, {"verifier": "text"}]),
        make(
            "composite",
            r"\boxed{7}",
            parts=[
                {"verifier": "number", "weight": 0.7},
                {"verifier": "number", "weight": 0.3, "params": {"shaping": "relative"}},
            ],
        ),
        make("composite", BOX, parts=[{"verifier": "detection", "weight": 3}]),
    ],
    "detection": [
        make("detection", BOX),
        make("detection", BOX, det_reward_ratio={"map": 1.0, "iou_max_iou_first": 1.0}),
        make("detection", BOX.replace("dog'}", "dog'}, {'bbox_2d': [1, 2, 3, 4], 'label': 'a'}")),
        make("detection", BOX, shaping="giou", iou_threshold="averaged"),
        make("detection", BOX, det_verifier_normalized=True, image_grid_thw=[[1, 1000, 1000]]),
        make("detection", "<answer>[[10, 10, 90, 90]]</answer>", matching="label_first"),
        make("detection", "<answer>[[10, 10, 90, 90], [5, 5, 9, 9]]</answer>"),
    ],
    "point": [
        make("point", "<answer>[[10, 10, 90, 90]]</answer>"),
        make("point", BOX, predicted_space="per_mille"),
    ],
}


@pytest.mark.parametrize("name", VERIFIERS)
def test_every_verifier_keeps_the_contract(name):
    check_verifier(name, GOLDS[name])


def test_the_kit_names_a_gold_answer_that_does_not_score():
    with pytest.raises(AssertionError, match="gold answer scores 0"):
        check_verifier("number", [make("number", "7")])
