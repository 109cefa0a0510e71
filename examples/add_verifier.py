"""A verifier of one's own: dates, right to the day; half right if only the day is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from data_specs import Sample
from verifiers import ScoreContext, Verdict, Verifier
from verifiers.answer import extract_answer
from verifiers.params import reject_unknown


def read_date(text: str | None) -> date | None:
    """2024-02-29 as a date, None for what is not one."""
    try:
        return date.fromisoformat(text or "")
    except ValueError:
        return None


def judge(sample: Sample, response: str, context: ScoreContext) -> Verdict:
    """1 for the day, 0.5 for its month; a reference that is no date is unscored, never 0."""
    reference = read_date(extract_answer(sample.reward.ground_truth).text)
    if reference is None:
        return Verdict.unscored("the reference is not a date", status="bad_reference")
    answer = extract_answer(response)
    found = read_date(answer.text)
    if answer.text is None or found is None:
        return Verdict.scored(0.0, status="unparseable", reason=answer.reason or "not a date")
    if found == reference:
        return Verdict.scored(1.0)
    same_month = (found.year, found.month) == (reference.year, reference.month)
    return Verdict.scored(0.5 * same_month, reason=f"{found} is not {reference}")


def check_params(params: Mapping[str, object]) -> None:
    """Rows of this verifier have no parameters."""
    reject_unknown(params, ())


VERIFIER = Verifier(judge=judge, check_params=check_params, version="1")
