"""What a trainer hands to a reward function, as samples and verdicts: who judges, at which IoU."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast

from data_specs import DataSpecError, RewardSpec, Sample, sample_from_row, shorten
from verifiers.iou_rule import AveragedIou, FixedIou, IouRule, ScoreContext, StagedIou
from verifiers.scorer import Scoring, score_with
from verifiers.scoring import check_spec
from verifiers.verdict import Verdict

_JUDGE_COLUMNS = ("verifier", "verifier_parm", "accuracy_ratio", "format_ratio")
_NO_TASK = "unstated"  # `Sample.task` of a row whose `ability` the trainer does not hand over


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Who judges rows that do not say so themselves.

    Raises: ValueError if the name, a parameter or the weights are wrong.
    """

    verifier: str
    """Name in `verifiers.VERIFIERS`, or one an installed package registers."""
    params: Mapping[str, object] = field(default_factory=lambda: dict[str, object]())
    """Parameters of the verifier."""
    accuracy_ratio: float = 1.0
    """Weight of the score in the reward, at least 0."""
    format_ratio: float = 0.0
    """Weight of the format score in the reward, at least 0; 0 leaves the format out."""

    def __post_init__(self) -> None:
        spec = RewardSpec(
            verifier=self.verifier,
            answer="",
            ground_truth="",
            accuracy_ratio=self.accuracy_ratio,
            format_ratio=self.format_ratio,
            params=self.params,
        )
        problem = check_spec(spec)
        if problem:
            raise ValueError(f"judge {self.verifier!r}: {problem}")

    def columns(self) -> dict[str, object]:
        """The judge as a row's `reward_model` names it."""
        values = (self.verifier, dict(self.params), self.accuracy_ratio, self.format_ratio)
        return dict(zip(_JUDGE_COLUMNS, values, strict=True))


def read_judge(record: Mapping[str, Any], what: str) -> Judge:
    """The judge that a setting names by the fields of `Judge`.

    Raises: ValueError if a field is missing or unknown, or what it says is wrong.
    """
    names = [item.name for item in fields(Judge)]
    unknown = [name for name in record if name not in names]
    if unknown or "verifier" not in record:
        found = ", ".join(record) or "nothing"
        raise ValueError(f"{what} has {found}; allowed: {', '.join(names)}; verifier is needed")
    return Judge(**record)


@dataclass(frozen=True, kw_only=True)
class Judges:
    """Who judges which row: the row's own judge, else that of its source, else `default`."""

    default: Judge | None = None
    by_source: Mapping[str, Judge] = field(default_factory=lambda: dict[str, Judge]())
    """Judge of each `data_source`."""

    def sample(
        self,
        *,
        source: object,
        reward_model: Mapping[str, object],
        extra: Mapping[str, object],
        task: object,
        place: str,
        number: int,
    ) -> Sample:
        """The row as a verifier needs it.

        Args:
            source: the row's `data_source`.
            reward_model: what the row says of its reward; it may lack the judge.
            extra: the row's other facts; what is no plain value is left out.
            task: the row's `ability`, or None.
            place: where the row comes from, for error messages.
            number: its position there, from 0.

        Raises: ValueError if nobody is named to judge the row, DataSpecError if the row is at
        fault.
        """
        record = {name: value for name, value in reward_model.items() if value is not None}
        if "verifier" not in record:
            stray = [name for name in _JUDGE_COLUMNS if name in record]
            judge = self.by_source.get(str(source), self.default)
            if judge is None or stray:
                raise ValueError(_no_judge(f"{place} row {number}", source, stray))
            record |= judge.columns()
        row = {
            "data_source": source if source else "unstated",
            "ability": task if task else _NO_TASK,
            "reward_model": plain(record),
            "extra_info": {name: plain(value) for name, value in extra.items() if is_plain(value)},
        }
        sample = sample_from_row(row, place, number)
        problem = check_spec(sample.reward)
        if problem:
            raise DataSpecError(f"{place} row {number} (id {sample.id}): {problem}. Fix the row")
        return sample


def _no_judge(where: str, source: object, stray: Sequence[str]) -> str:
    found = f" (it has {', '.join(stray)}, which mean nothing without one)" if stray else ""
    return (
        f"{where} (data_source {source!r}): no verifier is named{found}. Name it in the row "
        "(reward_model.verifier; for verl's function hook copied by `with_judge`), or for its "
        "data_source (by_source), or for all rows (verifier)"
    )


def own_columns(record: Mapping[str, object]) -> dict[str, object]:
    """The judge's columns that a record holds beside others, without nulls."""
    return {name: record[name] for name in _JUDGE_COLUMNS if record.get(name) is not None}


def judge_to_store(reward_model: Mapping[str, object]) -> dict[str, object]:
    """A row's judge in a form that every row of a data set can hold: parameters are JSON text.

    Structs would be merged over the rows, and each would come back with the others' fields.
    """
    record = own_columns(reward_model)
    params = record.get("verifier_parm")
    if params is not None and not isinstance(params, str):
        record["verifier_parm"] = json.dumps(plain(params))
    return {name: record.get(name) for name in _JUDGE_COLUMNS}


def read_iou_rule(value: object) -> IouRule:
    """The rule that a setting names: `average` over COCO's ten, `staged`, or one threshold.

    Raises: ValueError for anything else.
    """
    if isinstance(value, FixedIou | StagedIou | AveragedIou):
        return value
    if value == "average":
        return AveragedIou()
    if value == "staged":
        return StagedIou()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return FixedIou(float(value))
    raise ValueError(
        f"iou_rule is {value!r}; allowed: 'average', 'staged', or a threshold above 0, up to 1"
    )


def score_rows(
    rows: Sequence[Sample | DataSpecError],
    responses: Sequence[str],
    scoring: Scoring,
    context: ScoreContext,
) -> list[Verdict]:
    """One verdict a row, in order; a row at fault is unscored.

    Raises: RewardServiceError if there are servers and none of them could score anything.
    """
    items = [
        (row, response)
        for row, response in zip(rows, responses, strict=True)
        if isinstance(row, Sample)
    ]
    judged = iter(score_with(scoring, items, context) if items else ())
    return [
        Verdict.unscored(str(row), status="bad_reference")
        if isinstance(row, DataSpecError)
        else next(judged)
        for row in rows
    ]


def is_plain(value: object) -> bool:
    """Whether a value is text, a number, a truth value, null, or made of such."""
    try:
        plain(value)
    except TypeError:
        return False
    return True


def plain(value: object) -> object:
    """The value as dicts, lists, text and numbers; OmegaConf's nodes become dicts and lists.

    Raises: TypeError if it holds anything else, as a picture or an array.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        record = cast("Mapping[object, object]", value)
        return {str(name): plain(item) for name, item in record.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [plain(item) for item in cast("Sequence[object]", value)]
    raise TypeError(
        f"{shorten(cast('object', value))} is neither text nor a number, nor made of such"
    )
