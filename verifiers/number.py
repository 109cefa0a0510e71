"""Judges numbers: exact for counts, within a tolerance for charts, or shaped by the distance."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from data_specs import Sample
from verifiers.answer import reference_text
from verifiers.iou_rule import ScoreContext
from verifiers.numerals import Number, number_word, plain_number
from verifiers.opening import open_answer, unusable_reference
from verifiers.params import flag, fraction, one_of, reject_unknown
from verifiers.text import TEXT_CHARS_MAX, bare_words, normalise_text
from verifiers.verdict import Verdict

VERSION = "2"

SHAPINGS = ("none", "relative")
"""What a miss earns. none: 0. relative: 1 - |p - g| / max(|g|, 1), at least 0."""

MISS_MAX = 1.0 - 2.0**-20
"""Most that a miss earns, however near: below 1 in 32-bit floats too, which rewards become."""

_NUMBER_CHARS_MAX = 200
_CURRENCY = "$€£¥₹₩"
_MINUS = "-\u2212\u2013"
_PERCENT = re.compile(r" ?(?:%|per ?cent)$", re.IGNORECASE)
# NFKC makes 52 of 5² and 51⁄2 of 5½.
_ALTERED = ("<super>", "<sub>", "<fraction>")

_BARE_YEAR = re.compile(r"[12][0-9]{3}")
_ASKS_FOR_YEAR = re.compile(
    r"\byears?\b(?! [12][0-9]{3})|\bdate\b"
    r"|^when\b|\bwhen (?:did|do|does|was|were|is|are|has|have|had|will)\b",
    re.IGNORECASE,
)
_NO_YEAR_ASKED = re.compile(r"\b(?:how many|per|each|every|an?) years?\b", re.IGNORECASE)


class Quantity(NamedTuple):
    """A number with what it counts."""

    value: Number
    unit: str = ""
    """A currency sign, `%`, or empty."""


def read_quantity(text: str) -> Quantity | None:
    """A number in digits or words with its sign of currency or percent; None if anything else.

    "about 5", "5 or 6", "3-4" and "5 apples" are no numbers.
    """
    value = plain_number(text)
    if value is not None:
        return Quantity(value)
    if len(text) > _NUMBER_CHARS_MAX:
        return None
    if not text.isascii() and any(unicodedata.decomposition(c).startswith(_ALTERED) for c in text):
        return None
    text, unit = _without_unit(normalise_text(text).lstrip("* ").rstrip("* ."))
    value = plain_number(text)
    if value is None:
        value = number_word(text)
    return None if value is None else Quantity(value, unit)


def read_number(text: str) -> Number | None:
    """The value of `read_quantity`."""
    quantity = read_quantity(text)
    return None if quantity is None else quantity.value


def shaped_score(distance: Number, reference: Number) -> float:
    """1 - distance / max(|reference|, 1), from 0 to MISS_MAX; 1 at distance 0 and nowhere else.

    It never rises with the distance, at any size: the division is exact and rounded once.
    """
    if distance == 0:
        return 1.0
    left = 1 - Fraction(distance) / max(abs(reference), 1)
    return min(float(left), MISS_MAX) if left > 0 else 0.0


def check_params(params: Mapping[str, object]) -> None:
    """Raise ParamError if a parameter is wrong."""
    reject_unknown(params, ("relative_tolerance", "shaping", "year"))
    fraction(params, "relative_tolerance", 0.0)
    one_of(params, "shaping", SHAPINGS, "none")
    flag(params, "year", False)


def judge(sample: Sample, response: str, context: ScoreContext) -> Verdict:
    """1 if the final answer is the reference's number, or near enough where the row allows it.

    A reference that is no number is compared as a name, letter case aside: charts ask for names
    as well. Years are exact, whatever the tolerance and the shaping.
    """
    spec = sample.reward
    tolerance, shaped = 0.0, False
    if spec.params:
        tolerance = fraction(spec.params, "relative_tolerance", 0.0)
        shaped = one_of(spec.params, "shaping", SHAPINGS, "none") != "none"
    reference = _reference(spec.ground_truth)
    if reference is None:
        return unusable_reference(spec.ground_truth, TEXT_CHARS_MAX)
    zero = {"exact": 0.0} if shaped else None
    opened = open_answer(response, spec.ground_truth, TEXT_CHARS_MAX, zero)
    if isinstance(opened, Verdict):
        return opened
    text, wanted = reference
    found = None if wanted is None else read_quantity(opened.text)
    status, why = "ok", ""
    if wanted is None:
        score = float(bare_words(opened.text) == bare_words(text))
    elif found is None:
        score, status, why = 0.0, "unparseable", ": not one number"
    elif found == wanted:
        score = 1.0
    elif (tolerance > 0.0 or shaped) and not _is_year(sample, text, wanted.value):
        score = _near(found, wanted, tolerance, shaped)
        why = f", tolerance {tolerance:g}" if tolerance else ""
    else:
        score = float(found.value == wanted.value and not _clash(found, wanted))
    reason = "" if score == 1.0 else f"{opened.text[:80]!r} against {text[:80]!r}{why}"
    parts = zero and {"exact": float(score == 1.0)}
    return Verdict.scored(score, format=opened.format, reason=reason, status=status, parts=parts)


def _without_unit(text: str) -> tuple[str, str]:
    """The text of the number, and its sign of currency or percent."""
    if len(text) > 2 and text[0] == "$" == text[-1]:  # mathematics, not money
        text = text[1:-1].strip()
    if found := _PERCENT.search(text):
        return _with_hyphen(text[: found.start()]), "%"
    if text and text[-1] in _CURRENCY:
        return _with_hyphen(text[:-1].rstrip()), text[-1]
    text = _with_hyphen(text)
    sign = text[: text[:1] in ("-", "+")]
    rest = text[len(sign) :].lstrip()
    if rest and rest[0] in _CURRENCY:
        number = _with_hyphen(rest[1:].lstrip())
        return (sign + number if number[:1].isdigit() or not sign else ""), rest[0]
    return text, ""


def _with_hyphen(text: str) -> str:
    """The text with a hyphen for the minus that it may start with."""
    return "-" + text[1:].lstrip() if text[:1] and text[0] in _MINUS else text


def _clash(found: Quantity, wanted: Quantity) -> bool:
    """Whether two signs of currency or percent contradict each other."""
    return bool(found.unit and wanted.unit and found.unit != wanted.unit)


def _near(found: Quantity, wanted: Quantity, tolerance: float, shaped: bool) -> float:
    """The score of a number that need not be exact.

    A percentage meets the number before its sign, and the hundredth that it is: charts and the
    published ChartQA code write it either way.
    """
    if _clash(found, wanted):
        return 0.0
    distance = abs(found.value - wanted.value)
    if found.unit != wanted.unit and "%" in (found.unit, wanted.unit):
        factor = Fraction(1, 100) if found.unit else 100
        distance = min(distance, abs(found.value * factor - wanted.value))
    if distance <= _exact(tolerance) * abs(wanted.value):
        return 1.0
    return shaped_score(distance, wanted.value) if shaped else 0.0


@lru_cache(maxsize=16384)
def _reference(ground_truth: str) -> tuple[str, Quantity | None] | None:
    """The reference's text and its number; the number is None for a name. None if unusable."""
    text = reference_text(ground_truth).text or ""
    if len(text) > TEXT_CHARS_MAX or not bare_words(text):
        return None
    return normalise_text(text), read_quantity(text)


@lru_cache(maxsize=256)
def _exact(tolerance: float) -> Fraction:
    """The tolerance as it was written: 0.05 is 1/20."""
    return Fraction(str(tolerance))


def _is_year(sample: Sample, text: str, value: Number) -> bool:
    """Whether the reference is a year: the row says so, or else its question asks for one."""
    if "year" in sample.reward.params:
        return flag(sample.reward.params, "year", False)
    if not isinstance(value, int) or not _BARE_YEAR.fullmatch(text):
        return False
    question = _NO_YEAR_ASKED.sub("", sample.question)
    return _ASKS_FOR_YEAR.search(question) is not None
