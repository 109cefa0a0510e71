"""One response to one verdict: find the row's verifier, judge, weigh."""

from __future__ import annotations

from time import perf_counter

from data_specs import RewardSpec, Sample
from verifiers.iou_rule import ScoreContext
from verifiers.params import ParamError
from verifiers.registry import find_verifier, unknown_verifier
from verifiers.verdict import Verdict

_DEFAULT_CONTEXT = ScoreContext()


def check_spec(spec: RewardSpec) -> str | None:
    """What is wrong with a row's verifier name, parameters or weights; None if nothing is."""
    verifier = find_verifier(spec.verifier)
    if verifier is None:
        return unknown_verifier(spec.verifier)
    if not spec.accuracy_ratio + spec.format_ratio > 0:
        return "accuracy_ratio and format_ratio are both 0, so no response can earn anything"
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
    name = spec.verifier
    verifier = find_verifier(name)
    if verifier is None:
        return _blamed(name, "", unknown_verifier(name), started)
    weight = spec.accuracy_ratio + spec.format_ratio
    if not weight > 0:
        reason = "accuracy_ratio and format_ratio are both 0"
        return _blamed(name, verifier.version, reason, started)
    try:
        judged = verifier.judge(sample, response, context)
    except ParamError as error:
        return _blamed(name, verifier.version, str(error), started)
    value, form, reward = judged.score, judged.format, None
    if value is not None:
        if not 0.0 <= value <= 1.0 or not (form is None or 0.0 <= form <= 1.0):
            raise ValueError(
                f"verifier {name} gave score {value!r} and format {form!r}; allowed: 0 to 1"
            )
        if spec.format_ratio == 0.0 or form is None:
            reward = value
        else:
            reward = (spec.accuracy_ratio * value + spec.format_ratio * form) / weight
    return Verdict(
        score=value,
        format=form,
        reward=reward,
        status=judged.status,
        reason=judged.reason,
        parts=judged.parts,
        seconds=perf_counter() - started,
        verifier=name,
        version=verifier.version,
    )


def _blamed(name: str, version: str, reason: str, started: float) -> Verdict:
    """The verdict on a row that cannot be judged."""
    return Verdict(
        score=None,
        status="bad_reference",
        reason=reason,
        seconds=perf_counter() - started,
        verifier=name,
        version=version,
    )
