"""Objects in a reply: JSON or Python literals in braces or brackets, the last readable one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from verifiers.megabench.literals import NOT_LITERAL, TOO_MUCH, python_literal
from verifiers.megabench.registry import Mode

_LINE_ANSWER = re.compile(r"^(?:\*\*)?Answer:\s*(.+)", re.MULTILINE)
_SOUND_ANSWER = re.compile(r"^[ \t]*(?:\*\*)?Answer:(?:\*\*)?[ \t]*", re.MULTILINE)
_BRACKET = re.compile(r"[{}\[\]]")
_STRING = re.compile(r'"(?:\\.|[^"\\])*"')
_LOOSE_QUOTE = re.compile(r"(?<!\w)'|'(?!\w)")
_JSON_SPACE = " \t\n\r"

# upstream's marks for escaped quotes; a reply that holds these words is altered there, too
_DOUBLE, _SINGLE = "__DOUBLE_QUOTE__", "__SINGLE_QUOTE__"


class Span(NamedTuple):
    """A piece of text by its ends."""

    start: int
    end: int


def read_object(text: str, mode: Mode) -> object:
    """The last object in a text; without one an empty list if the text starts with `[`, else {}."""
    text = _json_fence(_after_marker(text, mode))
    for span in reversed(list(candidates(text))):
        found, value = _read_candidate(text[span.start : span.end])
        if found:
            return value
    return [] if text.startswith("[") else {}


def candidates(text: str) -> Iterator[Span]:
    """Where objects may be, left to right, without overlap; time is linear in the length.

    From a brace to the brace that balances it; from a bracket over balanced brace groups to the
    last bracket before a brace without partner.
    """
    marks = [(match.start(), match.group()) for match in _BRACKET.finditer(text)]
    closing = _closing_braces(marks)
    groups: list[Span] = []
    first_open, last_close, inside_until = -1, -1, -1
    for at, mark in marks:
        if at < inside_until:
            continue
        if mark == "{" and at in closing:
            inside_until = closing[at] + 1
            groups.append(Span(at, inside_until))
        elif mark in "{}":
            yield from _with_list(groups, first_open, last_close)
            groups, first_open, last_close = [], -1, -1
        elif mark == "[":
            first_open = at if first_open < 0 else first_open
        else:
            last_close = at
    yield from _with_list(groups, first_open, last_close)


def _closing_braces(marks: list[tuple[int, str]]) -> dict[int, int]:
    closing: dict[int, int] = {}
    opened: list[int] = []
    for at, mark in marks:
        if mark == "{":
            opened.append(at)
        elif mark == "}" and opened:
            closing[opened.pop()] = at
    return closing


def _with_list(groups: list[Span], first_open: int, last_close: int) -> Iterator[Span]:
    """The brace groups of a stretch, those within the list replaced by it."""
    if first_open < 0 or last_close < first_open:
        yield from groups
        return
    yield from (group for group in groups if group.end <= first_open)
    yield Span(first_open, last_close + 1)
    yield from (group for group in groups if group.start > last_close)


def _after_marker(text: str, mode: Mode) -> str:
    """What follows `Answer:` at the start of a line, on that one line; else the whole text."""
    if "Answer:" not in text:
        return text.strip()
    if mode == "sound":
        marks = list(_SOUND_ANSWER.finditer(text))
        return text[marks[-1].end() :].strip() if marks else text.strip()
    match = _LINE_ANSWER.search(text)
    return match.group(1).strip() if match else text.strip()


def _json_fence(text: str) -> str:
    """Inside of the first fence tagged `json`; the whole text without one."""
    opening = text.find("```json")
    if opening < 0:
        return text
    start = opening + len("```json")
    end = text.find("```", start)
    return text if end < 0 else text[start:end].strip()


def _read_candidate(text: str) -> tuple[bool, object]:
    r"""Whether a candidate can be read, and its value: a Python reading outranks the JSON one."""
    text = _nested(text.replace('\\"', _DOUBLE).replace("\\'", _SINGLE))
    text = text.replace(_DOUBLE, '\\"').replace(_SINGLE, "\\'")
    escaped = text.replace('\\"', '\\\\"').replace("\\'", "\\\\'")
    for attempt in (text,) if escaped == text else (text, escaped):
        try:
            return True, python_literal(attempt)
        except (*NOT_LITERAL, *TOO_MUCH):  # upstream: TOO_MUCH ends the whole run
            continue
    for attempt in (text, _LOOSE_QUOTE.sub('"', text)):
        found, value = _read_json(attempt)
        if found:
            return True, value
    return False, None


def _nested(text: str) -> str:
    """Text with each quoted string that holds a JSON dict or list replaced by that object."""
    for literal in _STRING.findall(text) if '"' in text else ():
        content = literal[1:-1].replace(_DOUBLE, '"').replace(_SINGLE, "'")
        if content.lstrip(_JSON_SPACE)[:1] not in ("{", "["):
            continue
        found, value = _read_json(content)
        if found:
            text = text.replace(literal, json.dumps(value))
    return text


def _read_json(text: str) -> tuple[bool, object]:
    try:
        return True, json.loads(text)
    except (ValueError, RecursionError):  # upstream: RecursionError ends the whole run
        return False, None
