r"""One answer or reference as far as text goes: its number, its unit, and the formula between."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from verifiers.math_text import loosened, undressed, unwrapped
from verifiers.math_units import UNIT, is_known, read_unit
from verifiers.numerals import Number, plain_number

TERM_CHARS_MAX = 2000
"""Longer texts are compared as they are."""

_QUANTITY_CHARS_MAX = 200
_WRAPPED_UNIT = re.compile(
    r"(?P<body>.*[^\s~])[\s~]*\\(?:text|textrm|textbf|textit|mathrm|mathit|mbox|operatorname)\s*"
    r"\{(?P<unit>[^{}]{1,60})\}\s*(?P<power>\^\s*\{?-?[1-3]\}?)?\s*\.?",
    re.DOTALL,
)
_MONEY = re.compile(r"(?P<sign>[+-]?)\s*(?P<money>\\dollar|[€£¥₹])\s*(?P<rest>.*)", re.DOTALL)
_MONEY_NAMES = {"\\dollar": "dollar^1", "€": "eur^1", "£": "gbp^1", "¥": "yen^1", "₹": "inr^1"}
_MONEY_AFTER = re.compile(r"(?P<body>.*[0-9])\s*(?P<money>\\dollar|[€£¥₹])", re.DOTALL)
_NUMBER_WITH_UNIT = re.compile(rf"(?P<value>.*?[0-9}}.)])(?P<gap> ?)(?P<unit>{UNIT})\.?", re.DOTALL)
_FORMULA_WITH_UNIT = re.compile(rf"(?P<body>.*?\S) (?P<unit>{UNIT})\.?", re.DOTALL)
_TWO_LETTERS = re.compile(r"[^\W\d_]{2}")
_THREE_LETTERS = re.compile(r"[^\W\d_]{3}")
_DEGREES = re.compile(r"(?P<body>[^°]+?) ?°", re.DOTALL)
_FUNCTION = re.compile(r"(?:sin|cos|tan|cot|sec|csc)(?![a-z])")


class Term(NamedTuple):
    """An answer, as far as it can be read without its formula."""

    raw: str
    plain: str
    r"""One line without `\left`, `\text{}`, dollar signs and the final full stop."""
    body: str
    """`plain` without its unit."""
    value: Number | None = None
    """Its number, if it is one; a percentage is divided by 100."""
    unit: str = ""
    """Its unit in one spelling, `cm^2` and `dollar^1`; `%^1` for a percentage; empty if none."""


def read_term(raw: str) -> Term:
    """The term that a text is; for the longest texts, no more than the text."""
    value = plain_number(raw)
    if value is not None:
        return Term(raw, raw, raw, value)
    if len(raw) <= TERM_CHARS_MAX:
        return _read_short(raw)
    plain = " ".join(raw.split())
    return Term(raw, plain, plain)


@lru_cache(maxsize=4096)
def _read_short(raw: str) -> Term:
    text = loosened(undressed(raw))
    plain = unwrapped(text)
    value = plain_number(plain)
    if value is not None:
        return Term(raw, plain, plain, value)
    quantity = None
    if len(plain) <= _QUANTITY_CHARS_MAX:
        quantity = _wrapped(text) or _money(plain) or _measured(plain)
    if quantity is None:
        return Term(raw, plain, plain)
    body, value, unit = quantity
    if unit == "%^1" and value is not None:
        value = Fraction(value) / 100
    return Term(raw, plain, body, value, unit)


_Quantity = tuple[str, Number | None, str]


def _wrapped(text: str) -> _Quantity | None:
    r"""`5\text{ m}`: any words after a number, a unit of the table after a formula."""
    found = _WRAPPED_UNIT.fullmatch(text)
    if not found or found["body"].endswith((r"\cdot", r"\times", "/", "*")):
        return None
    power = (found["power"] or "").replace(" ", "")
    return _quantity(unwrapped(found["body"]), unwrapped(found["unit"]) + power)


def _money(plain: str) -> _Quantity | None:
    found = _MONEY.fullmatch(plain)
    if found:
        body, unit = found["sign"] + found["rest"], _MONEY_NAMES[found["money"]]
        measured = _measured(body)  # a million, or a rate
        if measured is not None:
            return measured[0], measured[1], f"{unit} {measured[2]}".strip()
        return body, plain_number(body), unit
    found = _MONEY_AFTER.fullmatch(plain)
    if not found:
        return None
    return found["body"], plain_number(found["body"]), _MONEY_NAMES[found["money"]]


def _measured(plain: str) -> _Quantity | None:
    """A number or formula with a unit after it that is not wrapped."""
    if (found := _DEGREES.fullmatch(plain)) and not _FUNCTION.search(plain):
        return found["body"], plain_number(found["body"]), "degree^1"
    found = _NUMBER_WITH_UNIT.fullmatch(plain)
    if found and plain_number(found["value"]) is not None:
        unit = found["unit"]
        # 2ab is a product, and so may 2 ab be.
        if (found["gap"] and _THREE_LETTERS.search(unit)) or is_known(unit):
            return _quantity(found["value"], unit)
        return None
    found = _FORMULA_WITH_UNIT.fullmatch(plain)
    if found and ("\\" in found["body"] or any(map(str.isdigit, found["body"]))):
        unit = found["unit"]
        # Single letters after a formula are factors.
        return _quantity(found["body"], unit) if _TWO_LETTERS.search(unit) else None
    return None


def _quantity(body: str, words: str) -> _Quantity | None:
    unit = read_unit(words)
    if unit is None:
        return None
    value = plain_number(body)
    if value is not None:
        return body, value * unit[1], unit[0]
    return (body, None, unit[0]) if is_known(words) and "%" not in words else None
