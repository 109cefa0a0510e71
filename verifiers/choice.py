"""Judges choices: the letter, with or without its option's text, or the option's text itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import cast

from data_specs import Sample
from verifiers.answer import extract_answer, form_score, reference_text
from verifiers.iou_rule import ScoreContext
from verifiers.params import ParamError, reject_unknown
from verifiers.text import normalise_text
from verifiers.verdict import Verdict

VERSION = "1"

_ANSWER_CHARS_MAX = 1000
_LETTER = re.compile(
    r"(?:(?:the )?(?:answer|option|choice)(?: is|:)? )?"
    r"(?:\((?P<round>[a-z])\)|\[(?P<square>[a-z])\]|(?P<bare>[a-z]))"
    r"(?:(?P<mark>[.):,]| -)?(?: (?P<rest>.+))?)?",
    re.IGNORECASE,
)
_SECOND_LETTER = re.compile(r"^(?:or|and|/|&|,|;)?\s*[(\[]?[a-z][)\]]?(?:[.):,]|$)", re.IGNORECASE)
_JOINED = re.compile(r"^(?:or|and|/|&|,|;)\b", re.IGNORECASE)


def read_choice(text: str) -> tuple[str, str] | None:
    """(letter, text after it) of an answer that names one option; None otherwise.

    `B`, `(B)`, `B.`, `B) a dog` and `option B` name B; `A or B` and `A dog` name nothing.
    """
    text = normalise_text(text).strip("*").strip()
    found = _LETTER.fullmatch(text)
    if not found:
        return None
    rest = found["rest"] or ""
    letter = found["round"] or found["square"] or found["bare"]
    if rest:
        if found["bare"] and not found["mark"]:
            return None
        if found["mark"] == "," or _SECOND_LETTER.match(rest) or _JOINED.match(rest):
            return None
    return letter.upper(), rest


def check_params(params: Mapping[str, object]) -> None:
    """Raise ParamError if a parameter is wrong."""
    reject_unknown(params, ("options",))
    _options(params)


def judge(sample: Sample, response: str, context: ScoreContext) -> Verdict:
    """1 if the final answer names the reference's option and no other."""
    spec = sample.reward
    options = _options(spec.params) if spec.params else {}
    reference = _reference(spec.ground_truth)
    if not reference:
        return Verdict.unscored(
            f"reference {spec.ground_truth[:80]!r} is empty", status="bad_reference"
        )
    answer = extract_answer(response)
    form = form_score(response, spec.ground_truth, answer)
    if answer.text is None:
        return Verdict.scored(0.0, format=form, reason=answer.reason, status=answer.status)
    if len(answer.text) > _ANSWER_CHARS_MAX:
        reason = f"answer of {len(answer.text)} characters; at most {_ANSWER_CHARS_MAX} are read"
        return Verdict.scored(0.0, format=form, reason=reason, status="unparseable")
    if answer.text == reference or _named(answer.text, options) == _named(reference, options):
        return Verdict.scored(1.0, format=form)
    reason = f"{answer.text[:80]!r} is not {reference[:80]!r}"
    return Verdict.scored(0.0, format=form, reason=reason)


def _named(text: str, options: dict[str, str]) -> str:
    """The letter an answer names, or its text in lower case; letter and text must agree."""
    plain = normalise_text(text, ignore_case=True).strip("*").rstrip(".").strip()
    for letter, option in options.items():
        if plain == option:
            return letter
    choice = read_choice(text)
    if choice is None:
        return "text:" + plain
    letter, rest = choice
    rest = rest.casefold().strip("*").rstrip(".").strip()
    contradicts = rest in options.values() and options.get(letter) != rest
    return "text:" + plain if contradicts else letter


@lru_cache(maxsize=16384)
def _reference(ground_truth: str) -> str:
    return reference_text(ground_truth).text or ""


def _options(params: Mapping[str, object]) -> dict[str, str]:
    """Letter to option text, from a list of texts or a mapping."""
    value = params.get("options")
    if value is None:
        return {}
    if isinstance(value, list):
        items = cast("list[object]", value)
        value = {chr(ord("A") + index): item for index, item in enumerate(items)}
    if isinstance(value, dict):
        pairs = cast("dict[object, object]", value)
        named = {
            key.upper(): normalise_text(item, ignore_case=True).rstrip(".")
            for key, item in pairs.items()
            if isinstance(key, str) and isinstance(item, str)
        }
        if len(named) == len(pairs) <= 26:
            return named
    raise ParamError(f"parameter options is {value!r}; allowed: a list of texts, or letter to text")
