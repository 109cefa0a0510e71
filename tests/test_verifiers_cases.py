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
    ],
    "text": [make("text", r"\boxed{EXIT}"), make("text", r"\boxed{50\%}", metric="cer")],
    "choice": [make("choice", r"\boxed{B}"), make("choice", r"\boxed{B}", options=["x", "y"])],
    "detection": [
        make("detection", BOX),
        make("detection", BOX, det_reward_ratio={"map": 1.0, "iou_max_iou_first": 1.0}),
        make("detection", BOX.replace("dog'}", "dog'}, {'bbox_2d': [1, 2, 3, 4], 'label': 'a'}")),
    ],
}


@pytest.mark.parametrize("name", VERIFIERS)
def test_every_verifier_keeps_the_contract(name):
    check_verifier(name, GOLDS[name])


def test_the_kit_names_a_gold_answer_that_does_not_score():
    with pytest.raises(AssertionError, match="gold answer scores 0"):
        check_verifier("number", [make("number", "7")])
