"""A test kit for one's own verifier: `check_verifier(name, samples)` in a pytest function."""

from __future__ import annotations

import math
from collections.abc import Sequence

from data_specs import Sample
from verifiers.scoring import check_spec, score
from verifiers.verdict import UNSCORED, Verdict

HOSTILE: tuple[str, ...] = (
    "",
    " \n\t",
    "no answer here",
    r"\boxed{",
    r"\boxed{}",
    "<answer>",
    "<answer></answer>",
    "<answer>[]</answer>",
    "<answer>[{'bbox_2d': [nan, nan, nan, nan], 'label': 'x'}]</answer>",
    "<answer>[{'bbox_2d': [1e999, 0, 1, 1], 'label': 'x'}]</answer>",
    "<answer>[{'bbox_2d': [true, true, true, true], 'label': 'x'}]</answer>",
    "<answer>" + "[" * 5000 + "</answer>",
    r"\boxed{9^{9^{9}}}",
    r"\boxed{1000000!}",
    r"\boxed{" + "9" * 5000 + "}",
    r"\boxed{" * 2000,
    "<think>" * 500 + r"\boxed{1}",
    r"\boxed{1} or \boxed{2}",
    "\x00\ud800 \u202e ٣ ５ ½",
    "a" * 500_000,
)
"""Responses that have broken reward code elsewhere; none of them is a right answer to anything."""


def check_verifier(name: str, samples: Sequence[Sample]) -> None:
    """Assert what every verifier must keep to, on samples whose ground truth is right.

    The gold answer scores 1, an empty response 0; any other string gives a finite score between,
    twice the same, and never blames the row.

    Raises: AssertionError that says which sample and which response.
    """
    assert samples, "check_verifier needs at least one sample"
    for sample in samples:
        place = f"{name}, sample {sample.id}"
        assert sample.reward.verifier == name, (
            f"{place}: belongs to verifier {sample.reward.verifier!r}"
        )
        problem = check_spec(sample.reward)
        assert problem is None, f"{place}: {problem}"
        gold = score(sample, sample.reward.ground_truth)
        assert gold.score == 1.0, f"{place}: the gold answer scores {gold.score} ({gold.reason})"
        for response in HOSTILE:
            verdict = score(sample, response)
            _check_bounds(f"{place}, response {response[:40]!r}", verdict)
            again = score(sample, response)
            assert verdict == again, f"{place}: {response[:40]!r} scored {verdict}, then {again}"
        empty = score(sample, "")
        assert empty.score == 0.0, f"{place}: an empty response scores {empty.score}"


def _check_bounds(place: str, verdict: Verdict) -> None:
    assert verdict.status not in UNSCORED, f"{place}: {verdict.status} ({verdict.reason})"
    for what, value in (
        ("score", verdict.score),
        ("format", 0.0 if verdict.format is None else verdict.format),
        ("reward", verdict.reward),
    ):
        assert value is not None and 0.0 <= value <= 1.0, f"{place}: {what} {value!r}"
    for part, value in verdict.parts.items():
        assert math.isfinite(value), f"{place}: part {part} is {value!r}"
    assert verdict.score == 1.0 or verdict.reason, f"{place}: score below 1 without a reason"
