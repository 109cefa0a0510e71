"""Rewards for TRL's GRPOTrainer and its kin: `TrlReward`, a reward function.

Written against TRL 1.16. A response that could not be judged is `None` to TRL, which from 1.6 on
leaves it out of its group's baseline and gives it no advantage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

from data_specs import DataSpecError, Sample
from verifiers.adapters.judging import Judge, Judges, score_rows
from verifiers.iou_rule import IouRule, ScoreContext, StagedIou
from verifiers.scorer import PoolScoring, Scoring
from verifiers.verdict import Verdict

_TRL_NEEDED = (1, 6)  # before it, GRPOTrainer summed a row of only None to 0


@dataclass(frozen=True, kw_only=True)
class TrlReward:
    """A reward function for `GRPOTrainer(reward_funcs=...)`.

    Rows of V-Triune's columns (data_source, reward_model, extra_info) need no settings: each
    names its judge. Plain rows have a reference in one column, and `judge` names who judges.

        GRPOTrainer(model, reward_funcs=TrlReward(), ...)
        GRPOTrainer(model, reward_funcs=TrlReward(judge=Judge(verifier="mathverify")), ...)
    """

    judge: Judge | None = None
    """Judge of rows that name none; None = such a row is an error."""
    by_source: Mapping[str, Judge] = field(default_factory=lambda: dict[str, Judge]())
    """Judge of rows that name none, by their `data_source`; wins over `judge`."""
    reference_column: str = "solution"
    """Column with the reference of rows that have no `reward_model`."""
    iou_rule: IouRule = StagedIou()
    """IoU that boxes must reach where the row does not say; staged by the trainer's progress."""
    scoring: Scoring = PoolScoring()
    """Killable processes here, or reward servers."""
    name: str = "honest_reward"
    """What TRL logs it as, `rewards/<name>/mean`; two in one trainer need two names."""

    @property
    def __name__(self) -> str:
        """The name under which TRL logs the function."""
        return self.name

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Any] | None = None,
        *,
        trainer_state: Any = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward in [0, 1] a completion, None where it could not be judged.

        Args:
            prompts: not looked at.
            completions: texts, or lists of chat messages.
            completion_ids: not looked at.
            trainer_state: TRL's; its steps give the progress that staged IoU rules follow.
            log_extra: takes `<name>_status` and `<name>_reason` of every completion.
            log_metric: takes `rewards/<name>/<data_source>/<metric>`, see `source_metrics`.
            columns: the rows' columns, a list each.

        Raises: ValueError if nobody is named to judge a row, RuntimeError if TRL is too old to
        take None for what it means.
        """
        rows = [self._row(columns, index) for index in range(len(completions))]
        responses = [response_text(completion) for completion in completions]
        context = ScoreContext(progress=_progress(trainer_state), iou_rule=self.iou_rule)
        verdicts = score_rows(rows, responses, self.scoring, context)
        if log_extra is not None:
            log_extra(f"{self.name}_status", [verdict.status for verdict in verdicts])
            log_extra(f"{self.name}_reason", [verdict.reason for verdict in verdicts])
        if log_metric is not None:
            given = columns.get("data_source") or [None] * len(verdicts)
            sources = [str(source or self.name) for source in given]
            for metric, value in source_metrics(sources, verdicts).items():
                log_metric(f"rewards/{self.name}/{metric}", value)
        rewards = [verdict.reward for verdict in verdicts]
        if None in rewards:
            _refuse_old_trl()
        return rewards

    def _row(self, columns: Mapping[str, Any], index: int) -> Sample | DataSpecError:
        """Row `index` of the columns."""

        def cell(name: str) -> Any:
            return columns[name][index] if name in columns else None

        reward_model: Mapping[str, Any] | None = cell("reward_model")
        if reward_model is None:
            if self.reference_column not in columns:
                raise ValueError(
                    f"the rows have neither reward_model nor {self.reference_column!r}, but "
                    f"{', '.join(sorted(columns)) or 'no column'}; name the column of the "
                    "references as TrlReward(reference_column=...)"
                )
            reward_model = {"ground_truth": cell(self.reference_column)}
        judges = Judges(default=self.judge, by_source=self.by_source)
        try:
            return judges.sample(
                source=cell("data_source"),
                reward_model=reward_model,
                extra=cell("extra_info") or {},
                task=cell("ability"),
                place="batch",
                number=index,
            )
        except DataSpecError as error:
            return error


def response_text(completion: object) -> str:
    """The text of a completion: itself, or the last assistant message's, thinking included."""
    if isinstance(completion, str):
        return completion
    messages = cast("Sequence[Mapping[str, Any]]", completion)
    spoken = [message for message in messages if message.get("role") == "assistant"]
    if not spoken:
        return ""
    thinking = spoken[-1].get("reasoning_content") or spoken[-1].get("thinking")
    content: Any = spoken[-1].get("content") or ""
    if not isinstance(content, str):
        content = "".join(str(part.get("text") or "") for part in content)
    return f"<think>{thinking}</think>{content}" if thinking else content


def source_metrics(sources: Sequence[str], verdicts: Sequence[Verdict]) -> dict[str, float]:
    """`<data_source>/<metric>`: mean reward, accuracy and format of what was scored; the share of
    `unscored`, in [0, 1].
    """
    metrics: dict[str, float] = {}
    for source in sorted(set(sources)):
        of_source = [v for s, v in zip(sources, verdicts, strict=True) if s == source]
        values = {
            "reward": [v.reward for v in of_source],
            "accuracy": [v.score for v in of_source],
            "format": [v.format for v in of_source],
        }
        for name, given in values.items():
            numbers = [value for value in given if value is not None]
            if numbers:
                metrics[f"{source}/{name}"] = sum(numbers) / len(numbers)
        unscored = sum(verdict.reward is None for verdict in of_source)
        metrics[f"{source}/unscored"] = unscored / len(of_source)
    return metrics


def _refuse_old_trl() -> None:
    """Raise if the installed TRL would train on an unscored response as if its reward were 0."""
    try:
        installed = version("trl")
    except PackageNotFoundError:  # another trainer that calls its reward functions alike
        return
    if tuple(int(part) for part in installed.split(".")[:2]) < _TRL_NEEDED:
        raise RuntimeError(
            f"a response could not be judged, and TRL {installed} would train on it as a 0; "
            f"TRL {'.'.join(map(str, _TRL_NEEDED))} leaves it out: pip install -U trl"
        )


def _progress(trainer_state: Any) -> float:
    """Fraction of steps done; 1 outside of training, where there are no steps."""
    if trainer_state is None or not trainer_state.max_steps:
        return 1.0
    return min(1.0, trainer_state.global_step / trainer_state.max_steps)
