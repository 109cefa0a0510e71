"""The word lists behind constrained generation, each read from this folder on first use.

Where they come from and their terms: words_README.md.
"""

from __future__ import annotations

import json
import lzma
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

_SUFFIXES = (
    ("s", ""),
    ("ses", "s"),
    ("ves", "f"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
)
"""WordNet's endings of plural nouns and what stands there in the singular."""


class Nouns(NamedTuple):
    """What WordNet knows of nouns."""

    lemmas: frozenset[str]
    """Every single-word noun, in lower case."""
    exceptions: dict[str, tuple[str, ...]]
    """Irregular plural -> its singulars."""


class Punkt(NamedTuple):
    """What the Punkt sentence splitter learned from English text."""

    abbreviations: frozenset[str]
    """Without their last period, in lower case."""
    collocations: frozenset[tuple[str, str]]
    """Word before a period and word after it that belong together."""
    starters: frozenset[str]
    """Words that often start a sentence."""
    spellings: dict[str, int]
    """Word -> bits: where it was seen in which letter case (constrained_tokens.py)."""


def singular(word: str) -> str:
    """The shortest noun of WordNet that this lower-case word may be a form of, else the word."""
    lemmas, exceptions = nouns()
    forms = exceptions.get(word)
    if forms is None:
        forms = tuple(word[: -len(old)] + new for old, new in _SUFFIXES if word.endswith(old))
    known = [form for form in (word, *forms) if form in lemmas]
    return min(known, key=len) if known else word


@lru_cache(maxsize=1)
def nouns() -> Nouns:
    """WordNet's nouns."""
    listed, irregular = _read("words_nouns.xz").split("\n\n")
    exceptions = {
        plural: tuple(singulars)
        for plural, *singulars in (line.split() for line in irregular.splitlines())
    }
    return Nouns(frozenset(listed.split("\n")), exceptions)


@lru_cache(maxsize=1)
def pronunciations() -> dict[str, list[str]]:
    """Lower-case word -> its pronunciations in CMUdict, each as phones joined by spaces.

    A remark that follows the phones ("# place, danish") stays, as upstream keeps it.
    """
    found: dict[str, list[str]] = {}
    for line in _read("words_cmudict.xz").splitlines():
        word, phones = line.strip().split(" ", 1)
        found.setdefault(word.split("(", 1)[0].lower(), []).append(phones)
    return found


@lru_cache(maxsize=1)
def punkt() -> Punkt:
    """The parameters of the English sentence splitter."""
    raw: dict[str, Any] = json.loads(_read("words_punkt.xz"))
    return Punkt(
        frozenset(raw["abbreviations"]),
        frozenset((first, second) for first, second in raw["collocations"]),
        frozenset(raw["starters"]),
        raw["spellings"],
    )


def _read(name: str) -> str:
    return lzma.decompress((Path(__file__).parent / name).read_bytes()).decode()
