r"""Judges mathematics: equal numbers, words or formulas; formulas by math-verify behind guards.

Most answers never reach sympy: equal texts, plain numbers and words are settled here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from data_specs import Sample
from verifiers.answer import extract_answer, form_score, reference_text
from verifiers.formula import FORMULA_CHARS_MAX, equal_formulas, refuse_formula
from verifiers.iou_rule import ScoreContext
from verifiers.numerals import Number, plain_number
from verifiers.params import reject_unknown
from verifiers.text import normalise_text
from verifiers.verdict import Verdict

VERSION = "1"

_OPTION_LETTERS = "ABCDEFGH"
_DECIMAL_PLACES = 6  # as math-verify: 0.333333 is 1/3, 0.333 is not

_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|boldsymbol|mbox|rm|bf)\s*\{([^{}]*)\}"
)
_SPACING = re.compile(r"\\(?:left|right|displaystyle|,|;|:|!|quad|qquad)(?![A-Za-z])")
_ALTERNATIVES = re.compile(r"(?<![A-Za-z])or(?![A-Za-z])", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{2,}")
_WORDS_ONLY = re.compile(r"[^\W\d_]+(?:[ '’.,-]+[^\W\d_]+)*[.!]?")
_BRACKETED_LETTER = re.compile(r"\(([A-Z])\)")
_SIGNS = str.maketrans(
    {"²": "^2", "³": "^3", "−": "-", "×": "\\times ", "·": "\\cdot ", "÷": "/", "π": "\\pi "}
)
_ASSIGNMENT = re.compile(r"^[A-Za-z](?:_\{?[A-Za-z0-9]\}?)?\s*=\s*(?=[^=<>])")
_UNIT = re.compile(
    r"^(?P<money>\\?[$€£¥])?\s*(?P<value>.*?[0-9}.])\s*"
    r"(?P<unit>\\?%|\^\s*\{?\\circ\}?|°|(?<= )[mgslLhNJWVAK]|"
    r"[^\W\d_]{2,}[0-9]?(?:[ /^{}.0-9]+[^\W_]*)*)?$"
)
_WRAPPED_UNIT = re.compile(
    r"(?P<value>.*?[0-9}])[\s~]*\\(?:text|textrm|mathrm|mbox)\s*\{(?P<unit>[^{}]{1,40})\}"
    r"(?P<power>\^\s*\{?[0-9]\}?)?"
)
_UNEVALUATED = re.compile(r"\\(?:sum|prod|int|iint|iiint|oint|lim)(?![A-Za-z])")


def check_params(params: Mapping[str, object]) -> None:
    """Raise ParamError if a parameter is wrong; there are none."""
    reject_unknown(params, ())


def judge(sample: Sample, response: str, context: ScoreContext) -> Verdict:
    """1 if the final answer equals the reference as a number, as words or as a formula."""
    ground_truth = sample.reward.ground_truth
    reference = _reference(ground_truth)
    if reference is None:
        return Verdict.unscored(
            f"reference {ground_truth[:80]!r} has no answer", status="bad_reference"
        )
    answer = extract_answer(response)
    form = form_score(response, ground_truth, answer)
    if answer.text is None:
        return Verdict.scored(0.0, format=form, reason=answer.reason, status=answer.status)
    if answer.text == reference.raw:
        return Verdict.scored(1.0, format=form)
    equal, reason = _compare(reference, _read(answer.text))
    if equal:
        return Verdict.scored(1.0, format=form, reason=reason)
    if reason.startswith("too "):
        return Verdict.scored(0.0, format=form, reason=reason, status="unparseable")
    reason = f"{answer.text[:80]!r} is not {reference.raw[:80]!r} ({reason})"
    return Verdict.scored(0.0, format=form, reason=reason)


class _Term(NamedTuple):
    """An answer, as far as it can be read without sympy."""

    raw: str
    plain: str
    """Without dollar signs, spacing commands and the full stop."""
    value: Number | None
    """Its number, units aside; a percentage is divided by 100."""
    unit: str


def _read(raw: str) -> _Term:
    value = plain_number(raw)
    if value is not None:
        return _Term(raw, raw, value, "")
    plain = raw.strip()
    if len(plain) > FORMULA_CHARS_MAX:
        return _Term(raw, plain, None, "")
    if len(plain) > 2 and plain[0] == "$" == plain[-1]:
        plain = plain.strip("$").strip()
    if not plain.isascii():
        plain = _ascii_math(plain)
    plain = _SPACING.sub(" ", plain.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac"))
    wrapped = _WRAPPED_UNIT.fullmatch(plain)
    plain = _WRAPPER.sub(r" \1", plain).strip()
    plain = " ".join(plain.rstrip(".").split())
    if found := _BRACKETED_LETTER.fullmatch(plain):
        plain = found.group(1)
    value = plain_number(plain)
    if value is not None:
        return _Term(raw, plain, value, "")
    if not _ALTERNATIVES.search(plain):
        value, unit = _quantity(plain, wrapped)
        if value is not None:
            return _Term(raw, plain, Fraction(value) / 100 if unit == "%" else value, unit)
    return _Term(raw, plain, None, "")


def _ascii_math(text: str) -> str:
    """The text with superscripts, minus and other signs as LaTeX, and the rest in form NFKC."""
    return normalise_text(text.translate(_SIGNS)).replace("\u2044", "/")


def _quantity(plain: str, wrapped: re.Match[str] | None) -> tuple[Number | None, str]:
    r"""A number and its unit; a unit of one letter counts if it is wrapped, `5\text{ m}`."""
    if wrapped:
        unit = wrapped["unit"] + (wrapped["power"] or "").replace("{", "").replace("}", "")
        return plain_number(wrapped["value"]), "".join(unit.split()).strip(".").casefold()
    found = _UNIT.match(plain)
    if not found or not (found["money"] or found["unit"]):
        return None, ""
    unit = (found["unit"] or found["money"]).strip("\\ {}^").casefold()
    return plain_number(found["value"]), "".join(unit.split())


@lru_cache(maxsize=16384)
def _reference(ground_truth: str) -> _Term | None:
    text = reference_text(ground_truth).text
    return _read(text) if text else None


def _compare(reference: _Term, answer: _Term) -> tuple[bool, str]:
    """Whether the answer equals the reference, and how that was found out."""
    if answer.plain.replace(" ", "") == reference.plain.replace(" ", ""):
        return True, ""
    if reference.value is not None and answer.value is not None:
        return _same_quantity(reference, answer), "compared as numbers"
    if _is_words(reference.plain) or _is_words(answer.plain):
        # Letters of options may be small; other single letters are names, and M is not m.
        ignore_case = len(reference.plain) > 1 or reference.plain in _OPTION_LETTERS
        left, right = (normalise_text(t.plain, ignore_case) for t in (reference, answer))
        return left == right, "compared as words"
    if ":" in reference.plain or ":" in answer.plain:
        return False, "compared as text"  # 12:30 is a time or a ratio, not 12/30
    if _ALTERNATIVES.search(answer.plain) and not _ALTERNATIVES.search(reference.plain):
        return False, "several alternatives"
    answer, reference = _same_sided(answer, reference)
    if reference.value is not None and answer.value is not None:
        return _same_quantity(reference, answer), "compared as numbers"
    refusal = refuse_formula(answer.plain) or refuse_formula(reference.plain)
    is_open = bool(_UNEVALUATED.search(answer.plain))
    if not refusal and is_open and not _UNEVALUATED.search(reference.plain):
        refusal = "too little done: a sum, product, integral or limit is not worked out"
    if refusal:
        return False, refusal
    return equal_formulas(reference.plain, answer.plain), "compared as formulas"


def _same_quantity(reference: _Term, answer: _Term) -> bool:
    assert reference.value is not None and answer.value is not None
    left, right = reference.value, answer.value
    if reference.unit and answer.unit and reference.unit != answer.unit:
        return False
    if reference.unit == "%" and not answer.unit and left * 100 == right:
        return True  # the reference says the unit, the answer may leave it out
    if left == right:
        return True
    # A decimal may stand for a fraction that never ends, if it has six places.
    is_decimal = "." in reference.plain, "." in answer.plain
    if is_decimal[0] == is_decimal[1]:
        return False
    return round(Fraction(left), _DECIMAL_PLACES) == round(Fraction(right), _DECIMAL_PLACES) and (
        abs(left) >= 1e-3 or abs(right) >= 1e-3
    )


def _is_words(plain: str) -> bool:
    """Whether the text is made of words: those are compared letter by letter.

    As a formula `listen` would be a product of letters and equal `silent`.
    """
    if "\\" in plain:
        return False
    if len(plain) == 1:
        return plain.isalpha() and plain.isupper()
    return bool(_WORD.search(plain)) and _WORDS_ONLY.fullmatch(plain) is not None


def _same_sided(answer: _Term, reference: _Term) -> tuple[_Term, _Term]:
    """Both terms without `x =` if only one of them has it."""
    in_answer, in_reference = (_ASSIGNMENT.match(term.plain) for term in (answer, reference))
    if in_answer and "=" not in reference.plain:
        answer = _read(answer.plain[in_answer.end() :])
    elif in_reference and "=" not in answer.plain:
        reference = _read(reference.plain[in_reference.end() :])
    return answer, reference
