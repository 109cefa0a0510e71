"""A test kit for one's own verifier: `contract(...)` as pytest cases, or `check_verifier(...)`.

    @pytest.mark.parametrize("case", contract("date", SAMPLES), ids=str)
    def test_the_verifier_keeps_the_contract(case):
        case()

It needs no pytest: a case is a named function that raises AssertionError.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from time import process_time
from typing import cast

from data_specs import Message, Sample
from verifiers.answer import extract_tag
from verifiers.kit_hacks import HACKS, HOSTILE, KINDS, Hack, hedged
from verifiers.scoring import check_spec, score
from verifiers.verdict import UNSCORED, Verdict

__all__ = [
    "HACKS",
    "HOSTILE",
    "KINDS",
    "Case",
    "Hack",
    "check_verifier",
    "contract",
    "permuted_boxes",
]

SECONDS_MAX = 1.0
"""CPU time that one verdict may take by default."""


@dataclass(frozen=True)
class Case:
    """One thing that a verifier must keep to; call it to check it."""

    name: str
    check: Callable[[], None]

    def __call__(self) -> None:
        """Check it.

        Raises: AssertionError that says which sample and which response.
        """
        self.check()

    def __str__(self) -> str:
        return self.name


def permuted_boxes(response: str) -> list[str]:
    """The response with its boxes in other orders; empty if it holds fewer than two."""
    text = extract_tag(response).text or ""
    try:
        content: object = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    if not isinstance(content, list) or len(cast("list[object]", content)) < 2:
        return []
    boxes = cast("list[object]", content)
    if not all(isinstance(box, list | tuple | dict) for box in boxes):
        return []  # the four numbers of one box
    orders = [boxes[::-1], boxes[1:] + boxes[:1]]
    return [f"<answer>{json.dumps(order)}</answer>" for order in orders]


def contract(
    name: str,
    samples: Sequence[Sample],
    *,
    kinds: Collection[str] = (),
    permute: Callable[[str], Iterable[str]] = permuted_boxes,
    ranked: Sequence[tuple[Sample, Sequence[str]]] = (),
    seconds_max: float = SECONDS_MAX,
) -> list[Case]:
    r"""What every verifier must keep to, as cases, on samples whose ground truth is right.

    For each sample: its settings are accepted; the gold answer scores 1, an empty response 0; the
    gold answer in thinking, cut off or beside another answer does not score 1; a permutation
    changes nothing; hostile responses give a finite score in [0, 1], the same twice, do not blame
    the row and take no longer than they may.

    Args:
        name: the verifier.
        samples: rows of it, at least one.
        kinds: kinds of answers that it judges, of `KINDS`: the known hacks of these kinds are
            tried with each sample's parameters, and must not score. A hack whose reference these
            parameters do not allow is left out.
        permute: rewritings of a response that mean the same, tried on gold answers and, as ground
            truth, on rows; by default its boxes in other orders.
        ranked: (sample, responses from the best to the worst): the score never rises along them,
            and the first beats the last.
        seconds_max: CPU seconds that one verdict may take.
    """
    assert samples, "contract needs at least one sample"
    unknown = set(kinds) - set(KINDS)
    assert not unknown, f"kinds {sorted(unknown)} are unknown; known: {', '.join(KINDS)}"
    cases: list[Case] = []
    for index, sample in enumerate(samples):
        place = f"{name}, sample {index} (id {sample.id})"
        checks = {
            "settings": partial(_check_settings, place, name, sample),
            "gold": partial(_check_gold, place, sample),
            "empty": partial(_check_empty, place, sample),
            "hedged": partial(_check_hedged, place, sample),
            "permuted": partial(_check_permuted, place, sample, permute),
            "hostile": partial(_check_hostile, place, sample, seconds_max),
        }
        cases += [Case(f"{name} {index} {what}", check) for what, check in checks.items()]
    for index, (sample, responses) in enumerate(ranked):
        check = partial(_check_ranked, f"{name}, ranked {index}", sample, responses)
        cases.append(Case(f"{name} ranked {index}", check))
    for kind in kinds:
        cases += _hack_cases(name, kind, samples, seconds_max)
    return cases


def check_verifier(name: str, samples: Sequence[Sample], *, kinds: Collection[str] = ()) -> None:
    """Assert the whole contract at once.

    Raises: AssertionError that says which sample and which response.
    """
    for case in contract(name, samples, kinds=kinds):
        case()


def _hack_cases(
    name: str, kind: str, samples: Sequence[Sample], seconds_max: float
) -> Iterator[Case]:
    """The known hacks of one kind of answers, with each of the samples' settings."""
    hacks = [hack for hack in HACKS if hack.kind == kind]
    settings = {repr(dict(sample.reward.params)): sample for sample in samples}.values()
    posed = [[_posed(sample, hack) for hack in hacks] for sample in settings]
    yield Case(f"{name} takes {kind}", partial(_check_kind, name, kind, posed))
    for index, rows in enumerate(posed):
        for number, (row, hack) in enumerate(zip(rows, hacks, strict=True)):
            check = partial(_check_hack, name, row, hack, seconds_max)
            yield Case(f"{name} settings {index} {kind} hack {number}", check)


def _check_settings(place: str, name: str, sample: Sample) -> None:
    found = sample.reward.verifier
    assert found == name, f"{place}: belongs to verifier {found!r}"
    problem = check_spec(sample.reward)
    assert problem is None, f"{place}: {problem}"


def _check_gold(place: str, sample: Sample) -> None:
    gold = score(sample, sample.reward.ground_truth)
    assert gold.score == 1.0, f"{place}: the gold answer scores {gold.score} ({gold.reason})"
    _check_bounds(f"{place}, gold answer", gold)


def _check_empty(place: str, sample: Sample) -> None:
    empty = score(sample, "")
    assert empty.score == 0.0, f"{place}: an empty response scores {empty.score}"


def _check_hedged(place: str, sample: Sample) -> None:
    for response, what in hedged(sample.reward.ground_truth):
        verdict = score(sample, response)
        _check_bounds(f"{place}, {what}", verdict)
        assert verdict.score != 1.0, f"{place}: {what} scores 1: {response[:80]!r}"


def _check_permuted(place: str, sample: Sample, permute: Callable[[str], Iterable[str]]) -> None:
    gold = sample.reward.ground_truth
    for other in permute(gold):
        row = replace(sample, reward=replace(sample.reward, ground_truth=other))
        for what, verdict in (
            (f"the gold answer as {other[:80]!r}", score(sample, other)),
            (f"the gold answer to the reference {other[:80]!r}", score(row, gold)),
        ):
            assert verdict.score == 1.0, f"{place}: {what} scores {verdict.score}"


def _check_hostile(place: str, sample: Sample, seconds_max: float) -> None:
    score(sample, sample.reward.ground_truth)  # what is loaded at the first verdict is not timed
    for response in HOSTILE:
        where = f"{place}, response {response[:40]!r}"
        verdict, seconds = _timed(sample, response)
        again, seconds_again = _timed(sample, response)
        _check_bounds(where, verdict)
        assert verdict == again, f"{where}: scored {verdict}, then {again}"
        _check_seconds(where, min(seconds, seconds_again), seconds_max)


def _check_ranked(place: str, sample: Sample, responses: Sequence[str]) -> None:
    assert len(responses) > 1, f"{place}: at least two responses are needed"
    scores: list[float] = []
    for response in responses:
        verdict = score(sample, response)
        _check_bounds(f"{place}, response {response[:40]!r}", verdict)
        scores.append(cast("float", verdict.score))
    falling = all(after <= before for before, after in pairwise(scores))
    assert falling, f"{place}: a worse response scores more: {scores}"
    assert scores[0] > scores[-1], f"{place}: the best scores no more than the worst: {scores}"


def _check_kind(name: str, kind: str, posed: Sequence[Sequence[Sample]]) -> None:
    taken = any(_is_taken(row) for rows in posed for row in rows)
    assert taken, f"{name}: no reference of kind {kind} scores 1 for itself; give its own kinds"


def _is_taken(row: Sample) -> bool:
    """Whether the row's reference, as a response, is right."""
    return score(row, row.reward.ground_truth).score == 1.0


def _check_hack(name: str, sample: Sample, hack: Hack, seconds_max: float) -> None:
    if not _is_taken(sample):
        return
    where = f"{name} with {dict(sample.reward.params)}, {hack.response[:80]!r} ({hack.note})"
    verdict, seconds = _timed(sample, hack.response)
    _check_bounds(where, verdict)
    value = cast("float", verdict.score)
    allowed = value < 1.0 if hack.most is None else value <= hack.most
    most = "less than 1" if hack.most is None else f"at most {hack.most:g}"
    assert allowed, f"{where}: scores {value} against {hack.reference[:80]!r}; allowed: {most}"
    if seconds > seconds_max:
        seconds = min(seconds, _timed(sample, hack.response)[1])
    _check_seconds(where, seconds, seconds_max)


def _posed(sample: Sample, hack: Hack) -> Sample:
    """A row like the sample, with the hack's reference and question."""
    messages = (Message(role="user", content=hack.question),) if hack.question else sample.messages
    spec = replace(sample.reward, ground_truth=hack.reference)
    return replace(sample, messages=messages, reward=spec)


def _timed(sample: Sample, response: str) -> tuple[Verdict, float]:
    """The verdict and the CPU seconds it took."""
    started = process_time()
    verdict = score(sample, response)
    return verdict, process_time() - started


def _check_seconds(place: str, seconds: float, seconds_max: float) -> None:
    assert seconds <= seconds_max, f"{place}: took {seconds:.2f} s; allowed: {seconds_max:g} s"


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
