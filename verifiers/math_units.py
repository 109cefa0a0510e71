r"""Units of measure and money after a number: `5\text{ cm}^2`, `\$5`, `3 apples`, `2 million`."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SYNONYMS = """
mm millimeter millimetre | cm centimeter centimetre | m meter metre | km kilometer kilometre
nm nanometer nanometre | in inch inche | ft foot feet | yd yard | mi mile | g gram gramme
kg kilogram kilogramme | mg milligram | lb lbs pound | oz ounce | t ton tonne | s sec second
min minute | h hr hour | day | week | month | year yr | ms millisecond | L l liter litre
mL ml milliliter millilitre | mol mole | N newton | J joule | kJ kilojoule | W watt | kW kilowatt
V volt | A ampere amp | Pa pascal | kPa kilopascal | Hz hertz | kHz kilohertz | K kelvin
rad radian | degree deg | % percent pct | dollar usd | cent | eur euro | gbp | unit | cal calorie
kcal | kmph kph | mph | ohm | bit | byte | sq square | cu cubic | °C celsius | °F fahrenheit
person people | atm | eV
"""
_CANONICAL = {
    word: group.split()[0]
    for group in _SYNONYMS.replace("\n", " | ").split("|")
    for word in group.split()
}
_SINGLE = "mgslLhNJWVAKCFTt"
_SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
# Words after a number that make it another one, or no answer.
_NO_UNITS = frozenset(
    (
        *("or", "and", "not", "to", "but", "maybe", "perhaps", "possibly", "than", "about", "if"),
        *("approximately", "is", "are", "was", "otherwise", "nor", "either", "both", "except"),
        *("unless", "plus", "minus", "times", "more", "less", "half", "over", "point", "squared"),
        *("cubed", "root", "factorial", "tenth", "hundredth", "thousandth", "millionth"),
    )
)
_ATOM = rf"(?:[^\W\d_]{{2,}}|(?<=[ /*.])[{_SINGLE}]|%|°[CF]?)"
_POWER = r"(?:\^?\{?-?[1-3]\}?)?"
_MARK = r"(?: ?[/*] ?| ?\\cdot | )"
UNIT = rf"{_ATOM}{_POWER}(?:{_MARK}{_ATOM}{_POWER}){{0,4}}"
_PARTS = re.compile(r"([^\W\d_]+|%|°[CF]?)(?:\^?\{?(-?[1-3])\}?)?|(/)|[ *]|\\cdot ")


def read_unit(text: str) -> tuple[str, int] | None:
    """(canonical unit, factor) of the words after a number; None if they are no unit.

    `square centimeters` and `cm^2` are one unit; `million dollars` is dollars, times a million.
    """
    powers: dict[str, int] = {}
    factor, sign, squared = 1, 1, 1
    for found in _PARTS.finditer(text):
        word, power = found[1], found[2]
        if found[3] or (word or "").casefold() == "per":
            sign = -1
        elif word:
            atom = canonical(word)
            if atom in _NO_UNITS:
                return None
            if atom in _SCALES and not powers:
                factor *= _SCALES[atom]
            elif atom in ("sq", "cu"):
                squared = 2 if atom == "sq" else 3
            else:
                powers[atom] = powers.get(atom, 0) + sign * squared * int(power or 1)
                squared = 1
    return _written(powers), factor


def is_known(text: str) -> bool:
    """Whether every word of a unit is in the table."""
    words = [found[1] for found in _PARTS.finditer(text) if found[1]]
    known = frozenset(_CANONICAL.values())
    return bool(words) and all(canonical(word) in known or word == "per" for word in words)


def canonical(word: str) -> str:
    """The one name of a unit's spellings: `Centimetres` is `cm`; other words in small letters."""
    if word in _CANONICAL:
        return _CANONICAL[word]
    small = word.casefold()
    for spelling in (small, small.removesuffix("s")):
        if spelling in _CANONICAL and len(spelling) > 1:
            return _CANONICAL[spelling]
    return small.removesuffix("s") if len(small) > 3 else small


def _written(powers: Mapping[str, int]) -> str:
    return " ".join(f"{atom}^{power}" for atom, power in sorted(powers.items()) if power)
