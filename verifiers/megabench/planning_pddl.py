"""PDDL as upstream reads it: bracketed groups after a keyword, literals as texts."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_PARAMETER = re.compile(r"\?([^\s\?\)]+)\s*")


class Action(NamedTuple):
    """One action of a domain."""

    parameters: tuple[re.Pattern[str], ...]
    """Finds each parameter in a literal, in order."""
    conditions: tuple[str, ...]
    """Literals that must hold before; `(not ...)` first."""
    effects: tuple[str, ...]
    """Literals that hold after, or `(not ...)`; the latter first."""


@lru_cache(maxsize=64)
def read_actions(domain: str) -> dict[str, Action]:
    """The actions of a domain by name.

    Raises: ValueError or IndexError unless there are two actions or more, each with exactly three
    groups: parameters, precondition and effect.
    """
    bodies = groups_after(domain, "(:action")
    if not isinstance(bodies, dict):
        raise ValueError("a domain with one action or none")
    actions: dict[str, Action] = {}
    for name, groups in bodies.items():
        parameters, _, _ = groups
        if not (parameters.startswith("(") and parameters.endswith(")")):
            raise ValueError(f"parameters {parameters!r} are not in brackets")
        names = dict.fromkeys(_PARAMETER.findall(parameters[1:-1]))
        # The text after the first action whose name starts so, up to the next such action.
        text = domain.split(f"(:action {name}")[1]
        actions[name] = Action(
            tuple(re.compile(rf"\?{parameter}(?=[^\w-])") for parameter in names),
            _literals(text.split(":precondition")[1].strip()),
            _literals(text.split(":effect")[1].strip()),
        )
    return actions


def groups_after(text: str, start: str) -> list[str] | dict[str, list[str]]:
    """Outermost bracketed groups between a keyword and the bracket that closes it.

    If the keyword stands there several times, they are listed by the word after it.
    """
    pieces = text.split(start)
    if len(pieces) <= 2:
        return _groups(pieces[1])[0] if len(pieces) == 2 else []
    found: dict[str, list[str]] = {}
    while start in text:
        text = text.split(start, 1)[1]
        name = re.split(r"\s+", text.strip())[0]
        found[name], end = _groups(text)
        text = text[end:]
    return found


def _groups(text: str) -> tuple[list[str], int]:
    """Outermost groups up to the first bracket that closes none of them, and where it ends."""
    groups: list[str] = []
    depth = start = 0
    for index, mark in enumerate(text):
        if mark == "(":
            if depth == 0:
                start = index
            depth += 1
        elif mark == ")":
            if depth == 0:
                return groups, index + 1
            depth -= 1
            if depth == 0:
                groups.append(text[start : index + 1])
    return groups, len(text)


def _literals(condition: str) -> tuple[str, ...]:
    """Literals of a condition: those of an `(and ...)` or the first one alone, denials first."""
    if condition.startswith("(and"):
        found = dict.fromkeys(_conjuncts(condition))
    else:
        found = {condition.split(")")[0].strip() + ")": None}
    return tuple(sorted(found, key=lambda literal: not literal.startswith("(not ")))


def _conjuncts(condition: str) -> list[str]:
    found: list[str] = []
    depth = start = 0
    for index, mark in enumerate(condition):
        if mark == "(":
            depth += 1
            if depth == 2:
                start = index
        elif mark == ")":
            depth -= 1
            if depth == 0:
                break
            if depth == 1:
                found.append(_untyped(condition[start : index + 1]))
    return found


def _untyped(literal: str) -> str:
    """The literal without ` - type` marks."""
    first, *others = literal.split(" - ")
    kept = [first]
    for other in others:
        other = other.strip()
        is_last = len(other.split(")")[0].split()) == 1
        kept.append(")" + other.split(")", 1)[1] if is_last else " " + other.split(" ", 1)[1])
    return "".join(kept).strip()
