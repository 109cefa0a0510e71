"""The answers that a run has stored, each with its row: of an evaluation, or of RL's steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from data_specs import Sample
    from verifiers import IouRule, ScoreContext

Kind = Literal["evaluation", "training"]
"""What wrote the file: `eval/<phase>/rollouts.jsonl`, or a run's own `rollouts.jsonl`."""

_FILES_OF: dict[Kind, str] = {"evaluation": "heldout", "training": "train"}


class StoredAnswer(NamedTuple):
    """One stored answer and the verdict it had."""

    line: int
    """Its line in the file, from 1."""
    source: str
    id: str
    name: str
    """`greedy`, `sample 2` or `rollout 3`, from 1."""
    stage: str | None
    """The stage that trained on it; None in an evaluation."""
    step: int | None
    """The step of that stage, from 1."""
    response: str
    score: float | None
    status: str
    reason: str


class StoredFile(NamedTuple):
    """What a file of stored answers holds."""

    path: Path
    kind: Kind
    answers: list[StoredAnswer]
    config: dict[str, Any]
    """`config.json` of its run; empty if it lies in none."""


def read_stored(path: Path) -> StoredFile:
    """The stored answers of a run's file, in its order.

    Raises: ValueError for a line that is of neither kind, or not of the first line's.
    """
    from vl.rundir import read_config, read_lines

    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; give eval/<phase>/rollouts.jsonl or a run's rollouts.jsonl"
        )
    kinds: set[Kind] = set()
    answers: list[StoredAnswer] = []
    for number, (_, line) in enumerate(read_lines(path), start=1):
        kind = _kind(line, f"{path} line {number}")
        kinds.add(kind)
        answers += _answers(line, kind, path, number)
    if len(kinds) != 1 or not answers:
        found = "answers of evaluations and of training" if len(kinds) > 1 else "no answer"
        raise ValueError(
            f"{path}: holds {found}; give eval/<phase>/rollouts.jsonl or a run's rollouts.jsonl"
        )
    (kind,) = kinds
    folders = path.resolve().parents
    level = 2 if kind == "evaluation" else 0
    config = read_config(folders[level]) if len(folders) > level else None
    return StoredFile(path, kind, answers, config or {})


def read_rows(stored: StoredFile, given: Sequence[Path] | None) -> dict[tuple[str, str], Sample]:
    """The row of each answer, by source and id, without its pictures.

    Args:
        stored: the answers.
        given: parquet files or folders of them; None = those that the run's config.json names.

    Raises: ValueError if a row is in none of the files.
    """
    from data_specs import read_samples

    files = list(given or _files(stored))
    wanted = {(answer.source, answer.id) for answer in stored.answers}
    rows: dict[tuple[str, str], Sample] = {}
    for sample in read_samples(files):
        key = sample.source, sample.id
        if key in wanted and key not in rows:
            rows[key] = replace(sample, images=())
            if len(rows) == len(wanted):
                break
    for answer in stored.answers:
        if (answer.source, answer.id) not in rows:
            raise ValueError(
                f"{stored.path} line {answer.line}: row {answer.id!r} of {answer.source!r} is not "
                f"in {', '.join(map(str, files[:3]))}{' ...' if len(files) > 3 else ''}; "
                "give the files that were answered with --rows"
            )
    return rows


def read_context(stored: StoredFile, answer: StoredAnswer) -> ScoreContext:
    """What the answer's first verdict depended on: the run's IoU rule and its progress then.

    Without a config.json: IoU 0.5.
    """
    from verifiers import FixedIou, ScoreContext

    part = stored.config.get("evaluation" if answer.stage is None else answer.stage)
    if not isinstance(part, dict) or "iou_rule" not in part:
        return ScoreContext(iou_rule=FixedIou(0.5))
    rule = _iou_rule(part["iou_rule"], stored.path)
    num_steps = part.get("num_steps")
    if answer.step is None or not isinstance(num_steps, int):
        return ScoreContext(iou_rule=rule)
    return ScoreContext(progress=min(1.0, (answer.step - 1) / num_steps), iou_rule=rule)


def _kind(line: dict[str, Any], where: str) -> Kind:
    if isinstance(line.get("greedy"), dict) and isinstance(line.get("samples"), list):
        return "evaluation"
    if isinstance(line.get("group"), list):
        return "training"
    raise ValueError(
        f"{where}: found the fields {', '.join(list(line)[:8])}; needed: 'greedy' and 'samples', "
        "or 'group'. Give eval/<phase>/rollouts.jsonl or a run's rollouts.jsonl"
    )


def _answers(line: dict[str, Any], kind: Kind, path: Path, number: int) -> Iterator[StoredAnswer]:
    where = f"{path} line {number}"
    source, id_ = _field(line, "source", str, where), _field(line, "id", str, where)
    stage = step = None
    if kind == "evaluation":
        named = [("greedy", line["greedy"])]
        named += [(f"sample {n}", item) for n, item in enumerate(line["samples"], start=1)]
    else:
        stage, step = _field(line, "stage", str, where), _field(line, "step", int, where)
        named = [(f"rollout {n}", item) for n, item in enumerate(line["group"], start=1)]
    for name, item in named:
        place = f"{where}, {name}"
        if not isinstance(item, dict):
            raise ValueError(f"{place}: found {item!r}; needed: an object. Delete the line")
        yield StoredAnswer(
            line=number,
            source=source,
            id=id_,
            name=name,
            stage=stage,
            step=step,
            response=_field(item, "response", str, place),
            score=_field(item, "score", float | int | None, place),
            status=_field(item, "status", str, place),
            reason=_field(item, "reason", str, place),
        )


def _field(record: dict[str, Any], name: str, kind: Any, where: str) -> Any:
    value = record.get(name)
    if not isinstance(value, kind) or isinstance(value, bool) or name not in record:
        allowed = getattr(kind, "__name__", str(kind))
        raise ValueError(
            f"{where}: {name} is {value!r}; allowed: {allowed}. Delete the line, or evaluate again"
        )
    return value


def _files(stored: StoredFile) -> list[Path]:
    files = stored.config.get("files")
    names = files.get(_FILES_OF[stored.kind]) if isinstance(files, dict) else None
    if not names:
        raise ValueError(
            f"{stored.path}: found no config.json of a run beside it that names the rows of this "
            f"{stored.kind}; give them with --rows FILE ..."
        )
    return [Path(name) for name in names]


def _iou_rule(content: object, path: Path) -> IouRule:
    """The rule as config.json has it: the fields of one of the rules' records."""
    from verifiers import AveragedIou, FixedIou, StagedIou

    try:
        match content:
            case {"threshold": value, **others} if not others:
                return FixedIou(float(value))
            case {"stages": [*stages], **others} if not others:
                return StagedIou(tuple((float(end), float(value)) for end, value in stages))
            case {"values": [*values], **others} if not others:
                return AveragedIou(tuple(float(value) for value in values))
            case _:
                found = f"iou_rule {content!r}"
    except (TypeError, ValueError) as error:
        found = f"iou_rule {content!r} ({error})"
    raise ValueError(
        f"{path}: config.json of its run has {found}; allowed: a threshold, stages or values. "
        "Correct it, or give --iou-threshold"
    )
