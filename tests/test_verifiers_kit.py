import subprocess
import sys
from dataclasses import replace
from time import process_time

import pytest
from test_verifiers_cases import BOX, GOLDS, make

from verifiers import VERIFIERS, Verdict, Verifier, registry
from verifiers.answer import extract_answer
from verifiers.kit import HACKS, KINDS, check_verifier, contract, permuted_boxes

KINDS_OF = {
    "mathverify": ("math",),
    "number": ("number",),
    "text": ("text",),
    "choice": ("choice",),
    "detection": ("boxes",),
}
"""What a verifier of ours judges; one that is not here is tested without the known hacks."""

SOFT = [
    make("text", r"\boxed{a}", metric=metric, ignore_case=case)
    for metric in ("anls", "cer", "wer")
    for case in (True, False)
]
TWO = BOX.replace("}]", "}, {'bbox_2d': [1, 2, 3, 4], 'label': 'a'}]")
RANKED = {
    "number": [
        (
            make("number", r"\boxed{100}", shaping="relative"),
            [rf"\boxed{{{value}}}" for value in (100, 101, 98, 110, 50, 0, -4)] + [""],
        )
    ],
    "text": [
        (
            make("text", r"\boxed{hello}", metric="cer"),
            [r"\boxed{hello}", r"\boxed{hallo}", "hello"],
        )
    ],
    "composite": [
        (
            make("composite", r"\boxed{8}", parts=[{"verifier": "number"}, {"verifier": "text"}]),
            [r"\boxed{8}", r"\boxed{8.0}", r"\boxed{9}"],
        )
    ],
    "detection": [
        (
            make("detection", BOX),
            [BOX, BOX.replace("90, 90", "89, 90"), BOX.replace("90, 90", "20, 20"), "none"],
        )
    ],
}

CASES = [
    case
    for name in VERIFIERS
    for case in contract(
        name,
        GOLDS[name] + (SOFT if name == "text" else []),
        kinds=KINDS_OF.get(name, ()),
        ranked=RANKED.get(name, ()),
    )
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_our_own_verifiers_keep_the_contract(case):
    case()


@pytest.mark.parametrize("kind", ["number", "text", "choice"])
def test_a_composite_is_cheated_by_none_of_what_its_parts_withstand(kind):
    parts = [{"verifier": kind, "weight": 2}, {"verifier": kind}]
    check_verifier("composite", [make("composite", r"\boxed{5}", parts=parts)], kinds=[kind])


def test_the_corpus_covers_every_kind_and_says_why():
    assert {hack.kind for hack in HACKS} == set(KINDS)
    assert all(hack.note and hack.response != hack.reference for hack in HACKS)
    assert len({(hack.kind, hack.response, hack.reference) for hack in HACKS}) == len(HACKS)


def judge_by(compare):
    """A verifier of whole numbers that compares as told."""

    def judge(sample, response, context):
        answer = extract_answer(response)
        gold = extract_answer(sample.reward.ground_truth).text or ""
        value = float(compare(answer.text or "", gold, response))
        return Verdict.scored(value, reason="compared")

    return judge


def burn(answer, gold, response):
    started = process_time()
    while len(response) > 1000 and process_time() - started < 0.2:
        pass
    return answer == gold


counter = iter(range(10**9))


@pytest.mark.parametrize(
    ("compare", "said"),
    [
        (lambda answer, gold, response: False, "the gold answer scores 0"),
        (lambda answer, gold, response: answer in gold, "an empty response scores 1"),
        (lambda answer, gold, response: gold in response, "thinking alone scores 1"),
        (lambda answer, gold, response: 2.0 * (answer == gold), "gave score 2"),
        (lambda answer, gold, response: float("nan") if answer == "x" else 1, "empty response"),
        (lambda answer, gold, response: answer.replace("_", "") == gold, "pix2struct"),
        (lambda answer, gold, response: answer.split(" or ")[0] == gold, "5 or 6"),
        (burn, "took 0.2"),
        (
            lambda answer, gold, response: (
                1 if answer == gold else answer > "" and next(counter) % 2
            ),
            "scored Verdict",
        ),
    ],
)
def test_the_kit_names_what_is_wrong_with_a_verifier(compare, said, monkeypatch):
    verifier = Verifier(judge=judge_by(compare), check_params=lambda params: None, version="1")
    monkeypatch.setitem(registry.VERIFIERS, "mine", verifier)
    cases = contract("mine", [make("mine", r"\boxed{15}")], kinds=["number"], seconds_max=0.1)
    with pytest.raises((AssertionError, ValueError), match=said):
        for case in cases:
            case()


def test_a_verifier_without_a_fault_passes(monkeypatch):
    judge = judge_by(lambda answer, gold, response: answer == gold and answer.isdigit())
    verifier = Verifier(judge=judge, check_params=lambda params: None, version="1")
    monkeypatch.setitem(registry.VERIFIERS, "mine", verifier)
    check_verifier("mine", [make("mine", r"\boxed{15}")], kinds=["number"])


def test_a_worse_response_that_scores_more_is_named():
    sample = make("number", r"\boxed{10}", shaping="relative")
    rising = [r"\boxed{9}", r"\boxed{10}"]
    level = [r"\boxed{9}", r"\boxed{11}"]
    for responses, said in ((rising, "a worse response scores more"), (level, "no more than")):
        (case,) = contract("number", [sample], ranked=[(sample, responses)])[-1:]
        with pytest.raises(AssertionError, match=said):
            case()


def test_a_verifier_that_reads_boxes_in_order_is_named(monkeypatch):
    judge = judge_by(lambda answer, gold, response: answer == gold)
    verifier = Verifier(judge=judge, check_params=lambda params: None, version="1")
    monkeypatch.setitem(registry.VERIFIERS, "mine", verifier)
    with pytest.raises(AssertionError, match="the gold answer as"):
        check_verifier("mine", [make("mine", TWO)])


def test_boxes_are_permuted_whole():
    assert len(permuted_boxes(TWO)) == 2
    assert "'label': 'a'" not in permuted_boxes(TWO)[0]  # written anew, as JSON
    assert permuted_boxes(TWO)[0].index('"a"') < permuted_boxes(TWO)[0].index('"dog"')
    assert permuted_boxes(BOX) == permuted_boxes(r"\boxed{7}") == permuted_boxes("") == []


@pytest.mark.parametrize("said", ["needs at least one sample", "belongs to verifier 'number'"])
def test_samples_that_do_not_fit_are_refused(said):
    samples = [] if "least" in said else [make("number", r"\boxed{7}")]
    with pytest.raises(AssertionError, match=said):
        check_verifier("text", samples)


def test_an_unknown_kind_is_refused():
    with pytest.raises(AssertionError, match="known: math, number, text, choice, boxes"):
        contract("number", [make("number", r"\boxed{7}")], kinds=["words"])


def test_hacks_of_a_kind_that_the_verifier_does_not_take_are_an_error():
    with pytest.raises(AssertionError, match="no reference of kind number scores 1"):
        check_verifier("detection", [make("detection", BOX)], kinds=["number"])


def test_a_sample_with_broken_settings_is_named():
    sample = make("number", r"\boxed{7}")
    sample = replace(sample, reward=replace(sample.reward, params={"tolerance": 1}))
    with pytest.raises(AssertionError, match="'tolerance' is unknown"):
        check_verifier("number", [sample])


def test_the_kit_needs_no_pytest():
    code = "import sys, verifiers.kit\nprint(*{'pytest', 'torch', 'sympy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
