"""Constrained generation: does a text keep every constraint that its task names?"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from verifiers.megabench.constrained_contain import keeps_contain
from verifiers.megabench.constrained_poem import (
    keeps_meter,
    keeps_rhyme,
    keeps_syllables,
    poem_lines,
)
from verifiers.megabench.convert import metric
from verifiers.megabench.registry import Mode, Scored

_POEM_RULES: dict[str, Callable[[list[str], str, Mode], bool]] = {
    "syllables": keeps_syllables,
    "rhyming_scheme": keeps_rhyme,
    "poetry_meter": keeps_meter,
}


@metric  # pyright: ignore[reportArgumentType]  # a score with what there is to say
def constrained_generation(
    prediction: str, eval_context: dict[str, Any], mode: Mode
) -> float | Scored:
    """1 if the whole reply keeps all constraints, else 0; info says it of each.

    A constraint that cannot be evaluated (a malformed value, a doubled space in an alliteration)
    ends upstream's run; here the whole query scores 0.
    """
    kept = {
        name: int(_keeps(prediction, name, value, mode)) for name, value in eval_context.items()
    }
    return Scored(min(kept.values()), "\t".join(f"{name}: {ok}" for name, ok in kept.items()))


def _keeps(text: str, name: str, value: str, mode: Mode) -> bool:
    """Whether the text keeps one constraint; its kind is found in its name.

    Raises: anything, if the constraint or the text is of a form that upstream cannot handle.
    """
    if value.strip() == "":
        return True
    if "contain" in name:
        return keeps_contain(text, name, value, mode)
    if "length" in name:
        return _keeps_length(text, value)
    if "acrostic" in name:
        return _keeps_acrostic(text, value, "acrostic_alliteration" in name, mode)
    rule = _POEM_RULES.get(name)
    return rule is not None and rule(poem_lines(text), value, mode)


def _keeps_length(text: str, value: str) -> bool:
    """Whether the number of runs of word characters is below (`<n`) or above (`>n`) a bound."""
    try:
        bound = int(value[1:])
    except ValueError:
        return False
    num_words = len(re.findall(r"\b\w+\b", text))
    return (value[0] == "<" and num_words < bound) or (value[0] == ">" and num_words > bound)


def _keeps_acrostic(text: str, key: str, every_word: bool, mode: Mode) -> bool:
    """Whether each line, or each word of it, starts with its letter; a space is a blank line.

    Raises: IndexError at a doubled space where every word counts.
    """
    lines = text.replace("**", "").strip().lower().split("\n")
    if len(lines) != len(key):
        return False
    for line, letter in zip(lines, key.lower(), strict=False):
        line = line.strip()
        if letter == " ":
            if line:
                return False
            continue
        words = line.split() if mode == "sound" else line.split(" ")
        if not line or not all(word[0] == letter for word in (words if every_word else line[:1])):
            return False
    return True
