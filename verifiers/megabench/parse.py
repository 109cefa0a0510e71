"""Replies read by the five response parsers of MEGA-Bench."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from verifiers.megabench.kinds import is_dict
from verifiers.megabench.literals import unquoted
from verifiers.megabench.registry import Mode
from verifiers.megabench.text_object import read_object

Spacing = Literal["trimmed", "ascii", "verbatim"]
"""What a parser does to white space: all ends trimmed; only the right one; blank lines only."""

SINGLE_FIELD: dict[str, Spacing] = {
    "answer_string": "trimmed",
    "ascii_answer_string": "ascii",
    "verbatim_answer_string": "verbatim",
}
"""Parsers for a task with one answer field."""

PARSERS = (*SINGLE_FIELD, "json", "dummy", "unsupported")

_MARKER = "Answer:"
_BLANK = re.compile(r"\s+")
_TAG = re.compile(r"```\w*")
_WORD_FIRST = re.compile(r"[a-zA-Z0-9_-]|\([a-zA-Z0-9_-]+\)$")
_LONG = 10_000
"""From this many characters on upstream trims the right end of art and code."""


def parse_reply(
    parser: str | None,
    reply: str,
    fields: Sequence[str],
    *,
    is_single_line: bool = False,
    mode: Mode = "compat",
) -> object:
    """What a reply says: field -> value; for `dummy` the reply itself, trimmed.

    Args:
        parser: one of PARSERS in any case, or None, which is `unsupported`.
        fields: names of the answer fields, those that start with `##` too.
        is_single_line: whether the reference of a single field has no line break.
    """
    name = "unsupported" if parser is None else parser.lower()
    if name in SINGLE_FIELD:
        answers = [field for field in fields if not field.startswith("##")] or list(fields)
        text = parse_answer(reply, SINGLE_FIELD[name], is_single_line=is_single_line, mode=mode)
        return dict.fromkeys(answers[:1], text)
    if name == "dummy":
        return reply.strip()
    found = parse_json(reply, mode=mode)
    if name == "json" and not (is_dict(found) and found):
        return dict.fromkeys(fields, reply)
    return found


def parse_json(reply: str, *, mode: Mode = "compat") -> object:
    """The last object of a reply; {} or [] if there is none. Values lose one layer of quotes."""
    found = read_object(reply, mode)
    if is_dict(found):
        return {key: unquoted(value) for key, value in found.items()}
    return found


def parse_answer(
    reply: str, spacing: Spacing, *, is_single_line: bool = False, mode: Mode = "compat"
) -> str:
    """The text after the last `Answer:`, out of its fence, objects in Python's spelling."""
    text = _spaced(_after_marker(_last_marker_only(reply), spacing, mode), spacing)
    text, is_code = fence_content(text, spacing)
    if is_single_line and not is_code and spacing == "trimmed":
        text = _first_paragraph(text)
    if not text.startswith(("{", "[")):
        return str(unquoted(text))
    found = read_object(text, mode)
    if (found == {} and "{}" not in text) or (found == [] and "[]" not in text):
        return text
    try:
        return str(found)
    except (ValueError, RecursionError):  # upstream: ends the whole run
        return text


def fence_content(text: str, spacing: Spacing) -> tuple[str, bool]:
    """Inside of the first Markdown fence, and whether there is one; without it the text."""
    if spacing != "trimmed" and (len(text) > _LONG or not text.strip()):
        text = text.rstrip()
    opening = _TAG.search(text)
    closing = text.find("```", opening.end()) if opening else -1
    if opening is None or closing < 0:
        return text, False
    inside = text[opening.end() : closing]
    if spacing == "trimmed":
        return inside.strip(), True
    inside = _without_blank_start(inside)
    if spacing == "ascii":
        return inside.rstrip(), True
    return _without_blank_end(inside), True


def _last_marker_only(reply: str) -> str:
    reply = reply.replace("answer:", _MARKER)
    before, marker, after = reply.rpartition(_MARKER)
    return before.replace(_MARKER, "") + marker + after


def _after_marker(text: str, spacing: Spacing, mode: Mode) -> str:
    """What follows the first marker: up to the next asterisk if one stands before the marker."""
    at = text.find(_MARKER)
    while at >= 0:
        start = at + len(_MARKER)
        if mode == "sound" and text.startswith("**", start):
            return text[start + 2 :]  # `**Answer:** B`
        content = text[start:].lstrip() if spacing == "trimmed" else text[start:]
        if text[at - 1 : at] == "*" and "*" in content:
            return content.partition("*")[0]
        if not re.match(r"\w", text[at - 1 : at]):
            return content
        at = text.find(_MARKER, start)
    return text


def _spaced(text: str, spacing: Spacing) -> str:
    if spacing == "trimmed":
        return text.strip()
    text = _BLANK.sub(_one_blank_line, text)
    text = text.rstrip() if spacing == "ascii" else _without_blank_end(text)
    return _without_blank_start(text)


def _one_blank_line(run: re.Match[str]) -> str:
    """A run of white space with at most one blank line; at the end of the text with none."""
    space = run.group()
    start = 0 if run.start() == 0 else space.find("\n") + 1
    if run.start() > 0 and start == 0:
        return space
    blank = space[start:]
    if run.end() == len(run.string):
        return space[:start] if "\n" in blank else space
    return space[:start] + blank[blank.rfind("\n") :] if blank.count("\n") > 1 else space


def _without_blank_start(text: str) -> str:
    """Text without its leading blank lines; an indentation stays."""
    space = len(text) - len(text.lstrip())
    return text[text.rfind("\n", 0, space) + 1 :]


def _without_blank_end(text: str) -> str:
    """Text without its trailing blank lines; spaces at the end of its last line stay."""
    cut = text.find("\n", len(text.rstrip()))
    return text if cut < 0 else text[:cut]


def _first_paragraph(text: str) -> str:
    """Up to the first empty line if that is one line that starts with a word, else all."""
    paragraph = text.split("\n\n", 1)[0].strip()
    if _WORD_FIRST.match(paragraph) is None:
        return text
    lines = text.splitlines()
    first = next(index for index, line in enumerate(lines) if line.strip())
    is_alone = first + 1 < len(lines) and not lines[first + 1].strip()
    return paragraph if is_alone else text
