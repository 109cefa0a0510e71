"""Whether a row's verifier and parameters exist, and whether its own reference scores 1."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import replace
from typing import NamedTuple

from data_specs import RewardSpec, Sample
from tasks.check_fault import FIX, Fault, RowPlace
from verifiers import (
    VERIFIERS,
    ScoringPool,
    Verdict,
    check_spec,
    find_verifier,
    score_many,
)

_KNOWN_MAX = 65_536  # settings remembered; then from anew, so that memory stays bounded
_BATCH_ITEMS, _BATCHES_MAX = 256, 4  # with the worker at a time
_PLAIN_CHARS_MAX = 200
_NOT_PLAIN = re.compile(r"[\\^!*_&]")
_EMPTY_FORM = re.compile(r"(?:<answer>)?\s*(?:\\boxed\s*\{\s*\})?\s*(?:</answer>)?")
_AS_RESPONSE = r"Write it as a response, \boxed{...} or <answer>[...]</answer>"
# What a verdict of ours may depend on beside the reward settings.
_MEASURES = ("coordinate_space", "image_width", "image_height", "resized_width", "resized_height")


class _Waiting(NamedTuple):
    """A reference that the worker is to judge."""

    place: RowPlace
    key: Hashable
    gold: tuple[Sample, str]


class RewardCheck:
    """Judges the reference of every row; equal settings once.

    Formulas are judged meanwhile in a worker process with a time limit: what is wrong with them
    is told by `late`, not by `check`. A context manager, which ends that process.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, Fault | None] = {}
        self._pool: ScoringPool | None = None
        self._waiting: list[_Waiting] = []
        self._judging: deque[tuple[list[_Waiting], Future[list[Verdict]]]] = deque()
        self._late: list[tuple[RowPlace, Fault]] = []

    def __enter__(self) -> RewardCheck:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.close()

    def check(self, sample: Sample, place: RowPlace) -> Fault | None:
        """What is wrong with the row's reward settings, if that can be told at once."""
        key = _key(sample)
        if key is not None and key in self._known:
            return self._known[key]
        fault = _settings_fault(sample.reward)
        if fault is None and may_be_slow(sample.reward):
            self._waiting.append(_Waiting(place, key, gold_of(sample)))
            if len(self._waiting) >= _BATCH_ITEMS:
                self._submit()
            return None
        if fault is None:
            fault = _reference_fault(sample.reward, score_many([gold_of(sample)])[0])
        self._remember(key, fault)
        return fault

    def late(self) -> list[tuple[RowPlace, Fault]]:
        """What is wrong with the references that `check` put aside, after the last row."""
        if self._waiting:
            self._submit()
        while self._judging:
            self._collect()
        return self._late

    def _submit(self) -> None:
        """Send what waits to the worker, which has a few batches at most."""
        if self._pool is None:
            self._pool = ScoringPool(1)
        if len(self._judging) >= _BATCHES_MAX:
            self._collect()
        waiting, self._waiting = self._waiting, []
        self._judging.append((waiting, self._pool.submit([item.gold for item in waiting])))

    def _collect(self) -> None:
        waiting, future = self._judging.popleft()
        for item, verdict in zip(waiting, future.result(), strict=True):
            fault = _reference_fault(item.gold[0].reward, verdict)
            self._remember(item.key, fault)
            if fault is not None:
                self._late.append((item.place, fault))

    def _remember(self, key: Hashable, fault: Fault | None) -> None:
        if key is None:
            return
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known[key] = fault


def _key(sample: Sample) -> Hashable:
    """Rows with equal keys get the same verdict; None if that is not known of the verifier."""
    spec = sample.reward
    if spec.verifier not in VERIFIERS:
        return None
    return (
        spec.verifier,
        spec.ground_truth,
        json.dumps(dict(spec.params), sort_keys=True, default=repr) if spec.params else "",
        spec.accuracy_ratio,
        spec.format_ratio,
        "year" in sample.question.casefold(),  # `number` is exact where a year is asked for
        *(sample.extra.get(name) for name in _MEASURES),
    )


def _settings_fault(spec: RewardSpec) -> Fault | None:
    """What keeps every response to the row from being judged."""
    problem = check_spec(spec)
    if problem is not None:
        if find_verifier(spec.verifier) is None:
            remedy = "Correct the name, or install the package that registers it"
            field = "reward_model.verifier"
            return Fault("unknown_verifier", field, spec.verifier, problem, remedy)
        return Fault("bad_parameter", "reward_model.verifier_parm", dict(spec.params), problem)
    if _EMPTY_FORM.fullmatch(spec.ground_truth.strip()):
        field = "reward_model.ground_truth"
        return Fault("empty_reference", field, spec.ground_truth, "a reference", _AS_RESPONSE)
    return None


def may_be_slow(spec: RewardSpec) -> bool:
    """Whether the reference may be a formula that takes sympy seconds, or for ever."""
    if spec.verifier not in ("mathverify", "composite"):
        return False
    text = spec.ground_truth.replace("\\boxed", "", 1)
    return len(text) > _PLAIN_CHARS_MAX or _NOT_PLAIN.search(text) is not None


def gold_of(sample: Sample) -> tuple[Sample, str]:
    """The reference as a response to its own row."""
    spec = sample.reward
    if spec.params.get("det_verifier_normalized"):
        # its boxes are per mille, however answers come
        spec = replace(spec, params={**spec.params, "det_verifier_normalized": False})
    return replace(sample, images=(), reward=spec), spec.ground_truth


def _reference_fault(spec: RewardSpec, verdict: Verdict) -> Fault | None:
    if verdict.score == 1.0:
        return None
    got = verdict.status if verdict.score is None else f"{verdict.score:g}"
    allowed = f"a response that scores 1 with {spec.verifier}; it scores {got}: {verdict.reason}"
    kind = "slow_reference" if verdict.status in ("timeout", "fault") else "bad_reference"
    remedy = f"{_AS_RESPONSE}, or change the verifier" if kind == "bad_reference" else FIX
    return Fault(kind, "reward_model.ground_truth", spec.ground_truth, allowed, remedy)
