"""Judges choices: the letter, with or without its option's text, or the option's text itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import cast

from data_specs import Sample, shorten
from verifiers.answer import reference_text
from verifiers.iou_rule import ScoreContext
from verifiers.opening import open_answer, unusable_reference
from verifiers.params import ParamError, reject_unknown
from verifiers.text import bare_words, normalise_text
from verifiers.verdict import Verdict

VERSION = "2"

OPTIONS_MAX = 26
"""One letter each."""

_ANSWER_CHARS_MAX = 1000
_LETTER = re.compile(
    r"(?:(?:the |my )?(?:(?:correct|right|best|final) )?(?:answer|option|choice)(?: is)?(?:: ?| ))?"
    r"(?:(?:option|choice) )?"
    r"(?:\((?P<round>[a-z])\)|\[(?P<square>[a-z])\]|(?P<bare>[a-z])(?![a-z]))"
    r"(?P<mark>[.):,]| -)?(?: ?(?P<rest>.+))?",
    re.IGNORECASE,
)
# Text after the letter that names one more letter: `or C`, `C)`, `a dog (C)`.
_SECOND_LETTER = re.compile(
    r"^(?:or|and|/|&|,|;|\+)|^[(\[]?[a-z][)\]]?(?:[.):,]|$)|[(\[][a-z][)\]]|\b[a-z]\)",
    re.IGNORECASE,
)

Options = dict[str, str]
"""Letter to its option's text, as `bare_words` gives it."""


def read_choice(text: str) -> tuple[str, str] | None:
    """(letter, text after it) of an answer that names one option; None otherwise.

    `B`, `(B)`, `B.`, `B) a dog` and `option B` name B; `A or B` and `A dog` name nothing.
    """
    found = _letter(text)
    if found is None:
        return None
    letter, mark, rest = found
    if rest and (mark in ("", ",") or _SECOND_LETTER.search(rest)):
        return None
    return letter, rest


def check_params(params: Mapping[str, object]) -> None:
    """Raise ParamError if a parameter is wrong."""
    reject_unknown(params, ("options",))
    _options(params)


def judge(sample: Sample, response: str, context: ScoreContext) -> Verdict:
    """1 if the final answer names the reference's option and no other."""
    spec = sample.reward
    options = _options(spec.params) if spec.params else {}
    reference = reference_text(spec.ground_truth).text
    if not reference or len(reference) > _ANSWER_CHARS_MAX or not bare_words(reference):
        return unusable_reference(spec.ground_truth, _ANSWER_CHARS_MAX)
    if not options:
        options = _written_option(reference)
    wanted = _named(reference, options)
    if wanted is None:
        reason = f"reference {reference[:80]!r} names none of the options {', '.join(options)}"
        return Verdict.unscored(reason, status="bad_reference")
    opened = open_answer(response, spec.ground_truth, _ANSWER_CHARS_MAX)
    if isinstance(opened, Verdict):
        return opened
    named = _named(opened.text, options)
    if named == wanted:
        return Verdict.scored(1.0, format=opened.format)
    if named is None:
        reason = f"{opened.text[:80]!r} names no one option"
        return Verdict.scored(0.0, format=opened.format, reason=reason, status="unparseable")
    reason = f"{opened.text[:80]!r} is not {reference[:80]!r}"
    return Verdict.scored(0.0, format=opened.format, reason=reason)


def _letter(text: str) -> tuple[str, str, str] | None:
    """(letter, mark after it, rest) if the text starts with one letter or is one."""
    text = normalise_text(text).lstrip("*`\"'$ ").rstrip("*`\"'$ .")
    found = _LETTER.fullmatch(text)
    if not found:
        return None
    letter = found["round"] or found["square"] or found["bare"]
    mark = found["mark"] or ("" if found["bare"] else "()")
    return letter.upper(), mark, found["rest"] or ""


def _named(text: str, options: Options) -> str | None:
    """What an answer names: a letter, or, where no options are known, `=` and the words.

    None if it names nothing, two things, or a letter with another option's text.
    """
    plain = bare_words(text)
    if not options:
        choice = read_choice(text)
        return "=" + plain if choice is None else choice[0]
    found = _letter(text)
    letter, rest = (found[0], found[2]) if found and found[0] in options else ("", "")
    if letter and not rest:
        return letter
    same = [letter for letter, option in options.items() if option == plain != ""]
    if same:
        return same[0] if len(same) == 1 else None
    agrees = letter and options[letter] in ("", bare_words(rest))  # "": the option is a picture
    return letter if agrees else None


@lru_cache(maxsize=16384)
def _written_option(reference: str) -> Options:
    """The one option that a reference like `B) a dog` spells out; else none."""
    choice = read_choice(reference)
    return {choice[0]: bare_words(choice[1])} if choice and choice[1] else {}


def _options(params: Mapping[str, object]) -> Options:
    """Letter to option text, from a list of texts or a mapping."""
    value = params.get("options")
    if value is None:
        return {}
    if isinstance(value, list | tuple):
        items = cast("list[object]", value)
        pairs = tuple((chr(ord("A") + index), item) for index, item in enumerate(items))
    elif isinstance(value, dict):
        pairs = tuple(cast("dict[object, object]", value).items())
    else:
        pairs = ()
    named = [(key, text) for key, text in pairs if isinstance(key, str) and isinstance(text, str)]
    letters = {key.upper() for key, _ in named if len(key) == 1 and key.isascii() and key.isalpha()}
    if not 1 <= len(letters) == len(named) == len(pairs):
        raise ParamError(
            f"parameter options is {shorten(params['options'])}; allowed: a list of up to "
            f"{OPTIONS_MAX} texts, or letter to text"
        )
    return _plain_options(tuple(named))


@lru_cache(maxsize=4096)
def _plain_options(pairs: tuple[tuple[str, str], ...]) -> Options:
    """Options ready to compare; a letter that every text repeats (`A. a cat`) is left out."""
    texts = {key.upper(): text for key, text in pairs}
    split = {key: _letter(text) for key, text in texts.items()}
    if all(found and found[0] == key and found[1] and found[2] for key, found in split.items()):
        texts = {key: found[2] for key, found in split.items() if found}
    return {key: bare_words(text) for key, text in texts.items()}
