"""Judges one response by several verifiers at once: the weighted mean of their scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

from data_specs import RewardSpec, Sample
from verifiers.iou_rule import ScoreContext
from verifiers.number import MISS_MAX
from verifiers.params import ParamError, number_in, reject_unknown
from verifiers.verdict import Status, Verdict

VERSION = "1"

NAME = "composite"

WEIGHT_MAX = 1e6
"""Largest weight of a part; only the ratios count."""

_FIELDS = ("verifier", "weight", "params", "ground_truth")


class Part(NamedTuple):
    """One verifier's share in a row."""

    name: str
    """What its score is called: the verifier, with the part's index if that stands twice."""
    verifier: str
    weight: float
    params: Mapping[str, object]
    ground_truth: str | None
    """None: the row's."""

    def sample(self, sample: Sample) -> Sample:
        """The row as this part's verifier sees it."""
        spec = RewardSpec(
            verifier=self.verifier,
            answer=sample.reward.answer,
            ground_truth=sample.reward.ground_truth
            if self.ground_truth is None
            else self.ground_truth,
            params=self.params,
        )
        return replace(sample, reward=spec)


def check_params(params: Mapping[str, object]) -> None:
    """Raise ParamError if a parameter is wrong, or a part's verifier or one of its parameters."""
    from verifiers.scoring import check_spec  # scoring imports the registry, and that this file

    for index, part in enumerate(_parts(params)):
        spec = RewardSpec(
            verifier=part.verifier, answer="", ground_truth="", params=dict(part.params)
        )
        problem = check_spec(spec)
        if problem is not None:
            raise ParamError(f"parameter parts[{index}]: {problem}")


def judge(sample: Sample, response: str, context: ScoreContext) -> Verdict:
    """The weighted mean of the parts' scores; unscored if one of the parts is."""
    return judge_batch([(sample, response)], context)[0]


def judge_batch(items: Sequence[tuple[Sample, str]], context: ScoreContext) -> list[Verdict]:
    """One verdict per item; the parts of all items are judged together."""
    from verifiers.scoring import score_many

    rows = [_parts_or_blame(sample) for sample, _ in items]
    judged = iter(
        score_many(
            [
                (part.sample(sample), response)
                for parts, (sample, response) in zip(rows, items, strict=True)
                if not isinstance(parts, Verdict)
                for part in parts
            ],
            context,
        )
    )
    return [parts if isinstance(parts, Verdict) else _joined(parts, judged) for parts in rows]


def _joined(parts: Sequence[Part], judged: Iterator[Verdict]) -> Verdict:
    """The verdict on a row from those on its parts, which are next in `judged`."""
    verdicts = [(part, next(judged)) for part in parts]
    scores: list[tuple[float, float]] = []
    formats: list[tuple[float, float]] = []
    numbers: dict[str, float] = {}
    for part, verdict in verdicts:
        if verdict.score is None:
            return Verdict.unscored(f"{part.name}: {verdict.reason}", status=verdict.status)
        scores.append((part.weight, verdict.score))
        if verdict.format is not None:
            formats.append((part.weight, verdict.format))
        numbers[part.name] = verdict.score
        numbers |= {f"{part.name}_{name}": value for name, value in verdict.parts.items()}
    score = _mean(scores)
    if score == 1.0 and any(value < 1.0 for _, value in scores):
        score = MISS_MAX  # a weight that is lost in rounding
    statuses: list[Status] = [verdict.status for _, verdict in verdicts]
    status: Status = "ok" if "ok" in statuses else statuses[0]
    reasons = [f"{part.name}: {verdict.reason}" for part, verdict in verdicts if verdict.reason]
    return Verdict.scored(
        score,
        format=_mean(formats) if formats else None,
        reason="; ".join(reasons),
        status=status,
        parts=numbers,
    )


def _mean(weighted: Sequence[tuple[float, float]]) -> float:
    """The weighted mean of (weight, value) pairs."""
    total = sum(weight for weight, _ in weighted)
    return sum(weight * value for weight, value in weighted) / total


def _parts_or_blame(sample: Sample) -> list[Part] | Verdict:
    """The row's parts, or the verdict on a row whose parameters are wrong."""
    try:
        return _parts(sample.reward.params)
    except ParamError as error:
        return Verdict.unscored(str(error), status="bad_reference")


def _parts(params: Mapping[str, object]) -> list[Part]:
    """The parameter `parts`, checked in itself; the parts' own parameters are not."""
    reject_unknown(params, ("parts",))
    value = params.get("parts")
    if not isinstance(value, list | tuple) or not value:
        raise ParamError(
            f"parameter parts is {value!r}; allowed: a list of "
            '{"verifier": ..., "weight": ..., "params": {...}, "ground_truth": ...}'
        )
    parts = [_part(item, index) for index, item in enumerate(cast("list[object]", value))]
    count = Counter(part.verifier for part in parts)
    return [
        part._replace(name=f"{index}_{part.verifier}") if count[part.verifier] > 1 else part
        for index, part in enumerate(parts)
    ]


def _part(item: object, index: int) -> Part:
    where = f"parameter parts[{index}]"
    if not isinstance(item, Mapping):
        raise ParamError(f"{where} is {item!r}; allowed: an object with a verifier")
    # a parquet struct has every field that any row has, so null is "not given"
    given = {
        name: content
        for name, content in cast("Mapping[str, object]", item).items()
        if content is not None
    }
    for name in given:
        if name not in _FIELDS:
            raise ParamError(f"{where}.{name} is unknown; allowed: {', '.join(_FIELDS)}")
    verifier, ground_truth = given.get("verifier"), given.get("ground_truth")
    if not isinstance(verifier, str) or not verifier:
        raise ParamError(f"{where}.verifier is {verifier!r}; allowed: the name of a verifier")
    if verifier == NAME:
        raise ParamError(f"{where}.verifier is {NAME!r}; put its parts here instead")
    if ground_truth is not None and not isinstance(ground_truth, str):
        raise ParamError(f"{where}.ground_truth is {ground_truth!r}; allowed: a text")
    weight = number_in(given.get("weight", 1.0), f"{where}.weight", WEIGHT_MAX)
    if weight == 0.0:
        raise ParamError(f"{where}.weight is 0; allowed: above 0. Leave the part out")
    own = given.get("params", {})
    if not isinstance(own, Mapping):
        raise ParamError(f"{where}.params is {own!r}; allowed: an object")
    own = {
        name: content
        for name, content in cast("Mapping[str, object]", own).items()
        if content is not None
    }
    return Part(verifier, verifier, weight, own, ground_truth)
