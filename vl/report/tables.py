"""The tables of the report as plain rows; the template only lays them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vl.report.run_view import (
    Evaluation,
    Interval,
    PhaseScores,
    RunView,
    Scores,
    in_page_order,
)
from vl.rundir import MACRO_TASKS

SHOWN_DIFFERENCES = ("rl - init", "rl - sft", "rl - control")
"""Columns of differences in the before/after table; the others stay in eval.json."""


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """A line of the before/after table."""

    name: str
    kind: str
    """`macro`, `task`, `source`, or `apart` for a task outside the macro average."""
    phases: Sequence[Interval | None]
    """One for each evaluated phase; None where that phase lacks the row."""
    differences: Sequence[Interval | None]
    """One for each of the table's difference columns."""
    n: int | None
    """Rows (or, for the macro average, whatever eval.json counts) behind the last phase."""


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """Before and after by one measure."""

    measure: str
    phases: Sequence[str]
    differences: Sequence[str]
    rows: Sequence[ResultRow]


@dataclass(frozen=True, kw_only=True)
class UnscoredRow:
    """Counts of verdicts without a score for one source; None where not measured."""

    source: str
    task: str
    evaluated: Sequence[int | None]
    """One for each evaluated phase."""
    training: int | None
    """Sum over the RL steps."""

    @property
    def is_sick(self) -> bool:
        """True if anything of this source went unscored."""
        return any(count for count in (*self.evaluated, self.training))


def result_tables(run: RunView) -> list[ResultTable]:
    """One table a measure: the macro average, then each task with its sources."""
    evaluation = run.evaluation
    if evaluation is None:
        return []
    columns = [name for name in SHOWN_DIFFERENCES if name in evaluation.differences]
    return [
        ResultTable(
            measure=measure,
            phases=list(evaluation.phases),
            differences=columns,
            rows=_result_rows(evaluation, run.task_of_source, measure, columns),
        )
        for measure in evaluation.measures
    ]


def unscored_rows(run: RunView) -> list[UnscoredRow]:
    """One row a source that was evaluated or trained on, tasks in the order of the page."""
    phases = list(run.evaluation.phases.values()) if run.evaluation is not None else []
    training: dict[str, int] = {}
    for line in run.metrics:
        for key, value in line.items():
            name = key.removeprefix("source/").removesuffix("/unscored")
            if line.get("stage") == "rl" and key == f"source/{name}/unscored":
                training[name] = training.get(name, 0) + round(value)
    sources = {name for phase in phases for name in phase.sources} | set(training)
    rows: list[UnscoredRow] = []
    for task, names in _by_task(sources, run.task_of_source).items():
        for name in names:
            found = [phase.sources.get(name) for phase in phases]
            rows.append(
                UnscoredRow(
                    source=name,
                    task=task,
                    evaluated=[None if scores is None else scores.unscored for scores in found],
                    training=training.get(name),
                )
            )
    return rows


def seconds_rows(run: RunView) -> list[tuple[str, float | None, float | None]]:
    """(stage, wall seconds, CPU seconds), from eval.json, else from the last step of each stage."""
    seconds: dict[str, Mapping[str, float | None]] = {
        str(line["stage"]): {"wall_s": line.get("time_s"), "cpu_s": line.get("cpu_s")}
        for line in run.metrics
    }
    if run.evaluation is not None:
        seconds |= run.evaluation.seconds
    return [(stage, value.get("wall_s"), value.get("cpu_s")) for stage, value in seconds.items()]


def step_seconds(run: RunView) -> list[tuple[str, float]]:
    """(part of an RL step, its mean seconds) from the `seconds/<part>` keys."""
    totals: dict[str, list[float]] = {}
    for line in run.metrics:
        if line.get("stage") == "rl":
            for key, value in line.items():
                if key.startswith("seconds/"):
                    totals.setdefault(key.removeprefix("seconds/"), []).append(value)
    return [(part, sum(values) / len(values)) for part, values in totals.items()]


def _by_task(sources: set[str], task_of_source: Mapping[str, str]) -> dict[str, list[str]]:
    """Tasks in the order of the page -> their sources by name; '?' if a source's is unknown."""
    grouped: dict[str, list[str]] = {}
    for name in sorted(sources):
        grouped.setdefault(task_of_source.get(name, "?"), []).append(name)
    return {task: grouped[task] for task in in_page_order(grouped)}


def _result_rows(
    evaluation: Evaluation, task_of_source: Mapping[str, str], measure: str, columns: Sequence[str]
) -> list[ResultRow]:
    phases = list(evaluation.phases.values())
    compared = [evaluation.differences[name] for name in columns]
    tasks = {name: None for phase in phases for name in phase.tasks}
    sources = _by_task({name for phase in phases for name in phase.sources}, task_of_source)

    def row(name: str, kind: str) -> ResultRow:
        intervals = [_find(phase, kind, name, measure) for phase in phases]
        measured = [interval for interval in intervals if interval is not None]
        return ResultRow(
            name=name,
            kind=kind,
            phases=intervals,
            differences=[_find(difference, kind, name, measure) for difference in compared],
            n=measured[-1].n if measured else None,
        )

    rows = [row("Macro average", "macro")]
    for task in in_page_order(dict.fromkeys([*tasks, *sources])):
        if task in tasks:
            rows.append(row(task, "task" if task in MACRO_TASKS else "apart"))
        rows += [row(source, "source") for source in sources.get(task, ())]
    return rows


def _find(phase: PhaseScores, kind: str, name: str, measure: str) -> Interval | None:
    if kind == "macro":
        scores: Scores | None = phase.macro
    else:
        scores = (phase.sources if kind == "source" else phase.tasks).get(name)
    return None if scores is None else scores.by_measure.get(measure)
