r"""Numbers as people write them: `-1,234.50`, `3/4`, `2\frac{1}{2}`, `2.5e3`, `twenty-one`."""

from __future__ import annotations

import re
from fractions import Fraction

Number = int | Fraction

_DIGITS_MAX = 400
_EXPONENT_MAX = 400

_INTEGER = re.compile(r"[+-]?[0-9]{1,400}")
_DECIMAL = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?:\.(?P<fraction>[0-9]*))?"
    r"(?:[eE](?P<exponent>[+-]?[0-9]{1,4}))?"
)
_SLASH = re.compile(r"([+-]?)([0-9]{1,60})\s*/\s*([0-9]{1,60})")
_FRAC = re.compile(
    r"([+-]?)([0-9]{1,30})?\\[dt]?frac(?:\{([+-]?[0-9]{1,60})\}\{([0-9]{1,60})\}|([0-9])([0-9]))"
)
_POWER = re.compile(
    r"(?:([+-]?[0-9]{1,60}(?:\.[0-9]{1,60})?)(?:\\times|\\cdot|\*|×))?"
    r"([+-]?[0-9]{1,6})(?:\^|\*\*)(?:\{([+-]?[0-9]{1,3})\}|([0-9]))"
)
_THIN_SPACE = re.compile(r"(?<=[0-9])(?:\\[,!]|\{,\}|[\u00a0\u2009\u202f ])(?=[0-9]{3}(?![0-9]))")

_REPEATING = re.compile(
    r"([+-]?)([0-9]{0,60})\.([0-9]{0,60})\\(?:overline|dot|bar)\{([0-9]{1,60})\}"
)

_TENS = {
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
}
_WORDS = _TENS | {
    "zero": 0,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
    "thirteen": 13,
    "fourteen": 14,
    "fifteen": 15,
    "sixteen": 16,
    "seventeen": 17,
    "eighteen": 18,
    "nineteen": 19,
}
_WORD_CHARS_MAX = 60


def plain_number(text: str) -> Number | None:
    """The exact value of a written number, or None if the text is anything else.

    Takes integers, thousands separators, decimals, scientific notation, simple and mixed
    fractions, and powers with small exponents. No ranges, units, signs of currency or words.
    """
    if _INTEGER.fullmatch(text):
        return int(text)
    text = text.strip()
    if not text or len(text) > _DIGITS_MAX or text.isalpha():
        return None
    if not text.isascii():
        text = text.replace("\u2212", "-")
        if not text.isascii() and not _THIN_SPACE.search(text):
            return None
    if not text.isalnum():
        text = _THIN_SPACE.sub("", text)
    return _decimal(text) if "\\" not in text and "^" not in text else _latex_number(text)


def number_word(text: str) -> int | None:
    """The value of an English number word from zero to 9,999, or None."""
    if len(text) > _WORD_CHARS_MAX:
        return None
    words = text.casefold().replace("-", " ").split()
    if not words:
        return None
    total = current = 0
    last = ""
    for word in words:
        if word == "and" and last in ("hundred", "thousand"):
            pass
        elif word == "hundred" and 0 < current < 10:
            current *= 100
        elif word == "thousand" and 0 < current < 10 and total == 0:
            total, current = current * 1000, 0
        elif word in _WORDS and _may_follow(_WORDS[word], current, last):
            current += _WORDS[word]
        elif word in ("a", "an") and not last and len(words) > 1:
            current = 1
        else:
            return None
        last = word
    return None if last == "and" else total + current


def _may_follow(value: int, current: int, last: str) -> bool:
    """Whether a word worth `value` may continue a number that stands at `current`."""
    if not last or last in ("hundred", "thousand", "and"):
        return current % 100 == 0 and (value > 0 or not last)
    return last in _TENS and 0 < value < 10


def _decimal(text: str) -> Number | None:
    found = _DECIMAL.fullmatch(text)
    if not found:
        return _slash(text)
    whole, fraction = found["whole"].replace(",", ""), found["fraction"] or ""
    if not whole and not fraction:
        return None
    exponent = int(found["exponent"] or 0)
    if abs(exponent) > _EXPONENT_MAX:
        return None
    digits = int(found["sign"] + whole + fraction)
    shift = exponent - len(fraction)
    if shift >= 0:
        return digits * 10**shift
    value = Fraction(digits, 10**-shift)
    return value.numerator if value.denominator == 1 else value


def _slash(text: str) -> Number | None:
    found = _SLASH.fullmatch(text)
    if not found or int(found[3]) == 0:
        return None
    value = Fraction(int(found[2]), int(found[3]))
    return -value if found[1] == "-" else value


def _latex_number(text: str) -> Number | None:
    text = re.sub(r"\s+", "", text)
    if found := _FRAC.fullmatch(text):
        numerator, denominator = int(found[3] or found[5]), int(found[4] or found[6])
        if denominator == 0 or (found[2] and numerator < 0):
            return None
        value = Fraction(numerator, denominator) + int(found[2] or 0)
        return -value if found[1] == "-" else value
    if found := _POWER.fullmatch(text):
        base, exponent = int(found[2]), int(found[3] or found[4])
        if base == 0 and exponent <= 0:
            return None
        factor = _decimal(found[1]) if found[1] else 1
        power = Fraction(base) ** exponent
        if found[1] is None and found[2].startswith("-"):  # -2^2 is -(2^2)
            power = -(Fraction(-base) ** exponent)
        return None if factor is None else factor * power
    if found := _REPEATING.fullmatch(text):
        places, period = len(found[3]), len(found[4])
        value = Fraction(int(found[2] + found[3] + found[4]) - int(found[2] + found[3] or 0), 1)
        value /= (10**period - 1) * 10**places
        return -value if found[1] == "-" else value
    return None
