"""Rewards for verl's function hook, `reward.custom_reward_function`: `compute_score`.

Written against verl 0.9.1. What verl does with a row that cannot be judged, by reward manager and
trainer, and why there is no NaN and no key `acc` here: docs/verifiers/adapters.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, cast

from data_specs import DataSpecError, Sample
from verifiers.adapters.judging import (
    Judge,
    Judges,
    judge_to_store,
    own_columns,
    plain,
    read_iou_rule,
    read_judge,
    score_rows,
)
from verifiers.iou_rule import AveragedIou, IouRule, ScoreContext, StagedIou
from verifiers.scorer import PoolScoring, Scoring, ServerScoring
from verifiers.verdict import Verdict

_OF_VERL = ("reward_router_address", "reward_model_tokenizer")
"""Arguments that verl adds where a reward model is on; no verifier needs them."""


class UnscoredError(RuntimeError):
    """A row could not be judged, through no fault of the response. Not a 0: verl must drop it."""

    def __init__(self, message: str, verdicts: Sequence[Verdict] = ()) -> None:
        super().__init__(message)
        self.verdicts = tuple(verdicts)

    def __reduce__(self) -> tuple[type[UnscoredError], tuple[str, tuple[Verdict, ...]]]:
        return type(self), (str(self), self.verdicts)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """One response's reward as `score`, with `accuracy` and `format` in [0, 1] and why.

    The keys are the same for every row. `accuracy` is the verdict's score, `score` the reward.
    A thread may call it; the response is judged in a process that can be killed.

    Args:
        data_source: the row's source.
        solution_str: the response.
        ground_truth: the reference, bare or in the form of a response.
        extra_info: the row's other facts, and its judge if `with_judge` put it there.
        kwargs: `reward_kwargs` of verl's configuration, see `RewardKwargs`.

    Raises: UnscoredError if there is no score, ValueError if nobody is named to judge the row.
    """
    return compute_score_batch(
        [data_source], [solution_str], [ground_truth], [extra_info], **kwargs
    )[0]


def compute_score_batch(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[str],
    extra_infos: Sequence[Mapping[str, Any] | None] | None = None,
    **kwargs: Any,
) -> list[dict[str, Any]]:
    """What `compute_score` gives for each response, in order; judged together.

    Raises: UnscoredError if any of them has no score, ValueError if nobody is named to judge one.
    """
    settings = read_kwargs(kwargs)
    given = [None] * len(solution_strs) if extra_infos is None else extra_infos
    extras = [extra or {} for extra in given]
    judges = settings.judges()
    rows = [
        _row(judges, source, truth, extra, number)
        for number, (source, truth, extra) in enumerate(
            zip(data_sources, ground_truths, extras, strict=True)
        )
    ]
    verdicts: list[Verdict | None] = [None] * len(rows)
    together: dict[ScoreContext, list[int]] = {}
    for index, extra in enumerate(extras):
        together.setdefault(settings.context(extra), []).append(index)
    for context, indices in together.items():
        judged = score_rows(
            [rows[index] for index in indices],
            [solution_strs[index] for index in indices],
            settings.scoring(),
            context,
        )
        for index, verdict in zip(indices, judged, strict=True):
            verdicts[index] = verdict
    whole = [verdict for verdict in verdicts if verdict is not None]
    _raise_unscored(whole, data_sources, extras)
    return [_result(verdict, settings.parts) for verdict in whole]


def with_judge(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row's `extra_info` with its judge in it, where verl's function hook can see it.

    For `datasets.Dataset.map`, over rows of V-Triune's columns: verl hands on `ground_truth` and
    `extra_info`, and would lose verifier, weights and parameters.

    Raises: DataSpecError if the row cannot be judged at all.
    """
    reward_model = cast("Mapping[str, Any]", row.get("reward_model") or {})
    extra = dict(cast("Mapping[str, Any]", row.get("extra_info") or {}))
    Judges().sample(
        source=row.get("data_source"),
        reward_model=reward_model,
        extra=extra,
        task=row.get("ability"),
        place="with_judge",
        number=_index(extra, 0),
    )
    stored = {**judge_to_store(reward_model), "ability": row.get("ability")}
    return {"extra_info": {**extra, "reward_model": stored}}


@dataclass(frozen=True, kw_only=True)
class RewardKwargs:
    """What `reward.custom_reward_function.reward_kwargs` may hold.

    The row's own judge wins over `by_source`, and that over `verifier`.
    """

    verifier: str | None = None
    """Verifier of rows that name none; None = such a row is an error."""
    params: Mapping[str, object] = field(default_factory=lambda: dict[str, object]())
    """Parameters of `verifier`."""
    accuracy_ratio: float = 1.0
    """Weight of the score beside `verifier`."""
    format_ratio: float = 0.0
    """Weight of the format score beside `verifier`."""
    by_source: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: dict[str, Mapping[str, Any]]()
    )
    """data_source -> {verifier, params, accuracy_ratio, format_ratio} of rows that name none."""
    iou_rule: object = None
    """`average`, `staged` or a threshold; None = staged where progress is known, else average."""
    progress: float | None = None
    """Fraction of steps done, in [0, 1]; None = extra_info's global_steps over total_steps."""
    total_steps: int | None = None
    """Steps of the run; None = unknown, unless extra_info has total_steps."""
    workers: int = 1
    """Killable processes of each reward worker; 0 = in verl's thread, where nothing bounds time."""
    urls: Sequence[str] = ()
    """Reward servers to use instead of processes here."""
    token_file: str | None = None
    """File with the servers' bearer token; None = they need none."""
    parts: Sequence[str] = ()
    """Parts of the verdicts to report, as `iou`, `map50`; None in rows that have none of the name.
    """

    def judges(self) -> Judges:
        """Who judges rows that do not say so themselves.

        Raises: ValueError if a judge is wrong.
        """
        default = None
        weights = self.accuracy_ratio, self.format_ratio
        if self.verifier is None and (self.params or weights != (1.0, 0.0)):
            raise ValueError(
                "reward_kwargs has params or weights but no verifier that they are for; name it "
                "as reward_kwargs.verifier. Rows that name a verifier carry their own"
            )
        if self.verifier is not None:
            default = Judge(
                verifier=self.verifier,
                params=self.params,
                accuracy_ratio=self.accuracy_ratio,
                format_ratio=self.format_ratio,
            )
        by_source = {
            source: read_judge(record, f"reward_kwargs.by_source[{source!r}]")
            for source, record in self.by_source.items()
        }
        return Judges(default=default, by_source=by_source)

    def scoring(self) -> Scoring:
        """Where verdicts are made."""
        if self.urls:
            return ServerScoring(urls=tuple(self.urls), token_file=self.token_file)
        return PoolScoring(workers=self.workers)

    def context(self, extra: Mapping[str, Any]) -> ScoreContext:
        """Progress and IoU rule for a row with these facts.

        Raises: ValueError if the rule needs a progress that is not known.
        """
        progress = self.progress
        step = extra.get("global_steps")
        total = self.total_steps or extra.get("total_steps")
        if progress is None and step is not None and total:
            progress = min(1.0, max(0.0, int(step) / int(total)))
        rule = self._rule(is_progress_known=progress is not None)
        if isinstance(rule, StagedIou) and progress is None:
            raise ValueError(
                "iou_rule 'staged' needs the progress, which verl does not hand to reward "
                "functions: put global_steps into extra_info and give total_steps, or give "
                "progress, or use 'average' or a threshold"
            )
        return ScoreContext(progress=1.0 if progress is None else progress, iou_rule=rule)

    def _rule(self, *, is_progress_known: bool) -> IouRule:
        if self.iou_rule is not None:
            return read_iou_rule(self.iou_rule)
        return StagedIou() if is_progress_known else AveragedIou()


_NAMES = tuple(item.name for item in fields(RewardKwargs))


def read_kwargs(kwargs: Mapping[str, Any]) -> RewardKwargs:
    """The settings among the keyword arguments that verl passes.

    Raises: ValueError if one is unknown.
    """
    given = {name: plain(value) for name, value in kwargs.items() if name not in _OF_VERL}
    for name in given:
        if name not in _NAMES:
            near = get_close_matches(name, _NAMES, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"reward_kwargs has {name!r}{hint}; allowed: {', '.join(_NAMES)}. "
                "Correct reward.custom_reward_function.reward_kwargs"
            )
    return RewardKwargs(**cast("dict[str, Any]", given))


def _row(
    judges: Judges, source: str, truth: str, extra: Mapping[str, Any], number: int
) -> Sample | DataSpecError:
    nested: Mapping[str, Any] = extra.get("reward_model") or {}
    record = own_columns(nested) or own_columns(extra)
    try:
        return judges.sample(
            source=source,
            reward_model={**record, "ground_truth": truth, "answer": nested.get("answer")},
            extra={name: value for name, value in extra.items() if name != "reward_model"},
            task=nested.get("ability"),
            place="verl",
            number=_index(extra, number),
        )
    except DataSpecError as error:
        return error


def _index(extra: Mapping[str, Any], default: int) -> int:
    """The row's number in its file, where verl's rows carry it."""
    index = extra.get("index")
    return index if isinstance(index, int) else default


def _raise_unscored(
    verdicts: Sequence[Verdict], sources: Sequence[str], extras: Sequence[Mapping[str, Any]]
) -> None:
    missing = [index for index, verdict in enumerate(verdicts) if verdict.reward is None]
    if not missing:
        return
    first = missing[0]
    verdict = verdicts[first]
    raise UnscoredError(
        f"{len(missing)} of {len(verdicts)} responses unscored; the first, of "
        f"data_source {sources[first]!r}, id {extras[first].get('id')!r}: {verdict.status}: "
        f"{verdict.reason}. This is no score of 0: see docs/verifiers/adapters.md for what verl "
        "does with it",
        [verdicts[index] for index in missing],
    )


def _result(verdict: Verdict, parts: Sequence[str]) -> dict[str, Any]:
    """The verdict under verl's names: `score` is the reward, whatever else is there is logged."""
    # No key `acc`: verl's validation fills it with 0 for every rollout that failed, as an
    # unscored one does.
    return {name: verdict.parts.get(name) for name in parts} | {
        "score": verdict.reward,
        "accuracy": verdict.score,
        "format": verdict.format,
        "status": verdict.status,
        "reason": verdict.reason,
    }
