"""Stored MEGA-Bench responses scored, summed up and shown: the work of `vl megabench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_specs import DataSpecError
from data_specs.megabench import CONFIGS, Config, MegaTask, read_tasks
from verifiers.megabench.aggregate import aggregate, application_tree, with_dimensions
from verifiers.megabench.compare import (
    Comparison,
    Interval,
    TaskScores,
    compare,
    groups_of,
    intervals,
    scores_by_task,
)
from verifiers.megabench.files import (
    TaskRecord,
    read_responses,
    read_results,
    task_results,
    write_analysis,
    write_json,
    write_scored,
)
from verifiers.megabench.registry import Judge
from verifiers.megabench.score_file import (
    ScoreOptions,
    missing_queries,
    score_responses,
    unscored_reasons,
)

from .megabench_table import Tasks, interval_table, moved_tasks, paper_row, paper_table
from .progress import Progress, show

NUM_REASONS_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class ScoredFiles:
    """What scoring a response file has written."""

    scored: Path
    """`data_with_scores.json`, in the official layout."""
    analysis: Path
    """Folder of `task_results.json`, `summary_and_keyword_stats.json` and `intervals.json`."""
    page: Path
    """The result page."""


def read_dataset(source: str, configs: Sequence[Config]) -> list[MegaTask]:
    """The tasks of several configurations.

    Raises: DataSpecError if a row cannot be used, or if a task is in two of them.
    """
    tasks: dict[str, MegaTask] = {}
    path = Path(source)
    whole = path.is_file() or (path.is_dir() and not any((path / c).is_dir() for c in CONFIGS))
    for config in (None,) if whole else configs:
        for task in read_tasks(source, config):
            if task.name in tasks:
                raise DataSpecError(
                    f"{source}: task {task.name!r} is in two of the configurations "
                    f"{', '.join(configs)}; give one of each pair"
                )
            tasks[task.name] = task
    return list(tasks.values())


def score_file(
    responses: Path,
    tasks: Sequence[MegaTask],
    out: Path,
    *,
    judge: Judge | None,
    options: ScoreOptions,
) -> ScoredFiles:
    """Scores a response file into `out`, and prints the summary with what is missing."""
    records = read_responses(responses)
    progress = Progress()
    num_queries = sum(len(record["query_response"]) for record in records)
    with progress.task(f"scoring {num_queries} responses", num_queries) as advance:
        score_responses(tasks, records, judge=judge, options=options, on_query=advance)
    out.mkdir(parents=True, exist_ok=True)
    files = ScoredFiles(
        scored=out / "data_with_scores.json",
        analysis=out / "analysis",
        page=out / "report.html",
    )
    write_scored(files.scored, records)
    results = task_results(records)
    write_analysis(files.analysis, results, aggregate(results))
    scores = scores_by_task(records)
    found = intervals(scores, groups_of(scores))
    tree = application_tree(with_dimensions(results).values())
    write_json(files.analysis / "application_tree.json", tree)
    notes = {
        "mode": options.mode,
        "intervals": _as_json(found),
        "unscored": unscored_reasons(records),
    }
    write_json(files.analysis / "intervals.json", notes)
    show(interval_table(found))
    _warn(progress, tasks, records)
    page = _write_page(files.page, records, found, options)
    progress.note(f"scores: {files.scored}\nsummary: {files.analysis}\npage: {page}")
    return files


def show_table(models: Mapping[str, Path], tasks: Tasks, form: Any) -> None:
    """Prints the paper-style table of several scored runs."""
    rows = [paper_row(name, read_results(path), tasks) for name, path in models.items()]
    show(paper_table(rows, tasks, form))


def compare_files(first: Path, second: Path, *, out: Path | None, seed: int) -> Comparison:
    """What the second run has more than the first, printed, and written to `out`."""
    from .megabench_table import comparison_table

    found = compare(read_scores(first), read_scores(second), seed=seed)
    if not found.differences:
        raise ValueError(
            f"{first} and {second}: no task is scored in both on the same queries; give two runs "
            "of the same configuration"
        )
    show(f"second - first, in percentage points\n{comparison_table(found)}\n")
    show(f"tasks that moved most\n{moved_tasks(found)}")
    if found.left_out:
        names = list(found.left_out)
        shown = ", ".join(f"{name} ({found.left_out[name]})" for name in names[:NUM_REASONS_SHOWN])
        more = (
            f" and {len(names) - NUM_REASONS_SHOWN} more" if len(names) > NUM_REASONS_SHOWN else ""
        )
        Progress().note(f"not compared: {shown}{more}")
    if out is not None:
        groups = {"groups": found.differences, "tasks": found.tasks}
        write_json(
            out,
            {
                kind: {name: _difference_as_json(item) for name, item in items.items()}
                for kind, items in groups.items()
            }
            | {"left_out": found.left_out},
        )
    return found


def read_scores(path: Path) -> dict[str, TaskScores]:
    """Query scores of a scored file, or of all in a folder; a judged task wins over a rule one."""
    files = sorted(path.glob("data_with_scores*.json")) if path.is_dir() else [path]
    scores: dict[str, TaskScores] = {}
    for file in files:
        for name, task in scores_by_task(read_responses(file)).items():
            if name not in scores or task.eval_type == "llm":
                scores[name] = task
    if not scores:
        raise ValueError(f"{path}: found no scored task; score it first: vl megabench score")
    return scores


def _warn(progress: Progress, tasks: Sequence[MegaTask], records: Sequence[TaskRecord]) -> None:
    """Says what is missing from the means."""
    missing = missing_queries(tasks, records)
    if missing:
        progress.note(
            f"{sum(missing.values())} queries of {len(missing)} tasks have no response; the means "
            f"of these are over the others: {_some(list(missing))}"
        )
    absent = {task.name for task in tasks} - {record["task_name"] for record in records}
    if absent:
        progress.note(f"{len(absent)} tasks have no responses: {_some(sorted(absent))}")
    by_reason: dict[str, list[str]] = {}
    for name, reasons in unscored_reasons(records).items():
        for reason in reasons:
            by_reason.setdefault(reason, []).append(name)
    for reason, names in list(by_reason.items())[:NUM_REASONS_SHOWN]:
        progress.note(f"unscored, in no mean: {len(names)} tasks ({_some(names)}): {reason}")


def _some(names: Sequence[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _as_json(found: Mapping[str, Interval]) -> dict[str, Any]:
    return {label: interval._asdict() for label, interval in found.items()}


def _difference_as_json(found: Any) -> dict[str, Any]:
    return {
        **found.interval._asdict(),
        "num_better": found.num_better,
        "num_worse": found.num_worse,
        "is_clear": found.is_clear,
    }


def _write_page(
    path: Path, records: Sequence[TaskRecord], found: Mapping[str, Interval], options: ScoreOptions
) -> str:
    """Writes the page; what to tell the user of it."""
    if find_spec("jinja2") is None:
        return "none; it needs jinja2: pip install 'vl-triune[train]'"
    from vl.report.megabench import render_results

    return str(render_results(path, records, found, mode=options.mode, media=options.media))
