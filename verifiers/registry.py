"""The verifiers by name: ours in a dict, other packages' through entry points."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Literal

from data_specs import Sample
from verifiers import choice, composite, detection, math_answer, number, point, text
from verifiers.iou_rule import ScoreContext
from verifiers.verdict import Verdict

ENTRY_POINT_GROUP = "vl_triune.verifiers"
"""Group under which an installed package offers a `Verifier`."""


@dataclass(frozen=True, kw_only=True)
class Verifier:
    """One way to judge responses."""

    judge: Callable[[Sample, str, ScoreContext], Verdict]
    """Pure function to a verdict without reward; unscored only if the row is at fault."""
    check_params: Callable[[Mapping[str, object]], None]
    """Raises ParamError if a row's parameters are wrong."""
    version: str
    """Raised when scores may move."""
    judge_batch: Callable[[Sequence[tuple[Sample, str]], ScoreContext], list[Verdict]] | None = None
    """The same as `judge` one by one, if there is a faster way for many; else None."""
    asks_for: Literal["boxed", "tag"] | None = None
    r"""Where prompts shall ask for the answer: in \boxed{} or in <answer> tags; None: nowhere."""


VERIFIERS: dict[str, Verifier] = {
    "mathverify": Verifier(
        judge=math_answer.judge,
        check_params=math_answer.check_params,
        version=math_answer.VERSION,
        asks_for="boxed",
    ),
    "detection": Verifier(
        judge=detection.judge,
        check_params=detection.check_params,
        version=detection.VERSION,
        judge_batch=detection.judge_batch,
        asks_for="tag",
    ),
    "point": Verifier(
        judge=point.judge,
        check_params=point.check_params,
        version=point.VERSION,
        asks_for="tag",
    ),
    "choice": Verifier(
        judge=choice.judge,
        check_params=choice.check_params,
        version=choice.VERSION,
        asks_for="boxed",
    ),
    "number": Verifier(
        judge=number.judge,
        check_params=number.check_params,
        version=number.VERSION,
        asks_for="boxed",
    ),
    "text": Verifier(
        judge=text.judge,
        check_params=text.check_params,
        version=text.VERSION,
        asks_for="boxed",
    ),
    "composite": Verifier(
        judge=composite.judge,
        check_params=composite.check_params,
        version=composite.VERSION,
        judge_batch=composite.judge_batch,
    ),
}


def find_verifier(name: str) -> Verifier | None:
    """The verifier of that name, ours first, then installed ones; None if there is none."""
    own = VERIFIERS.get(name)
    return own if own is not None else _installed(name)


def verifier_names() -> list[str]:
    """Every name that `find_verifier` knows, sorted."""
    return sorted({*VERIFIERS, *_entry_points()})


def unknown_verifier(name: str) -> str:
    """What to say about a name that is not known, with the nearest name that is."""
    known = verifier_names()
    near = get_close_matches(name, known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"verifier {name!r} is not registered{hint}; known: {', '.join(known)}"


@lru_cache(maxsize=1)
def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


@lru_cache(maxsize=256)
def _installed(name: str) -> Verifier | None:
    point = _entry_points().get(name)
    if point is None:
        return None
    loaded: object = point.load()
    if not isinstance(loaded, Verifier):
        raise TypeError(
            f"entry point {point.value!r} of {ENTRY_POINT_GROUP} gives {loaded!r}; "
            "allowed: a verifiers.Verifier"
        )
    return loaded
