"""Text in ASCII, as the package Unidecode writes it."""

from __future__ import annotations

import unicodedata

from verifiers.megabench.registry import Unscored

_RUSSIAN = (
    "a b v g d e zh z i i k l m n o p r s t u f kh ts ch sh shch ' y ' e iu ia"  # from а to я
)
_GREEK = "a b g d e z e th i k l m n x o p r s s t u ph kh ps o"  # from α to ω


def _alphabet(first: str, spellings: str) -> dict[str, str]:
    small = {chr(ord(first) + at): spelled for at, spelled in enumerate(spellings.split())}
    capital = {letter.upper(): spelled.capitalize() for letter, spelled in small.items()}
    return small | capital


_SPELLED = {
    **_alphabet("а", _RUSSIAN),
    **_alphabet("α", _GREEK),
    **{"ё": "io", "Ё": "Io", "Ξ": "Ks"},
    **{"Æ": "AE", "æ": "ae", "Œ": "OE", "œ": "oe", "Ø": "O", "ø": "o", "Ð": "D", "ð": "d"},
    **{"Þ": "Th", "þ": "th", "Ł": "L", "ł": "l", "Đ": "D", "đ": "d", "ı": "i", "ß": "ss"},
    **{"‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "--", "―": "--", "−": "-"},
    **{"‘": "'", "’": "'", "‚": ",", "‛": "'", "“": '"', "”": '"', "„": ",,"},
    **{"‟": '"', "′": "'", "″": "''", "‹": "<", "›": ">", "«": "<<", "»": ">>"},
    **{"•": "*", "·": "*", "°": "deg", "×": "x", "÷": "/", "±": "+-"},
    **{"¡": "!", "¿": "?", "§": "SS", "¶": "P", "©": "(c)", "®": "(r)"},
    **{"¼": " 1/4", "½": " 1/2", "¾": " 3/4", "µ": "u", "´": "'", "¨": '"', "¸": ",", "¯": "-"},
    **{"…": "...", "™": "TM", "№": "No", "\u200b": " ", "\u200c": "", "\u200d": "", "\ufeff": ""},
    **{"€": "EUR", "£": "PS", "¥": "Y=", "¢": "C/"},
    **{"、": ", ", "。": ". ", "，": ",", "？": "?", "！": "!", "：": ":", "；": ";"},
}
_ACCENTS = frozenset(map(chr, range(0x300, 0x363)))
_LAST_SIMPLE = "\uffff"
_EMOJI_FROM, _EMOJI_TO = 0x1F300, 0x1F64F


def to_ascii(text: str) -> str:
    """A text with each character beyond ASCII spelled in ASCII.

    Without the package Unidecode only Latin, Greek and Russian letters, common punctuation and
    emoji, which are spelled as nothing.

    Raises: Unscored for other characters.
    """
    if text.isascii():
        return text
    try:
        from unidecode import unidecode  # pyright: ignore
    except ImportError:
        return "".join(map(_spelled, text))
    return str(unidecode(text))  # pyright: ignore


def _spelled(character: str) -> str:
    if character.isascii():
        return character
    if character in _SPELLED:
        return _SPELLED[character]
    if _EMOJI_FROM <= ord(character) <= _EMOJI_TO or character in _ACCENTS:
        return ""
    plain = unicodedata.normalize("NFKD", character)
    spelled = "".join(part for part in plain if part.isascii())
    is_letter = spelled.isalnum() and all(part in _ACCENTS for part in plain[1:])
    is_simple = len(spelled) == 1 and plain[0].isascii() and character <= _LAST_SIMPLE
    if is_simple and (is_letter or plain == " "):
        return spelled
    raise Unscored(
        f"near_str_match of text with {character!r}: install Unidecode (pip install Unidecode)"
    )
