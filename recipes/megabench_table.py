"""MEGA-Bench results as tables: a model by group, several in the paper's columns, a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from data_specs import shorten
from data_specs.megabench import MegaTask
from verifiers.megabench.aggregate import TaskResult, aggregate, keyword_stats, with_dimensions
from verifiers.megabench.compare import Comparison, Difference, Interval
from verifiers.megabench.gold import Imperfect

Tasks = Literal["core", "open", "all"]
Form = Literal["text", "md", "csv", "latex"]

APPLICATIONS = {
    "Knowledge": "Knowledge",
    "Mathematics": "Mathematics",
    "Perception": "Perception",
    "Coding": "Coding",
    "Information_Extraction": "Info. Ex.",
    "Planning": "Planning",
    "Science": "Science",
    "Metrics": "Metrics",
}
"""Application -> its column, in the order of the paper's table."""

_SETS = ("core", "open", "overall")


class Row(NamedTuple):
    """A model in the paper's table: percent, None where it has no such task."""

    name: str
    by_application: Mapping[str, float | None]
    overall: float | None
    num_tasks: int


def paper_row(name: str, results: Sequence[TaskResult], tasks: Tasks = "core") -> Row:
    """Means of the tasks' means by application, and over all tasks, of the core or open tasks."""
    kind = {"core": "rule", "open": "llm"}.get(tasks)
    kept = [result for result in results if kind is None or result["eval_type"] == kind]
    joined = with_dimensions(kept)
    by_app = keyword_stats(joined.values())["app"]
    summary = aggregate(kept)["model_summary"]
    part = summary["open"] if tasks == "open" else summary["core"]
    overall = summary["overall_score"] if tasks == "all" else part and part["macro_mean_score"]
    return Row(
        name=name,
        by_application={
            app: 100 * by_app[app]["average_score"] if app in by_app else None
            for app in APPLICATIONS
        },
        overall=None if overall is None else 100 * overall,
        num_tasks=len(joined),
    )


def paper_table(rows: Sequence[Row], tasks: Tasks = "core", form: Form = "text") -> str:
    """The rows in the paper's columns, in percent with two decimals."""
    last = {"core": "Core", "open": "Open", "all": "Overall"}[tasks]
    head = ["Model", *APPLICATIONS.values(), last, "Tasks"]
    body = [
        [
            row.name,
            *(_percent(row.by_application[app]) for app in APPLICATIONS),
            _percent(row.overall),
            str(row.num_tasks),
        ]
        for row in rows
    ]
    return _lay_out(head, body, form)


def interval_table(found: Mapping[str, Interval], prefix: str = "app/") -> str:
    """The sets and the keywords of one dimension with their intervals, in percent."""
    body = [
        [
            label.removeprefix(prefix),
            _percent(100 * interval.mean),
            f"{100 * interval.low:.2f} to {100 * interval.high:.2f}",
            str(interval.num_tasks),
            str(interval.num_queries),
        ]
        for label, interval in found.items()
        if label in _SETS or label.startswith(prefix)
    ]
    return _lay_out(["Group", "Mean", "95 % interval", "Tasks", "Queries"], body, "text")


def comparison_table(comparison: Comparison, prefix: str = "app/") -> str:
    """Differences of the sets and of one dimension's keywords, in percentage points."""
    shown = {
        label.removeprefix(prefix): difference
        for label, difference in comparison.differences.items()
        if label in _SETS or label.startswith(prefix)
    }
    head = ["Group", "Difference", "95 % interval", "Clear", "Better", "Worse", "Tasks"]
    return _lay_out(head, [_difference(label, found) for label, found in shown.items()], "text")


def moved_tasks(comparison: Comparison, shown: int = 10) -> str:
    """The tasks that moved most, both ways."""
    moved = sorted(comparison.tasks.items(), key=lambda item: item[1].interval.mean)
    moved = [item for item in moved if item[1].interval.mean]
    kept = moved if len(moved) <= 2 * shown else [*moved[:shown], *moved[-shown:]]
    head = ["Task", "Difference", "95 % interval", "Clear", "Better", "Worse", "Tasks"]
    return _lay_out(head, [_difference(name, found) for name, found in kept], "text")


def sanity_table(found: Sequence[Imperfect], tasks: Sequence[MegaTask]) -> str:
    """A line for each task that does not give its gold answers 1, with its first such query."""
    num_queries = {task.name: len(task.queries) for task in tasks}
    body: list[list[str]] = []
    for name in dict.fromkeys(item.task for item in found):
        items = [item for item in found if item.task == name]
        first = items[0]
        fields = ", ".join(f"{field or 'query'}: {why}" for field, why in first.fields.items())
        share = f"{len(items)} of {num_queries[name]}"
        body.append([name, share, str(first.query_idx), shorten(fields)])
    return _lay_out(["Task", "Queries", "First", "Scores"], body, "text")


def _difference(label: str, found: Difference) -> list[str]:
    interval = found.interval
    return [
        label,
        f"{100 * interval.mean:+.2f}",
        f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}",
        "yes" if found.is_clear else "no",
        str(found.num_better),
        str(found.num_worse),
        str(interval.num_tasks),
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _lay_out(head: Sequence[str], body: Sequence[Sequence[str]], form: Form) -> str:
    lines = [head, *body]
    if form == "csv":
        return "\n".join(",".join(_quoted(cell) for cell in line) for line in lines)
    if form == "latex":
        rows = [" & ".join(cell.replace("_", r"\_") for cell in line) + r" \\" for line in lines]
        return "\n".join([rows[0], r"\midrule", *rows[1:]])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def padded(line: Sequence[str]) -> list[str]:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        return [line[0].ljust(widths[0]), *cells[1:]]

    if form == "md":
        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        rows = [padded(head), rule, *(padded(line) for line in body)]
        return "\n".join(f"| {' | '.join(line)} |" for line in rows)
    return "\n".join("  ".join(padded(line)).rstrip() for line in lines)


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(mark in cell for mark in ',"\n') else cell
