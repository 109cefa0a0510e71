"""Whether two LaTeX formulas are equal: math-verify, behind guards and a numeric probe."""

# math-verify and sympy are half typed.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
from __future__ import annotations

import logging
import re
from functools import lru_cache

FORMULA_CHARS_MAX = 600
"""Longer answers are compared as text only."""
FORMULA_DEPTH_MAX = 24
"""Deepest nesting of brackets that is parsed."""
EXPONENT_MAX = 1000
"""Largest exponent that is parsed."""

_RELATIVE_GAP_MAX = 1e-5
_PROBE_DIGITS = 20
_LONG_DIGITS = re.compile(r"[0-9]{101}")
_BIG_EXPONENT = re.compile(r"(?:\^|\*\*)\s*[{(]?\s*[+-]?\s*[0-9]{4}")
_TOWER = re.compile(r"(?:\^|\*\*)\s*(?:[{(][^{}()]*(?:\^|\*\*)|[^{}()\s+*/-]+\s*(?:\^|\*\*))")
_COMPOUND_EXPONENT = re.compile(r"(?:\^|\*\*)\s*[{(][^{}()]*[{(]")
_BIG_FACTORIAL = re.compile(r"(?:[0-9]{4}|[)}\]!])\s*!")
_HEAVY = re.compile(r"\\(?:sum|prod|int|iint|oint|lim|det|binom|dbinom|tbinom|mod|pmod|bmod)")
_BIG_NUMBER = re.compile(r"[0-9]{4}")
_MATRIX_CELLS_MAX = 40


def refuse_formula(plain: str) -> str:
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
def equal_formulas(reference: str, answer: str) -> bool:
    """Whether the two are equal; only for what `refuse_formula` lets pass.

    math-verify rounds to six places, so to it 1/2^99 is 1/2^98, and it expands what need not be
    expanded. Two expressions that differ at a probe point are therefore settled before it.
    """
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
    if not left or not right:
        return False
    if "%" not in reference and "%" not in answer and _differ(left[0], right[0]):
        return False
    return bool(verify(left, right, timeout_seconds=0))


def _differ(left: object, right: object) -> bool:
    """Whether two expressions have clearly different values; False if that cannot be told."""
    from sympy import Abs, Expr, Float, N

    if not (isinstance(left, Expr) and isinstance(right, Expr)):
        return False
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    for shift in (0.137, 0.291):
        point = {
            symbol: Float(shift + 0.619 * index, _PROBE_DIGITS)
            for index, symbol in enumerate(symbols, start=1)
        }
        try:
            # sympy's numbers, not floats: values such as 7^999 are far outside a float's range.
            a, b = (N(side.xreplace(point), _PROBE_DIGITS) for side in (left, right))
            gap, size = N(Abs(a - b)), N(Abs(a) + Abs(b))
            if gap.is_finite and size.is_finite and bool(gap > _RELATIVE_GAP_MAX * size):
                return True
        except (TypeError, ValueError, ArithmeticError, AttributeError, RecursionError):
            return False  # no number at this point: infinite, undefined or not a number
    return False
