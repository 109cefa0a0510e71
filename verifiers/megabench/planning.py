"""Symbolic plans: is every action possible where it stands, and is the goal reached at the end?

Our own STRIPS simulation on literals as texts, such as `(at r1)`. Reading PDDL: planning_pddl.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from verifiers.megabench.convert import metric
from verifiers.megabench.planning_pddl import Action, groups_after, read_actions
from verifiers.megabench.registry import Mode, Unscored

_NOT = "(not "


@metric
def symbolic_planning_test(
    prediction: str | Sequence[str], eval_context: dict[str, Any], mode: Mode
) -> float:
    """1 if the plan, one `(action object ...)` a line, leads from the start state to the goal."""
    actions = read_actions(eval_context["domain_pddl"])
    plan = _plan(prediction, mode)
    problem: str = eval_context["task_pddl"]
    if mode == "sound":
        problem = problem.lower()
        actions = read_actions(eval_context["domain_pddl"].lower())
    start, goal = groups_after(problem, "(:init"), groups_after(problem, "(and")
    if mode == "sound" and not (isinstance(start, list) and isinstance(goal, list) and goal):
        raise Unscored("the problem has no single start state or no single (and ...) goal")
    state = Counter(list(start))  # of several start states: the words after their keywords
    for step in plan:
        name, *objects = step[1:-1].split(" ")
        action = actions.get(name.strip())
        if action is None or len(objects) != len(action.parameters) or "\\" in step:
            return 0
        if not _holds(_bound(action.conditions, action, objects), state, mode):
            return 0
        _apply(_bound(action.effects, action, objects), state)
    return int(_holds(goal, state, mode))


def _plan(prediction: str | Sequence[str], mode: Mode) -> list[str]:
    """The steps: lines that start with a bracket."""
    if not isinstance(prediction, (str, tuple, list)):
        raise TypeError(f"a plan of type {type(prediction).__name__} has no lines")
    lines = prediction.split("\n") if isinstance(prediction, str) else list(prediction)
    if mode == "compat":
        return [line.strip() for line in lines if line.startswith("(")]
    # upstream: an indented or numbered line is left out of the plan
    found = [re.search(r"\(.*\)", line.lower()) for line in lines]
    return [re.sub(r"\s+", " ", re.sub(r"\s*([()])\s*", r"\1", m.group())) for m in found if m]


def _bound(literals: Iterable[str], action: Action, objects: Sequence[str]) -> list[str]:
    """The literals with objects for parameters, put in one parameter after the other."""
    bound: list[str] = []
    for literal in literals:
        for pattern, item in zip(action.parameters, objects, strict=True):
            literal = pattern.sub(item, literal)
        bound.append(literal)
    return bound


def _holds(literals: Iterable[str], state: Counter[str], mode: Mode) -> bool:
    return all(_is_true(literal, state, mode) for literal in literals)


def _is_true(literal: str, state: Counter[str], mode: Mode) -> bool:
    if mode == "sound":
        denied = groups_after(literal, "(not") if literal.startswith("(not") else []
        return not any(state[group] for group in denied) if denied else state[literal] > 0
    # upstream: `(not p)` is looked up as it is written, so it holds whatever the state
    return (state[literal] > 0) != literal.startswith(_NOT)


def _apply(effects: Iterable[str], state: Counter[str]) -> None:
    """Deletes come first in `effects`; a literal that the start state lists twice stays once."""
    for effect in effects:
        deleted = groups_after(effect, _NOT)
        if deleted:
            if not isinstance(deleted, list) or len(deleted) > 1:
                raise ValueError(f"{effect!r} denies more than one literal")
            literal = deleted[0]
            state[literal] = max(0, state[literal] - 1)
        elif not state[effect.strip()]:
            state[effect] += 1
