"""Whether a text contains given phrases, how often and in which sentence."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from verifiers.megabench.constrained_tokens import split_sentences, split_words
from verifiers.megabench.constrained_words import singular
from verifiers.megabench.convert import to_list
from verifiers.megabench.literals import python_literal
from verifiers.megabench.registry import Mode


class _Found(NamedTuple):
    sentence: int
    """From 1."""
    times: int


def keeps_contain(text: str, name: str, value: str, mode: Mode) -> bool:
    """Whether the text keeps a constraint such as `contain##position`: `[cat, kitten]##1`.

    Raises: ValueError, KeyError, TypeError or AttributeError if the constraint is malformed.
    """
    wanted = _parts(name, value)
    text = text.replace("**", "")  # marks of bold letters
    if "contain_only" in wanted:
        records: dict[Any, list[_Found]] = {}
        num_groups = 0
        for group in _phrase_groups(wanted["contain_only"], mode):
            if found := _find_any(text, group, mode):
                records[tuple(group)] = found
                num_groups += 1
        kept = num_groups == 1
        found = records.popitem()[1] if kept else []
    else:
        found = _find_any(text, to_list(wanted["contain"]), mode)
        kept = bool(found)
    if not kept:
        return False
    if "position_only" in wanted:
        if mode == "sound":
            return {one.sentence for one in found} == {wanted["position_only"]}
        # upstream: two phrases in one sentence are two finds, and fail
        return len(found) == 1 and found[0].sentence == wanted["position_only"]
    if "position" in wanted:
        kept = wanted["position"] in [one.sentence for one in found]
    if "times" in wanted:
        # upstream: the number of times alone decides, whatever the position
        right_times = sum(one.times for one in found) == wanted["times"]
        kept = right_times and (kept or mode == "compat")
    return kept


def _parts(name: str, value: str) -> dict[str, Any]:
    """Name and value part by part, `##` between; digits at the end of a name are ignored."""
    names = [re.sub(r"\d+$", "", part).lower() for part in name.strip().split("##")]
    values = [part.strip().strip('"').strip() for part in value.strip().split("##")]
    return {
        part: int(text) if text.isdigit() else text
        for part, text in zip(names, values, strict=True)
    }


def _phrase_groups(value: str, mode: Mode) -> Any:
    """`[[a], [b, c]]` as lists of texts; what cannot be read, as it is.

    upstream: every word is quoted by itself, so that `polar bear` becomes `polarbear`.
    """
    words = r"(\w+)" if mode == "compat" else r"([^\[\],\s](?:[^\[\],]*[^\[\],\s])?)"
    try:
        return python_literal(re.sub(words, r'"\1"', value))
    except (ValueError, SyntaxError):
        return value


def _find_any(text: str, phrases: Any, mode: Mode) -> list[_Found]:
    return [found for phrase in phrases for found in _find(text, phrase, mode)]


def _find(text: str, phrase: str, mode: Mode) -> list[_Found]:
    """Sentences that hold the phrase, both reduced to singular nouns in lower case."""
    wanted = _reduced(phrase)
    found: list[_Found] = []
    for number, sentence in enumerate(_reduced_sentences(text), 1):
        edge = " " if mode == "sound" else ""  # upstream: `cat` is found in `catalog`
        times = (edge + sentence + edge).count(edge + wanted + edge)
        if times:
            found.append(_Found(number, times))
    return found


@lru_cache(maxsize=16)
def _reduced_sentences(text: str) -> list[str]:
    return [_reduced(sentence) for sentence in split_sentences(text)]


@lru_cache(maxsize=256)
def _reduced(text: str) -> str:
    return " ".join(singular(word) for word in split_words(text.lower()))
