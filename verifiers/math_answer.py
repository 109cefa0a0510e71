r"""Judges mathematics: equal numbers, words or formulas; formulas by math-verify behind guards.

Most answers never reach sympy: equal texts, plain numbers and words are settled here.
"""

# math-verify is half typed.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from data_specs import Sample
from verifiers.answer import extract_answer, form_score, reference_text
from verifiers.iou_rule import ScoreContext
from verifiers.numerals import Number, plain_number
from verifiers.params import reject_unknown
from verifiers.text import normalise_text
from verifiers.verdict import Verdict

VERSION = "1"

FORMULA_CHARS_MAX = 600
"""Longer answers are compared as text only."""
FORMULA_DEPTH_MAX = 24
"""Deepest nesting of brackets that is parsed."""
EXPONENT_MAX = 1000
"""Largest exponent that is parsed."""

_DECIMAL_PLACES = 6  # as math-verify: 0.333333 is 1/3, 0.333 is not

_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|boldsymbol|mbox|rm|bf)\s*\{([^{}]*)\}"
)
_SPACING = re.compile(r"\\(?:left|right|displaystyle|,|;|:|!|quad|qquad)(?![A-Za-z])")
_ALTERNATIVES = re.compile(r"(?<![A-Za-z])or(?![A-Za-z])", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{2,}")
_WORDS_ONLY = re.compile(r"[^\W\d_]+(?:[ '’.,-]+[^\W\d_]+)*[.!]?")
_ASSIGNMENT = re.compile(r"^[A-Za-z](?:_\{?[A-Za-z0-9]\}?)?\s*=\s*(?=[^=<>])")
_UNIT = re.compile(
    r"^(?P<money>\\?[$€£¥])?\s*(?P<value>.*?[0-9}.])\s*"
    r"(?P<unit>\\?%|\^\s*\{?\\circ\}?|°|[^\W\d_]{2,}[0-9]?(?:[ /^{}.0-9]+[^\W_]*)*)?$"
)
_WRAPPED_UNIT = re.compile(
    r"(?P<value>.*?[0-9}])[\s~]*\\(?:text|textrm|mathrm|mbox)\s*\{(?P<unit>[^{}]{1,40})\}"
    r"(?P<power>\^\s*\{?[0-9]\}?)?"
)
_LONG_DIGITS = re.compile(r"[0-9]{101}")
_BIG_EXPONENT = re.compile(r"(?:\^|\*\*)\s*[{(]?\s*[+-]?\s*[0-9]{4}")
_TOWER = re.compile(r"(?:\^|\*\*)\s*(?:[{(][^{}()]*(?:\^|\*\*)|[^{}()\s+*/-]+\s*(?:\^|\*\*))")
_COMPOUND_EXPONENT = re.compile(r"(?:\^|\*\*)\s*[{(][^{}()]*[{(]")
_BIG_FACTORIAL = re.compile(r"(?:[0-9]{4}|[)}\]!])\s*!")
_HEAVY = re.compile(r"\\(?:sum|prod|int|iint|oint|lim|det|binom|dbinom|tbinom|mod|pmod|bmod)")
_BIG_NUMBER = re.compile(r"[0-9]{4}")
_MATRIX_CELLS_MAX = 40


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
    plain = _SPACING.sub(" ", plain.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac"))
    wrapped = _WRAPPED_UNIT.fullmatch(plain)
    plain = _WRAPPER.sub(r" \1", plain).strip()
    plain = " ".join(plain.rstrip(".").split())
    value = plain_number(plain)
    if value is not None:
        return _Term(raw, plain, value, "")
    if not _ALTERNATIVES.search(plain):
        value, unit = _quantity(plain, wrapped)
        if value is not None:
            return _Term(raw, plain, Fraction(value) / 100 if unit == "%" else value, unit)
    return _Term(raw, plain, None, "")


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
        same = normalise_text(reference.plain, True) == normalise_text(answer.plain, True)
        return same, "compared as words"
    if ":" in reference.plain or ":" in answer.plain:
        return False, "compared as text"  # 12:30 is a time or a ratio, not 12/30
    if _ALTERNATIVES.search(answer.plain) and not _ALTERNATIVES.search(reference.plain):
        return False, "several alternatives"
    answer, reference = _same_sided(answer, reference)
    if reference.value is not None and answer.value is not None:
        return _same_quantity(reference, answer), "compared as numbers"
    refusal = _refusal(answer.plain) or _refusal(reference.plain)
    if refusal:
        return False, refusal
    return _equal_formulas(reference.plain, answer.plain), "compared as formulas"


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


def _refusal(plain: str) -> str:
    """Why a formula is not given to sympy, or an empty text. Cheap, and meant to be strict."""
    if len(plain) > FORMULA_CHARS_MAX:
        return f"too long: {len(plain)} characters, at most {FORMULA_CHARS_MAX} are parsed"
    depth = deepest = 0
    for char in plain:
        if char in "{([":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "})]":
            depth -= 1
    if deepest > FORMULA_DEPTH_MAX:
        return f"too deep: nested {deepest} times, at most {FORMULA_DEPTH_MAX} are parsed"
    if _LONG_DIGITS.search(plain):
        return "too many digits: more than 100 in a row"
    if _BIG_EXPONENT.search(plain) or _TOWER.search(plain) or _COMPOUND_EXPONENT.search(plain):
        return f"too large an exponent: more than {EXPONENT_MAX - 1}, or a power of a power"
    if _BIG_FACTORIAL.search(plain):
        return "too large a factorial"
    if _HEAVY.search(plain) and _BIG_NUMBER.search(plain):
        return "too heavy: a sum, product or integral with large numbers"
    if plain.count("&") > _MATRIX_CELLS_MAX or plain.count(",") > 2 * _MATRIX_CELLS_MAX:
        return "too many parts"
    return ""


@lru_cache(maxsize=8192)
def _equal_formulas(reference: str, answer: str) -> bool:
    """Whether math-verify finds the two equal; only for what `_refusal` lets pass."""
    from math_verify import LatexExtractionConfig, parse, verify

    for name in ("math_verify.parser", "math_verify.grader"):
        # It logs a warning whenever its own time limits are off. They work by signals, hence in
        # the main thread only; ours is the killable worker.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    config = (LatexExtractionConfig(boxed_match_priority=0),)
    left, right = (
        parse(f"\\boxed{{{text}}}", extraction_config=config, parsing_timeout=0)
        for text in (reference, answer)
    )
    return bool(left and right) and bool(verify(left, right, timeout_seconds=0))
