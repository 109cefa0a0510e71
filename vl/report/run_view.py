"""Everything the report shows, read from a run directory into typed records.

Each part may be missing: a report is also rendered while the run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vl.rundir import (
    CORRECT_FROM,
    MACRO_TASKS,
    PHASES,
    Answer,
    EvalLine,
    read_config,
    read_eval,
    read_eval_rollouts,
    read_metrics,
    read_rollouts,
)

PHASE_NAMES = {"init": "Init", "sft": "SFT", "rl": "RL", "control": "Control"}
"""How a phase is called on the page."""


class Interval(NamedTuple):
    """A mean with its 95 % interval over `n` rows; a score in [0, 1] or a difference of two."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def is_clear(self) -> bool:
        """True if the interval does not hold zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Results of one task, source or average."""

    by_measure: Mapping[str, Interval]
    """`greedy`, `avg@8`, `pass@8` -> mean with interval."""
    unscored: int | None = None
    """Verdicts without a score; None where eval.json does not say."""


@dataclass(frozen=True, kw_only=True)
class PhaseScores:
    """One evaluation, or the difference of two."""

    macro: Scores
    tasks: Mapping[str, Scores]
    sources: Mapping[str, Scores]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The content of `eval.json`."""

    phases: Mapping[str, PhaseScores]
    differences: Mapping[str, PhaseScores]
    """`rl - sft` and the like -> differences with intervals."""
    seconds: Mapping[str, Mapping[str, float]]
    """Stage -> `cpu_s` and `wall_s`."""
    notes: Sequence[str]

    @property
    def rl_difference(self) -> str:
        """Name of the difference of RL from what it started from: SFT, or the model as given."""
        return "rl - init" if "rl - init" in self.differences else "rl - sft"

    @property
    def measures(self) -> list[str]:
        """Names of the measures, in the order of eval.json."""
        names: dict[str, None] = {}
        for phase in self.phases.values():
            names.update(dict.fromkeys(phase.macro.by_measure))
        return list(names)


@dataclass(frozen=True, kw_only=True)
class HeldOutRow:
    """A held-out row with the answers of every phase that was evaluated on it."""

    line: EvalLine
    """The row as the first of its phases wrote it: question, reference, image."""
    greedy: Mapping[str, Answer]
    """Phase -> greedy answer."""
    samples: Mapping[str, Sequence[Answer]]
    """Phase -> sampled answers."""


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as the report sees it."""

    run_dir: Path
    recipe: str
    seed: int | None
    config: Mapping[str, Any] | None
    metrics: Sequence[Mapping[str, Any]]
    evaluation: Evaluation | None
    rows: Sequence[HeldOutRow]
    task_of_source: Mapping[str, str] = field(default_factory=dict)

    @property
    def phases(self) -> list[str]:
        """Evaluated phases, in order."""
        seen = {phase for row in self.rows for phase in row.greedy}
        if self.evaluation is not None:
            seen |= set(self.evaluation.phases)
        return [phase for phase in PHASES if phase in seen]


def read_run(run_dir: Path) -> RunView:
    """The run in a directory, as far as it has come."""
    config = read_config(run_dir)
    stored = read_eval(run_dir)
    rows = _read_rows(run_dir)
    task_of_source = {line["source"]: line["task"] for line in read_rollouts(run_dir)}
    task_of_source |= {row.line["source"]: row.line["task"] for row in rows}
    named = {**(config or {}), **(stored or {})}
    return RunView(
        run_dir=run_dir,
        recipe=str(named.get("recipe") or named.get("name") or run_dir.resolve().name),
        seed=named.get("seed"),
        config=config,
        metrics=read_metrics(run_dir),
        evaluation=None if stored is None else _parse_evaluation(stored),
        rows=rows,
        task_of_source=task_of_source,
    )


def is_correct(answer: Answer) -> bool:
    """Whether the gallery counts the answer as correct; unscored is not."""
    return answer["score"] is not None and answer["score"] >= CORRECT_FROM


def in_page_order(tasks: Mapping[str, object]) -> list[str]:
    """Task names: those of the macro average first and in its order, then others by name."""
    macro = [task for task in MACRO_TASKS if task in tasks]
    return macro + sorted(set(tasks) - set(MACRO_TASKS))


def _read_rows(run_dir: Path) -> list[HeldOutRow]:
    found: dict[tuple[str, str], dict[str, EvalLine]] = {}
    for phase in PHASES:
        for line in read_eval_rollouts(run_dir, phase):
            found.setdefault((line["source"], line["id"]), {})[phase] = line
    return [
        HeldOutRow(
            line=next(iter(lines.values())),
            greedy={phase: line["greedy"] for phase, line in lines.items()},
            samples={phase: line["samples"] for phase, line in lines.items()},
        )
        for lines in found.values()
    ]


def _parse_evaluation(stored: Mapping[str, Any]) -> Evaluation:
    return Evaluation(
        phases={
            phase: _parse_phase(stored["phases"][phase])
            for phase in PHASES
            if phase in stored.get("phases", {})
        },
        differences={
            name: _parse_phase(difference)
            for name, difference in stored.get("differences", {}).items()
        },
        seconds=stored.get("seconds", {}),
        notes=stored.get("notes", []),
    )


def _parse_phase(stored: Mapping[str, Any]) -> PhaseScores:
    return PhaseScores(
        macro=_parse_scores(stored.get("macro", {})),
        tasks={name: _parse_scores(scores) for name, scores in stored.get("task", {}).items()},
        sources={name: _parse_scores(scores) for name, scores in stored.get("source", {}).items()},
    )


def _parse_scores(stored: Mapping[str, Any]) -> Scores:
    return Scores(
        by_measure={
            name: Interval(value["mean"], value["low"], value["high"], value["n"])
            for name, value in stored.items()
            if isinstance(value, dict)
        },
        unscored=stored.get("unscored"),
    )
