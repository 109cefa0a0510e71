"""Stored answers judged again, with the rows' settings or others, and what that moves."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from .stored_answers import StoredAnswer, StoredFile, read_context

if TYPE_CHECKING:
    from data_specs import Sample
    from verifiers import IouRule, ScoreContext, Verdict

_CHUNK_ITEMS = 512
_REASON_CHARS_MAX = 70
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is judged otherwise than the rows say."""

    verifier: str | None = None
    """Name of the verifier; None = each row's own."""
    params: Mapping[str, object] = field(default_factory=lambda: dict[str, object]())
    """Added to the row's parameters, or to none if the verifier is another; null takes one away."""
    iou_rule: IouRule | None = None
    """For boxes; None = the run's own."""

    def row(self, sample: Sample) -> Sample:
        """The row with its new settings.

        Raises: ValueError if its verifier does not take them.
        """
        from verifiers import check_spec

        if self.verifier is None and not self.params:
            return sample
        spec = sample.reward
        name = self.verifier or spec.verifier
        params = {**(spec.params if name == spec.verifier else {}), **self.params}
        params = {key: value for key, value in params.items() if value is not None}
        changed = replace(sample, reward=replace(spec, verifier=name, params=params))
        problem = check_spec(changed.reward)
        if problem is not None:
            raise ValueError(
                f"{sample.where} (id {sample.id}, source {sample.source}): {problem}. Correct "
                "--verifier or --param, or name the sources they are for with --source"
            )
        return changed


class Pair(NamedTuple):
    """A stored answer and its new verdict."""

    stored: StoredAnswer
    verdict: Verdict

    @property
    def has_moved(self) -> bool:
        """Whether score or status differ."""
        before = self.stored.status, self.stored.score
        return before != (self.verdict.status, self.verdict.score)


def read_param(text: str) -> tuple[str, object]:
    """(name, value) of `NAME=JSON`.

    Raises: ValueError if it is anything else.
    """
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise ValueError(f"--param {text!r}; allowed: NAME=JSON, such as shaping='\"relative\"'")
    try:
        return name, json.loads(value)
    except ValueError as error:
        raise ValueError(
            f"--param {text!r}: {value!r} is not JSON ({error}). A text needs its quotation marks: "
            f"--param '{name}={json.dumps(value)}'"
        ) from error


def rescore(
    stored: StoredFile,
    rows: Mapping[tuple[str, str], Sample],
    change: Change,
    workers: int,
    advance: Callable[[int], None] = lambda done: None,
) -> list[Pair]:
    """Every stored answer with its new verdict, in the file's order.

    Args:
        stored: the answers.
        rows: their rows, by source and id.
        change: what is judged otherwise.
        workers: processes that judge.
        advance: called with the number of answers judged so far.
    """
    from verifiers import score_batch

    changed = {key: change.row(sample) for key, sample in rows.items()}
    by_context: dict[ScoreContext, list[int]] = defaultdict(list)
    for index, answer in enumerate(stored.answers):
        by_context[_context(stored, answer, change)].append(index)
    verdicts: dict[int, Verdict] = {}
    for context, indices in by_context.items():
        for chunk in _chunks(indices):
            answers = [stored.answers[index] for index in chunk]
            items = [(changed[answer.source, answer.id], answer.response) for answer in answers]
            verdicts.update(zip(chunk, score_batch(items, context, workers=workers), strict=True))
            advance(len(verdicts))
    return [Pair(answer, verdicts[index]) for index, answer in enumerate(stored.answers)]


def table_by_source(pairs: Sequence[Pair]) -> list[str]:
    """One line a source: mean scores before and now, how many rose and fell, and statuses."""
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.stored.source].append(pair)
    heads = ("answers", "stored", "now", "up", "down", "unscored")
    width = max(20, *(len(source) for source in groups))
    lines = [f"{'source':<{width}} {' '.join(f'{head:>8}' for head in heads)}  status"]
    for source, group in sorted(groups.items()):
        before = [pair.stored.score for pair in group if pair.stored.score is not None]
        now = [pair.verdict.score for pair in group if pair.verdict.score is not None]
        change = [
            pair.verdict.score - pair.stored.score
            for pair in group
            if pair.verdict.score is not None and pair.stored.score is not None
        ]
        cells = (
            len(group),
            _mean(before),
            _mean(now),
            sum(value > 0 for value in change),
            sum(value < 0 for value in change),
            len(group) - len(now),
        )
        moves = Counter(
            f"{pair.stored.status} -> {pair.verdict.status}" for pair in group if pair.has_moved
        )
        status = ", ".join(f"{move} {count}" for move, count in sorted(moves.items()))
        lines.append(
            f"{source:<{width}} {' '.join(f'{cell:>8}' for cell in cells)}  {status}".rstrip()
        )
    return lines


def table_by_reason(pairs: Sequence[Pair]) -> list[str]:
    """One line for each old and new reason among the verdicts that moved, the most frequent first.

    Quoted texts and numbers are folded, so that equal reasons about other values count together.
    """
    moves = Counter(
        (
            fold_reason(pair.stored.score, pair.stored.status, pair.stored.reason),
            fold_reason(pair.verdict.score, pair.verdict.status, pair.verdict.reason),
        )
        for pair in pairs
        if pair.has_moved
    )
    if not moves:
        return []
    width = max(len("stored"), *(len(before) for before, _ in moves))
    ordered = sorted(moves.items(), key=lambda move: (-move[1], move[0]))
    lines = [f"{'moved':>8}  {'stored':<{width}}  now"]
    return lines + [f"{count:8d}  {old:<{width}}  {new}" for (old, new), count in ordered]


def fold_reason(score: float | None, status: str, reason: str) -> str:
    """What a verdict said, without the values it said it about."""
    reason = _NUMBER.sub("N", _QUOTED.sub("'...'", reason)).strip()
    if len(reason) > _REASON_CHARS_MAX:
        reason = reason[: _REASON_CHARS_MAX - 3] + "..."
    kind = "right" if score == 1.0 else "partly" if score and status == "ok" else status
    return f"{kind}: {reason}" if reason and kind != "right" else kind


def to_line(pair: Pair) -> dict[str, Any]:
    """The pair as one JSON line: where the answer stands, its stored verdict and its new one."""
    stored = pair.stored
    return {
        "line": stored.line,
        "source": stored.source,
        "id": stored.id,
        "answer": stored.name,
        "stored": {"score": stored.score, "status": stored.status, "reason": stored.reason},
        "verdict": pair.verdict.to_json(),
    }


def _context(stored: StoredFile, answer: StoredAnswer, change: Change) -> ScoreContext:
    from verifiers import ScoreContext

    if change.iou_rule is not None:
        return ScoreContext(iou_rule=change.iou_rule)
    return read_context(stored, answer)


def _chunks(indices: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(indices), _CHUNK_ITEMS):
        yield indices[start : start + _CHUNK_ITEMS]


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.4f}" if values else "-"
