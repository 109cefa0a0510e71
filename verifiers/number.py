"""Judges numbers: exact for counts, within a relative tolerance for values read off a chart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache

from data_specs import Sample
from verifiers.answer import extract_answer, form_score, reference_text
from verifiers.iou_rule import ScoreContext
from verifiers.numerals import Number, number_word, plain_number
from verifiers.params import flag, fraction, reject_unknown
from verifiers.text import normalise_text
from verifiers.verdict import Verdict

VERSION = "1"

_ANSWER_CHARS_MAX = 200
_ASKS_FOR_YEAR = re.compile(r"\b(?:year|years|when|date)\b", re.IGNORECASE)
_BARE_YEAR = re.compile(r"[12][0-9]{3}")


def read_number(text: str) -> Number | None:
    """A number in digits or words, without its sign of currency or percent; None if anything else.

    "about 5", "5 or 6" and "3-4" are no numbers.
    """
    value = plain_number(text)
    if value is not None or len(text) > _ANSWER_CHARS_MAX:
        return value
    text = normalise_text(text).rstrip(".").strip("*").strip()
    text = text.removeprefix("$").removesuffix("%").strip("$€£¥ ").strip()
    value = plain_number(text)
    return value if value is not None else number_word(text)


def check_params(params: Mapping[str, object]) -> None:
    """Raise ParamError if a parameter is wrong."""
    reject_unknown(params, ("relative_tolerance", "year"))
    fraction(params, "relative_tolerance", 0.0)
    flag(params, "year", False)


def judge(sample: Sample, response: str, context: ScoreContext) -> Verdict:
    """1 if the final answer is the reference's number, near enough where the row allows it.

    A reference that is no number is compared as text, letter case aside: charts ask for names
    as well. Years are exact, whatever the tolerance.
    """
    spec = sample.reward
    tolerance = fraction(spec.params, "relative_tolerance", 0.0) if spec.params else 0.0
    reference = _reference(spec.ground_truth)
    if reference is None:
        return Verdict.unscored(
            f"reference {spec.ground_truth[:80]!r} is empty", status="bad_reference"
        )
    answer = extract_answer(response)
    form = form_score(response, spec.ground_truth, answer)
    if answer.text is None:
        return Verdict.scored(0.0, format=form, reason=answer.reason, status=answer.status)
    text, value = reference
    if value is None:
        same = len(answer.text) <= 4096 and normalise_text(answer.text, True) == text.casefold()
        reason = "" if same else f"{answer.text[:80]!r} is not {text[:80]!r}"
        return Verdict.scored(float(same), format=form, reason=reason)
    found = read_number(answer.text)
    if found is None:
        reason = f"{answer.text[:80]!r} is not one number"
        return Verdict.scored(0.0, format=form, reason=reason, status="unparseable")
    if found == value:
        return Verdict.scored(1.0, format=form)
    if tolerance > 0.0 and not _is_year(sample, text, value):
        near = abs(found - value) <= _exact(tolerance) * abs(value)
        reason = f"{answer.text[:80]!r} against {text!r}, tolerance {tolerance:g}"
        return Verdict.scored(float(near), format=form, reason=reason)
    reason = f"{answer.text[:80]!r} is not {text[:80]!r}"
    return Verdict.scored(0.0, format=form, reason=reason)


@lru_cache(maxsize=16384)
def _reference(ground_truth: str) -> tuple[str, Number | None] | None:
    text = normalise_text(reference_text(ground_truth).text or "")
    return (text, read_number(text)) if text else None


@lru_cache(maxsize=256)
def _exact(tolerance: float) -> Fraction:
    """The tolerance as it was written: 0.05 is 1/20."""
    return Fraction(str(tolerance))


def _is_year(sample: Sample, text: str, value: Number) -> bool:
    """Whether the reference is a year: the row says so, or else its question asks for one."""
    if "year" in sample.reward.params:
        return flag(sample.reward.params, "year", False)
    return (
        isinstance(value, int)
        and _BARE_YEAR.fullmatch(text) is not None
        and _ASKS_FOR_YEAR.search(sample.question) is not None
    )
