"""Real-input tasks: eight kinds and one third-party set, two sources a kind, exact ground truth."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from tasks.arithmetic import font_geometry, mnist_sum
from tasks.charts import stocks_lines, vega_bars
from tasks.counting import mnist_count, openmoji_count
from tasks.detection import mnist_detect, openmoji_detect
from tasks.easy_vqa import easy_vqa
from tasks.grounding import mnist_colour, openmoji_relation
from tasks.ocr import font_words, mnist_rows
from tasks.puzzles import arc_grids, odd_icon
from tasks.science import elements_tile, instruments
from tasks.task import (
    Maker,
    MissingDataError,
    Question,
    Reader,
    Scene,
    SceneObject,
    Split,
    Task,
)

ENTRY_POINTS = "vl_triune.tasks"
"""Entry-point group by which another package adds a `Task`, under the task's name."""

TASKS: dict[str, Task] = {
    "math": Task(
        name="math",
        verifiers=("mathverify",),
        judged_by="equal as mathematics",
        sources={"mnist_sum": mnist_sum, "font_geometry": font_geometry},
    ),
    "puzzle": Task(
        name="puzzle",
        verifiers=("number", "text"),
        judged_by="equal number, or equal word",
        sources={"odd_icon": odd_icon, "arc_grids": arc_grids},
    ),
    "chart": Task(
        name="chart",
        verifiers=("number", "text"),
        judged_by="number within 5 %, or equal letter or word",
        sources={"vega_bars": vega_bars, "stocks_lines": stocks_lines},
    ),
    "science": Task(
        name="science",
        verifiers=("number", "text"),
        judged_by="equal number, or equal text",
        sources={"elements_tile": elements_tile, "instruments": instruments},
    ),
    "grounding": Task(
        name="grounding",
        verifiers=("detection",),
        judged_by="overlap with the one right box",
        sources={"openmoji_relation": openmoji_relation, "mnist_colour": mnist_colour},
    ),
    "detection": Task(
        name="detection",
        verifiers=("detection",),
        judged_by="overlap with every instance's box",
        sources={"openmoji_detect": openmoji_detect, "mnist_detect": mnist_detect},
    ),
    "counting": Task(
        name="counting",
        verifiers=("number",),
        judged_by="equal number",
        sources={"openmoji_count": openmoji_count, "mnist_count": mnist_count},
    ),
    "ocr": Task(
        name="ocr",
        verifiers=("text",),
        judged_by="equal text, capitals count",
        sources={"mnist_rows": mnist_rows, "font_words": font_words},
    ),
    "vqa": Task(
        name="vqa",
        verifiers=("text",),
        judged_by="equal word",
        sources={"easy_vqa": easy_vqa},
        in_macro=False,
    ),
}
"""Task kind -> its makers; the eight kinds of V-Triune, and Easy-VQA apart from them."""


def installed_tasks() -> dict[str, Task]:
    """`TASKS` and the tasks that installed packages add under the group `vl_triune.tasks`.

    Raises:
        ValueError: an entry point is not a `Task` of its name, or takes a name or source in use.
    """
    tasks = dict(TASKS)
    for entry in _entry_points():
        task = _load(entry)
        taken = {source for known in tasks.values() for source in known.source_names}
        if task.name in tasks or taken & set(task.source_names):
            raise ValueError(_wrong(entry, task))
        tasks[task.name] = task
    return tasks


def find_task(name: str) -> Task | None:
    """The task of that name, ours first, then installed ones; None if there is none.

    Raises: ValueError as `installed_tasks`, but only about that name.
    """
    own = TASKS.get(name)
    if own is not None:
        return own
    return next((_load(entry) for entry in _entry_points() if entry.name == name), None)


@cache
def _entry_points() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=ENTRY_POINTS))


@cache
def _load(entry: EntryPoint) -> Task:
    task: object = entry.load()
    if not isinstance(task, Task) or task.name != entry.name:
        raise ValueError(_wrong(entry, task))
    return task


def _wrong(entry: EntryPoint, found: object) -> str:
    return (
        f"entry point {entry.name!r} ({entry.value}) of group {ENTRY_POINTS}: found {found!r}, "
        "allowed: a tasks.Task of the entry point's name, whose name and sources are new; rename it"
    )


__all__ = [
    "ENTRY_POINTS",
    "TASKS",
    "Maker",
    "MissingDataError",
    "Question",
    "Reader",
    "Scene",
    "SceneObject",
    "Split",
    "Task",
    "find_task",
    "installed_tasks",
]
