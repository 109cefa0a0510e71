r"""Choice questions: finding their options, and asking them openly instead.

`Which animal is it?\nA. cat\nB. dog` with the answer `B` becomes `Which animal is it?` with the
answer `dog`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, cast

from data_specs import IMAGE_MARKER, Message, RewardSpec, Sample
from tasks.curate_rule import Drop, Params, Seen, answer_of
from verifiers.choice import read_choice
from verifiers.numerals import plain_number
from verifiers.text import normalise_text

_QUESTION_CHARS_MAX = 50_000  # longer ones are no choice question to us
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MARK = r"(?:^|(?<=[\s,;]))(?:\(%s\)|\[%s\]|%s\s?[.):、．])[ \t]*"
_HEADING = re.compile(r"\s*(?:answer\s+)?(?:options|choices|choose from)\s*:?\s*$", re.IGNORECASE)
_INSTRUCTION = re.compile(r"[^.?!\n]*\b(?:option|choice|letter)s?\b[^.?!\n]*[.?!]?", re.IGNORECASE)
_POINTS_AT_OPTIONS = re.compile(
    r"\b(?:of|from|among) the (?:following|options|choices|above|below|given)\b"
    r"|\bthe following\b|\bwhich (?:one|of these|option)\b|\b(?:shown|listed|given) below\b",
    re.IGNORECASE,
)
_NO_ANSWER = re.compile(
    r"\b(?:all|none|both|neither|either|any)\b.*\b(?:above|these|those|of them|(?-i:[A-E]))\b"
    r"|\bthe above\b|\bcannot be\b|\bnot enough\b|\bnot given\b|^\W*$",
    re.IGNORECASE,
)
_TRUTH = frozenset({"true", "false"})
_YES_NO = frozenset({"yes", "no"})


class Options(NamedTuple):
    """The options that a question lists."""

    stem: str
    """What stands before them."""
    texts: dict[str, str]
    """Letter -> text, of at least two."""


def read_options(question: str) -> Options | None:
    """The options A, B, ... that a question ends with; None if it lists fewer than two."""
    if len(question) > _QUESTION_CHARS_MAX:
        return None
    starts: list[tuple[int, int]] = []
    position = 0
    for letter in _LETTERS:
        found = re.compile(_MARK % (letter, letter, letter)).search(question, position)
        if found is None:
            break
        starts.append(found.span())
        position = found.end()
    if len(starts) < 2:
        return None
    ends = [start for start, _ in starts[1:]] + [len(question)]
    texts = {
        letter: _first_line(question[start:end])
        for letter, (_, start), end in zip(_LETTERS, starts, ends, strict=False)
    }
    return Options(question[: starts[0][0]], texts)


def drop_choice(sample: Sample, params: Params, seen: Seen) -> Sample | Drop:
    """Rows answered by a letter; with `rewrite`, asked openly where an option makes an answer."""
    del seen
    found = _chosen(sample)
    if found is None:
        return sample
    if not params["rewrite"]:
        return Drop(f"a choice question; the answer is {answer_of(sample)!r}")
    stem, text = found
    if text is None or stem is None:
        return Drop("a choice question whose options cannot be read")
    return _opened(sample, stem, text)


def drop_true_false(sample: Sample, params: Params, seen: Seen) -> Sample | Drop:
    """Rows answered by true or false; with `yes_no`, also by yes or no."""
    del seen
    answer = answer_of(sample).casefold().rstrip(".")
    if answer in _TRUTH or (params["yes_no"] and answer in _YES_NO):
        return Drop(f"the answer is {answer!r}")
    return sample


def _chosen(sample: Sample) -> tuple[str | None, str | None] | None:
    """(question without options, text of the right one) of a choice question, else None."""
    answer = answer_of(sample)
    written = read_options(_user_text(sample))
    texts = dict(written.texts) if written else {}
    texts |= _param_options(sample.reward.params)
    is_choice = sample.reward.verifier == "choice"
    named = read_choice(answer)
    letter = named[0].upper() if named else ""
    if not texts:
        return (None, None) if is_choice else None
    stem = written.stem if written else _user_text(sample)
    if letter in texts and len(answer) <= len(texts[letter]) + 8:
        return stem, texts[letter]
    for text in texts.values():
        if normalise_text(text) == normalise_text(answer):
            return stem, text
    return (None, None) if is_choice else None


def _opened(sample: Sample, stem: str, text: str) -> Sample | Drop:
    """The row as an open question, if it makes sense without its options."""
    question = _HEADING.sub("", _INSTRUCTION.sub("", stem)).strip()
    if question.count(IMAGE_MARKER) != _user_text(sample).count(IMAGE_MARKER):
        return Drop("an option is a picture")
    if not question.replace(IMAGE_MARKER, "").strip() or _POINTS_AT_OPTIONS.search(question):
        return Drop("the question makes no sense without its options")
    if _NO_ANSWER.search(text):
        return Drop(f"the right option is no answer by itself: {text!r}")
    verifier, params = _verifier_for(text)
    reward = RewardSpec(
        verifier=verifier,
        answer=text,
        ground_truth=f"\\boxed{{{text}}}",
        accuracy_ratio=sample.reward.accuracy_ratio,
        format_ratio=sample.reward.format_ratio,
        params=params,
    )
    messages = list(sample.messages)
    index = _question_index(sample)
    messages[index] = Message(role="user", content=question)
    return replace(sample, messages=tuple(messages), reward=reward)


def _verifier_for(text: str) -> tuple[str, dict[str, object]]:
    """The verifier that suits an open answer: a number, a formula or words."""
    if plain_number(text) is not None:
        return "number", {}
    if any(character.isdigit() or character in "\\^=$" for character in text):
        return "mathverify", {}
    return "text", {"metric": "exact", "ignore_case": True}


def _first_line(text: str) -> str:
    """An option's text: its first line, without the mark before the next one."""
    return text.strip().partition("\n")[0].strip().rstrip(",;").strip().removesuffix(".")


def _param_options(params: Mapping[str, object]) -> dict[str, str]:
    """The options that the verifier's parameters name."""
    given = params.get("options")
    if isinstance(given, Mapping):
        pairs = cast("Mapping[object, object]", given).items()
        return {str(letter).upper(): str(text) for letter, text in pairs}
    if isinstance(given, list):
        texts = cast("list[object]", given)
        return {letter: str(text) for letter, text in zip(_LETTERS, texts, strict=False)}
    return {}


def _question_index(sample: Sample) -> int:
    """Which message is the question: the last user message."""
    users = [index for index, item in enumerate(sample.messages) if item.role == "user"]
    return users[-1] if users else 0


def _user_text(sample: Sample) -> str:
    return sample.messages[_question_index(sample)].content if sample.messages else ""
