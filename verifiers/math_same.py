r"""Whether an answer is the same as its reference: as number, option, text or formula."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from verifiers.answer import reference_text
from verifiers.choice import read_choice
from verifiers.formula import worked_out
from verifiers.math_compare import same_formula
from verifiers.math_node import FormulaError, Node, divide, multiply, number
from verifiers.math_reader import Refusal, read_formula
from verifiers.math_term import Term, read_term
from verifiers.math_text import is_empty
from verifiers.math_value import has_value, is_defined, same_rounded
from verifiers.numerals import number_word
from verifiers.text import normalise_text
from verifiers.verdict import Status

_WORD = re.compile(r"[^\W\d_]{2}")
_LONG_WORD = re.compile(r"(?<!\\)(?<![A-Za-z])[^\W\d_]{4}")
_WORDS_ONLY = re.compile(r"[^\W\d_]+(?:[ '’.,&-]+[^\W\d_]+)*[.!?]?")
_OPTION = re.compile(r"[A-H]|\([A-Ha-h]\)|(?:\([A-H]\)|[A-H](?:[.:]|\))) .*", re.DOTALL)
# Telephone numbers, dates, versions, seats: 555-1234 is no subtraction, A1 is not 1A.
_CODE = re.compile(
    r"[0-9]+-[0-9]+|[0-9]+(?:[-.][0-9]+){2,}|[0-9]+(?:/[0-9]+){2,}|[0-9]+[A-Z]{2,}[A-Z0-9]*"
    r"|[A-Z]{2,}[A-Z0-9]*(?:[- .][A-Z0-9]+)*|[A-Za-z]+[0-9][A-Za-z0-9]*"
    r"|[A-Z][A-Za-z]*_[A-Za-z0-9_{}]*"
)
_SHORT = re.compile(r"[A-Za-z]{1,3}")
_OPERATOR = re.compile(r"[-+*/^=_\\]")
_UNDONE = re.compile(r"[+-]?[0-9.]+(?:[+*-][+-]?[0-9.]+)+")
_NOTATION = re.compile(r"\\[A-Za-z]")


@lru_cache(maxsize=16384)
def read_reference(ground_truth: str) -> Term | str:
    """The reference in a ground truth, or why there is none that answers can be judged by."""
    text = reference_text(ground_truth)
    if text.text is None:
        return f"reference {ground_truth[:80]!r} has no answer: {text.reason}"
    term = read_term(text.text)
    if is_empty(term.plain):
        return f"reference {ground_truth[:80]!r} has no readable text"
    if term.value is not None or _is_text(term.plain):
        return term
    node = read_formula(term.body)
    problem = ""
    if isinstance(node, Node):
        problem = "division by zero" if not is_defined(node) else ""
    elif _NOTATION.search(term.plain) and (node.kind == "value" or not _is_balanced(term.plain)):
        problem = node.reason
    return f"reference {ground_truth[:80]!r} cannot be read: {problem}" if problem else term


def _is_balanced(text: str) -> bool:
    """Whether as many braces open as close, escaped ones aside."""
    text = text.replace(r"\{", "").replace(r"\}", "")
    return text.count("{") == text.count("}")


class Found(NamedTuple):
    """Whether an answer equals its reference, and how that was found out."""

    is_same: bool
    how: str = ""
    status: Status = "ok"


# departs from V-Triune: its mathverify reads every answer as a formula, so that words are products
# of letters, dates and telephone numbers differences, and A1 is 1A; it drops units, and takes 50%
# for both 50 and 0.5.
@lru_cache(maxsize=4096)
def compare(reference: Term, answer: Term) -> Found:
    """Whether an answer is the same as the reference; `bad_reference` if that cannot be told."""
    if _squeezed(answer.plain) == _squeezed(reference.plain) and (
        answer.plain == reference.plain or not _is_phrase(reference.plain, answer.plain)
    ):
        return Found(True)
    if reference.value is not None and answer.value is not None:
        return Found(_same_quantity(reference, answer), "compared as numbers")
    option = read_choice(reference.plain) if _OPTION.fullmatch(reference.plain) else None
    if option is not None:
        return Found(_same_option(option, answer.plain), "compared as options")
    is_text = _is_text(reference.plain), _is_text(answer.plain)
    if all(is_text) or (any(is_text) and not _is_product(reference.plain, answer.plain)):
        return Found(_same_text(reference, answer), "compared as text")
    if reference.unit and answer.unit and reference.unit != answer.unit:
        return Found(False, f"{answer.unit} is not {reference.unit}")
    return _compare_formulas(reference, answer)


def _is_phrase(reference: str, answer: str) -> bool:
    """Whether blanks count, as in `New York`; in `x y` they do not."""
    return " " in reference + answer and _LONG_WORD.search(reference + " " + answer) is not None


def _squeezed(plain: str) -> str:
    return plain.replace(" ", "")


def _same_quantity(reference: Term, answer: Term) -> bool:
    assert reference.value is not None and answer.value is not None
    left, right = reference.value, answer.value
    if reference.unit and answer.unit and reference.unit != answer.unit:
        return False
    if reference.unit == "%^1" and not answer.unit and left * 100 == right:
        return True  # the reference says the unit, the answer may leave it out
    return left == right or same_rounded(left, right)


def _same_option(reference: tuple[str, str], answer: str) -> bool:
    """Whether an answer names the reference's option; its text, where both have it, must agree."""
    letter, text = reference
    named = read_choice(answer)
    if named is None:
        return bool(text) and _folded(text) == _folded(answer)
    return named[0] == letter and (not text or not named[1] or _folded(text) == _folded(named[1]))


def _is_text(plain: str) -> bool:
    """Whether a text is words, a code or a time, which are compared letter by letter.

    As a formula `listen` would be a product of letters and equal `silent`.
    """
    if ":" in plain:
        return True  # 12:30 is a time or a ratio, not 12/30
    if "\\" in plain:
        return False
    if len(plain) == 1:
        return plain.isupper()
    if _WORD.search(plain) and _WORDS_ONLY.fullmatch(plain):
        return True
    return _CODE.fullmatch(plain) is not None


def _is_product(reference: str, answer: str) -> bool:
    r"""Whether a few letters on one side may be the product on the other: `xy`, `x\cdot y`."""
    return any(
        _SHORT.fullmatch(a) is not None and _OPERATOR.search(b) is not None
        for a, b in ((reference, answer), (answer, reference))
    )


def _same_text(reference: Term, answer: Term) -> bool:
    if _folded(reference.plain) == _folded(answer.plain):
        return True
    for words, other in ((reference, answer), (answer, reference)):
        if other.value is not None:
            return number_word(words.plain) == other.value
    return False


def _folded(text: str) -> str:
    """The text without differences that do not count; the case of a single letter does."""
    is_word = _WORD.search(text) is not None
    plain = normalise_text(text, ignore_case=is_word).strip("*").strip()
    plain = plain.rstrip(".!?").rstrip() if is_word else plain.removesuffix(".")
    if ":" in plain or "_" in plain:
        return plain.translate(_NO_MARKS)
    return plain


def _compare_formulas(reference: Term, answer: Term) -> Found:
    left: Node | Refusal | None = read_formula(reference.body)
    if isinstance(left, Refusal):
        if _folded(reference.plain) == _folded(answer.plain):
            return Found(True, "compared as text")
        left = worked_out(reference.plain) if left.kind == "notation" else None
    if left is None:
        return Found(False, "compared as text")
    right = read_formula(answer.body)
    if isinstance(right, Refusal):
        same = _folded(reference.plain) == _folded(answer.plain)
        return Found(same, right.reason, "ok" if same else "unparseable")
    if reference.value is not None and _UNDONE.fullmatch(_arithmetic(answer.body)):
        return Found(False, "a sum or product that is not worked out")
    try:
        is_same = same_formula(left, right) or _same_angle(reference, answer, left, right)
    except FormulaError as error:
        if not has_value(left):
            reason = f"reference {reference.raw[:80]!r} cannot be worked out: {error}"
            return Found(False, reason, "bad_reference")
        return Found(False, str(error), "unparseable")
    return Found(is_same, "compared as formulas")


def _arithmetic(body: str) -> str:
    """The text with one sign for times and without spaces and brackets."""
    for times in ("\\cdot", "\\times"):
        body = body.replace(times, "*")
    return body.translate(_NO_BRACKETS)


_NO_MARKS = str.maketrans("", "", " _{}")
_NO_BRACKETS = str.maketrans("", "", " (){}")


def is_restated(reference: Term, answer: Term, question: str) -> bool:
    r"""Whether an answer that is no number stands in the question: "What is \sqrt{16}?"."""
    if reference.value is None or answer.value is not None or len(answer.body) < 3:
        return False
    return _squeezed(answer.body) in _squeezed(question)


def _same_angle(reference: Term, answer: Term, left: Node, right: Node) -> bool:
    r"""Whether degrees on one side are the radians, multiples of pi, on the other."""
    half_turn = divide(Node("name", (), "\\pi"), number(180))
    if reference.unit == "degree^1" and not answer.unit and "\\pi" in answer.body:
        return same_formula(multiply((left, half_turn)), right)
    if answer.unit == "degree^1" and not reference.unit and "\\pi" in reference.body:
        return same_formula(left, multiply((right, half_turn)))
    return False
