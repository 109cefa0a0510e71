"""Syllables, rhymes and meter of verse, by the pronunciations that CMUdict lists."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import combinations

from verifiers.megabench.constrained_words import pronunciations
from verifiers.megabench.registry import Mode

_REMOVED = str.maketrans(dict.fromkeys('.,!?:;"') | {"-": " ", "—": " "})
_LETTER_NOTE = re.compile(r" *\(\w\) *(?=\n|$)")
"""A letter of the rhyming scheme, noted at the end of a line."""

_IAMBIC = frozenset({(0, 0), (0, 1), (0, 2), (1, 1), (2, 1), (2, 2)})
"""Stresses that two syllables may have: 0 none, 1 primary, 2 secondary."""

_EXTRA = {
    "'gainst": ("G EH1 N S T", "G EY1 N S T"),
    "'midst": ("M IH1 D S T",),
    "'mongst": ("M AH1 NG S T",),
    "'neath": ("N IY1 TH",),
    "'twixt": ("T W IH1 K S T",),
    "beguiles": ("B IH0 G AY1 L Z",),
    "cerulean": ("S ER0 UW1 L IY0 AH0 N",),
    "doggo": ("D AO1 G OW0",),
    "downtorn": ("D AW1 N T AO2 R N",),
    "enthrall": ("EH0 N TH R AO1 L",),
    "fam'ly": ("F AE1 M L IY0",),
    "fiery": ("F AY1 ER0 IY0", "F AY1 R IY0"),
    "flits": ("F L IH1 T S",),
    "furred": ("F ER1 D",),
    "kneels": ("N IY1 L Z",),
    "o'er": ("OW1 ER0",),
    "orbs": ("AO1 R B Z",),
    "quenched": ("K W EH1 N CH D",),
    "quietude": ("K W AY1 AH0 T UW0 D",),
    "retold": ("R IY0 T OW1 L D",),
    "scurries": ("S K ER1 IY0 Z",),
    "sunbeams": ("S AH1 N B IY2 M Z",),
    "syncs": ("S IH1 NG K S",),
}
"""Words of verse that CMUdict lacks, as upstream lists them."""


def poem_lines(text: str) -> list[str]:
    """The lines in lower case, without punctuation and rhyme letters."""
    text = text.strip().translate(_REMOVED)
    return _LETTER_NOTE.sub("", text).lower().split("\n")


def keeps_syllables(lines: list[str], value: str, mode: Mode) -> bool:
    """Whether each line can be read with the number of syllables wanted of it."""
    del mode
    ranges = _syllable_ranges(value)
    return len(lines) == len(ranges) and all(
        any(low <= count <= high for count in _syllable_counts(line))
        for line, (low, high) in zip(lines, ranges, strict=True)
    )


def keeps_rhyme(lines: list[str], scheme: str, mode: Mode) -> bool:
    """Whether lines of one letter rhyme and lines of two letters do not; a space is a blank line.

    Raises: IndexError at a line of spaces.
    """
    if len(lines) != len(scheme):
        return False
    if mode == "sound":
        lines = [line.strip() for line in lines]
    words: dict[str, set[str]] = {}
    for letter, line in zip(scheme, lines, strict=True):
        word = line.split()[-1] if line else ""
        if letter != " ":
            words.setdefault(letter, set()).add(word)
        elif word:
            return False
    endings = [_shared_endings(group) for group in words.values()]
    return all(endings) and not any(one & other for one, other in combinations(endings, 2))


def _shared_endings(words: set[str]) -> frozenset[str]:
    first, *others = (_endings(word) for word in words)
    return first.intersection(*others)


def keeps_meter(lines: list[str], value: str, mode: Mode) -> bool:
    """Whether each line can be read as iambic; the value does not matter.

    Raises: IndexError at a word without a vowel (`hmm`) after an odd syllable.
    """
    del value
    return all(_is_iambic(line, mode) for line in lines)


def _syllable_ranges(value: str) -> list[tuple[int, int]]:
    """`[7,10][5]7 5`: ranges, single numbers, and a space for a blank line."""
    ranges: list[tuple[int, int]] = []
    for chunk in re.findall(r"\[\d+(?:,\s*\d+)?\]|\d| ", value.strip()):
        numbers = [int(number) for number in chunk.strip("[] ").split(",") if number]
        ranges.append((numbers[0], numbers[-1]) if numbers else (0, 0))
    return ranges


def _syllable_counts(line: str) -> set[int]:
    """Every number of syllables that some choice of pronunciations gives; none: a word unknown."""
    counts = {0}
    for word in line.split():
        options = {len(pattern) for pattern in _stresses(word)}
        counts = {count + more for count in counts for more in options}
    return counts


def _is_iambic(line: str, mode: Mode) -> bool:
    """Whether the syllables fall into iambic pairs for some choice of pronunciations."""
    states = {-1}  # stress of the syllable that waits for its partner; -1: none waits
    for word in line.split():
        patterns = _stresses(word)
        if mode == "compat" and () in patterns and states - {-1}:
            raise IndexError(f"{word!r} has no vowel")
        states = {
            after
            for pattern in patterns
            for waiting in states
            if (after := _read_on(waiting, pattern)) is not None
        }
    return -1 in states


def _read_on(waiting: int, pattern: tuple[int, ...]) -> int | None:
    """The syllable that waits after one more word; None if some pair is not iambic."""
    for stress in pattern:
        if waiting < 0:
            waiting = stress
        elif (waiting, stress) in _IAMBIC:
            waiting = -1
        else:
            return None
    return waiting


@lru_cache(maxsize=4096)
def _stresses(word: str) -> frozenset[tuple[int, ...]]:
    """Stress per syllable, for each pronunciation."""
    return frozenset(
        tuple(int(mark) for mark in phones if mark in "012") for phones in _phones(word)
    )


@lru_cache(maxsize=4096)
def _endings(word: str) -> frozenset[str]:
    """What rhymes: the last vowel and all after it, without stress, for each pronunciation."""
    return frozenset(_ending(phones) for phones in _phones(word))


def _ending(phones: str) -> str:
    parts = phones.split()
    vowels = [index for index, phone in enumerate(parts) if phone[-1] in "012" and index]
    kept = " ".join(parts[vowels[-1] :]) if vowels else phones
    return re.sub(r"\d", "", kept)


def _phones(word: str) -> list[str]:
    """Pronunciations of a word; of one that CMUdict lacks, guesses from its stem. May be empty."""
    word = word.replace("’", "'").lower()
    owner = word.endswith("'s")
    word = word.removesuffix("'s")
    known = _EXTRA.get(word) or pronunciations().get(word, ())
    if known or owner:
        return [phones + " Z" if owner else phones for phones in known]
    return _guessed_phones(word)


def _guessed_phones(word: str) -> list[str]:
    listed = pronunciations()
    prefix, dropped, suffixes = "", "", ("",)
    if word.endswith("ed"):
        word, suffixes = word.removesuffix("ed"), (" D", " T", " AH0 D", " IH0 D")
    elif word.endswith("s") and word.removesuffix("s") in listed:
        # bustle-s has two syllables, pierce-s too, though pierce has one
        suffixes = (" S", " Z", " AH0 Z", " IH0 Z") if word.endswith("es") else (" S", " Z")
        word = word.removesuffix("s")
    elif word.endswith("es"):
        word, suffixes = word.removesuffix("es"), (" AH0 Z", " IH0 Z")
    if word.startswith("un"):
        word, prefix = word.removeprefix("un"), "AH0 N "
    elif word.startswith("'") and "a" + word.removeprefix("'") in listed:
        word, dropped = "a" + word.removeprefix("'"), "AH0 "
    return [
        (prefix + phones + suffix).removeprefix(dropped)
        for phones in listed.get(word, ())
        for suffix in suffixes
    ]
