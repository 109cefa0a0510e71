r"""Judges mathematics: equal numbers, quantities, words, sets, tuples, equations or formulas.

Nothing but a reference in notation that `math_reader` does not know brings sympy in.
"""

from __future__ import annotations

from collections.abc import Mapping

from data_specs import Sample
from verifiers.answer import extract_answer, form_score
from verifiers.iou_rule import ScoreContext
from verifiers.params import reject_unknown
from verifiers.verdict import Verdict

VERSION = "2"

UPSTREAM_PARAMS = ("det_verifier_normalized", "det_reward_ratio", "verifier_style")
"""What rows written for V-Triune may carry; they mean nothing to mathematics."""


def check_params(params: Mapping[str, object]) -> None:
    """Raise ParamError if a parameter is unknown; upstream's are allowed and mean nothing here."""
    reject_unknown(params, UPSTREAM_PARAMS)


def judge(sample: Sample, response: str, context: ScoreContext) -> Verdict:
    """1 if the final answer equals the reference as a number, as words or as a formula."""
    # Not at import, as it compiles many regular expressions.
    from verifiers.math_same import compare, is_restated, read_reference
    from verifiers.math_term import read_term

    # departs from V-Triune: its mathverify lower-cases both sides, gives 0 where the reference
    # cannot be read, and lets sympy work on what a model writes.
    ground_truth = sample.reward.ground_truth
    reference = read_reference(ground_truth)
    if isinstance(reference, str):
        return Verdict.unscored(reference, status="bad_reference")
    answer = extract_answer(response)
    form = form_score(response, ground_truth, answer)
    if answer.text is None:
        return Verdict.scored(0.0, format=form, reason=answer.reason, status=answer.status)
    if answer.text == reference.raw:
        return Verdict.scored(1.0, format=form)
    term = read_term(answer.text)
    found = compare(reference, term)
    if found.status == "bad_reference":
        return Verdict.unscored(found.how, status="bad_reference")
    how = found.how
    if found.is_same:
        if not is_restated(reference, term, sample.question):
            return Verdict.scored(1.0, format=form, reason=how)
        how = "it repeats the question, not worked out"
    reason = f"{answer.text[:80]!r} is not {reference.raw[:80]!r} ({how})"
    return Verdict.scored(0.0, format=form, reason=reason, status=found.status)
