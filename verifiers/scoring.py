"""One response to one verdict: find the row's verifier, judge, weigh."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import perf_counter

from data_specs import RewardSpec, Sample
from verifiers.iou_rule import ScoreContext
from verifiers.params import ParamError
from verifiers.registry import Verifier, find_verifier, unknown_verifier
from verifiers.verdict import Verdict

_DEFAULT_CONTEXT = ScoreContext()


def check_spec(spec: RewardSpec) -> str | None:
    """What is wrong with a row's verifier name, parameters or weights; None if nothing is."""
    verifier = find_verifier(spec.verifier)
    if verifier is None:
        return unknown_verifier(spec.verifier)
    problem = _weights_problem(spec)
    if problem:
        return problem
    try:
        verifier.check_params(spec.params)
    except ParamError as error:
        return f"verifier {spec.verifier}: {error}"
    return None


def score(sample: Sample, response: str, context: ScoreContext = _DEFAULT_CONTEXT) -> Verdict:
    """The verdict of the row's verifier on a response, with its reward.

    The reward is (a * score + f * format) / (a + f), as V-Triune's code has it (its paper leaves
    out the division). A row that cannot be judged is unscored, never 0.
    """
    started = perf_counter()
    spec = sample.reward
    verifier = find_verifier(spec.verifier)
    problem = _unusable(spec, verifier)
    if verifier is None or problem:
        return _blamed(spec, verifier, problem, perf_counter() - started)
    try:
        judged = verifier.judge(sample, response, context)
    except ParamError as error:
        return _blamed(spec, verifier, str(error), perf_counter() - started)
    return _weighed(spec, verifier, judged, perf_counter() - started)


def score_many(
    items: Sequence[tuple[Sample, str]], context: ScoreContext = _DEFAULT_CONTEXT
) -> list[Verdict]:
    """One verdict per (sample, response), in order, in this process; what `score` gives.

    Verifiers that have a faster way for many use it. A verifier's exception is a fault of the
    item it happened on and of no other.
    """
    verdicts: list[Verdict | None] = [None] * len(items)
    together: dict[str, list[int]] = {}
    for index, (sample, _) in enumerate(items):
        verifier = find_verifier(sample.reward.verifier)
        if verifier is not None and verifier.judge_batch and not _unusable(sample.reward, verifier):
            together.setdefault(sample.reward.verifier, []).append(index)
    for name, indices in together.items():
        verifier = find_verifier(name)
        if len(indices) < 2 or verifier is None or verifier.judge_batch is None:
            continue
        started = perf_counter()
        try:
            judged = verifier.judge_batch([items[index] for index in indices], context)
            seconds = (perf_counter() - started) / len(indices)
            for index, verdict in zip(indices, judged, strict=True):
                verdicts[index] = _weighed(items[index][0].reward, verifier, verdict, seconds)
        except Exception:  # noqa: BLE001 - scoring boundary: who failed is found one by one below
            continue
    return [
        _score_guarded(sample, response, context) if verdict is None else verdict
        for verdict, (sample, response) in zip(verdicts, items, strict=True)
    ]


def _score_guarded(sample: Sample, response: str, context: ScoreContext) -> Verdict:
    try:
        return score(sample, response, context)
    except Exception as error:  # noqa: BLE001 - scoring boundary: a fault of ours is unscored
        reason = f"verifier failed: {type(error).__name__}: {error}"
        return Verdict(score=None, status="fault", reason=reason, verifier=sample.reward.verifier)


def _unusable(spec: RewardSpec, verifier: Verifier | None) -> str:
    """Why no response to the row can be judged; empty if one can."""
    if verifier is None:
        return unknown_verifier(spec.verifier)
    return _weights_problem(spec)


def _weights_problem(spec: RewardSpec) -> str:
    """What is wrong with the weights; empty if nothing is."""
    weights = (spec.accuracy_ratio, spec.format_ratio)
    if not all(0.0 <= weight < math.inf for weight in weights):
        return f"accuracy_ratio and format_ratio are {weights}; allowed: finite, at least 0"
    if not sum(weights) > 0.0:
        return "accuracy_ratio and format_ratio are both 0, so no response can earn anything"
    return ""


def _weighed(spec: RewardSpec, verifier: Verifier, judged: Verdict, seconds: float) -> Verdict:
    """The verifier's verdict with the row's reward."""
    value, form, reward = judged.score, judged.format, None
    wrong = [part for part, number in judged.parts.items() if not math.isfinite(number)]
    if wrong:
        raise ValueError(
            f"verifier {spec.verifier} gave part {wrong[0]} = {judged.parts[wrong[0]]!r}; "
            "allowed: finite numbers"
        )
    if value is not None:
        if not 0.0 <= value <= 1.0 or not (form is None or 0.0 <= form <= 1.0):
            raise ValueError(
                f"verifier {spec.verifier} gave score {value!r} and format {form!r}; "
                "allowed: 0 to 1"
            )
        if spec.format_ratio == 0.0 or form is None:
            reward = value
        else:
            weight = spec.accuracy_ratio + spec.format_ratio
            reward = (spec.accuracy_ratio * value + spec.format_ratio * form) / weight
    return Verdict(
        score=value,
        format=form,
        reward=reward,
        status=judged.status,
        reason=judged.reason,
        parts=judged.parts,
        seconds=seconds,
        verifier=spec.verifier,
        version=verifier.version,
    )


def _blamed(spec: RewardSpec, verifier: Verifier | None, reason: str, seconds: float) -> Verdict:
    """The verdict on a row that cannot be judged."""
    return Verdict(
        score=None,
        status="bad_reference",
        reason=reason,
        seconds=seconds,
        verifier=spec.verifier,
        version=verifier.version if verifier else "",
    )
