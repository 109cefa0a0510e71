r"""A reference in notation that `math_reader` does not know, worked out by sympy: `\sum`, `\int`.

Only references come here, once each. What a model writes never reaches sympy: no guard would bound
what it does with a large power or an integral.
"""

# math-verify and sympy are half typed.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
from __future__ import annotations

import logging
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from verifiers import math_node as m
from verifiers.math_node import FormulaError, Node

CHARS_MAX = 300
"""Longer references are not worked out."""
DEPTH_MAX = 12
"""Deepest nesting of brackets that is worked out."""

_STEPWISE = re.compile(
    r"\\(?:sum|prod|i{0,2}int|oint|lim|det|mod|pmod|bmod|begin\{vmatrix)(?![a-z])"
)
_THREE_DIGITS = re.compile(r"[0-9]{3}")
_TWO_DIGIT_EXPONENT = re.compile(r"(?:\^|\*\*)\s*[{(]?\s*[+-]?\s*[0-9]{2}")
_TOWER = re.compile(r"(?:\^|\*\*)\s*[{(][^A-Za-z}]*(?:\^|\*\*)")  # of numbers: 9^{9^9}


def refuse_formula(text: str) -> str:
    """Why a reference is not given to sympy, or an empty text. Cheap, and meant to be strict."""
    if len(text) > CHARS_MAX:
        return f"too long: {len(text)} characters, at most {CHARS_MAX} are worked out"
    depth = deepest = 0
    for char in text:
        depth += (char in "{([") - (char in "})]")
        deepest = max(deepest, depth)
    if deepest > DEPTH_MAX:
        return f"too deep: nested {deepest} times, at most {DEPTH_MAX} are worked out"
    if _THREE_DIGITS.search(text):
        return "too large a number: more than two digits"
    if _TWO_DIGIT_EXPONENT.search(text) or _TOWER.search(text):
        return "too large an exponent: more than one digit, or a power of a power"
    if "!" in text and "!" in text[text.index("!") + 1 :]:
        return "too many factorials: more than one"
    if len(_STEPWISE.findall(text)) > 1:
        return "too heavy: more than one sum, product, integral or limit"
    return ""


@lru_cache(maxsize=4096)
def worked_out(text: str) -> Node | None:
    """The formula that a reference comes to; None if it is refused or does not come to one."""
    if refuse_formula(text):
        return None
    from math_verify import LatexExtractionConfig, parse

    # It warns whenever its own time limits are off. They work by signals, hence in the main thread
    # only; ours is the killable worker.
    logging.getLogger("math_verify.parser").setLevel(logging.CRITICAL)
    config = (LatexExtractionConfig(boxed_match_priority=0),)
    try:
        found = parse(f"\\boxed{{{text}}}", extraction_config=config, parsing_timeout=0)
        return _node(found[0].doit()) if found and not isinstance(found[0], str) else None
    except (FormulaError, RecursionError, ValueError, ArithmeticError, TypeError, AttributeError):
        return None  # whatever so many layers trip over, it comes to nothing readable
    except NotImplementedError:
        return None  # sympy's word for what it cannot work out


def _node(found: Any) -> Node:
    """Sympy's expression as a tree of ours.

    Raises: FormulaError if it holds what has no place there.
    """
    from sympy import E, I, Symbol, oo, pi

    for constant, node in ((pi, _name("\\pi")), (E, _name("e")), (I, _name("i")), (oo, m.INFINITY)):
        if found == constant:
            return node
    if found.is_Rational:
        return m.number(Fraction(int(found.p), int(found.q)))
    if isinstance(found, Symbol):
        # It writes x_{1} as x_1 and \alpha as alpha.
        return _name(found.name if len(found.name.split("_")[0]) == 1 else f"\\{found.name}")
    parts = tuple(_node(part) for part in found.args)
    if found.is_Add or found.is_Mul:
        return m.add(parts) if found.is_Add else m.multiply(parts)
    if found.is_Pow:
        return m.power(*parts)
    function = _FUNCTIONS.get(type(found).__name__)
    if function is None or len(parts) != 1:
        raise FormulaError(f"a {type(found).__name__}")
    return m.power(_name("e"), parts[0]) if function == "exp" else m.call(function, parts[0])


def _name(name: str) -> Node:
    return Node("name", (), name)


_FUNCTIONS = {
    **{name: name for name in ("sin", "cos", "tan", "cot", "sec", "csc", "factorial", "exp")},
    **{name: name for name in ("sinh", "cosh", "tanh", "coth")},
    **{"log": "ln", "Abs": "abs", "floor": "floor", "ceiling": "ceil"},
    **{"asin": "arcsin", "acos": "arccos", "atan": "arctan", "acot": "arccot"},
}
