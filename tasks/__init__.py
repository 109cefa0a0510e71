"""Real-input tasks: eight kinds and one third-party set, two sources a kind, exact ground truth."""

from __future__ import annotations

from importlib.metadata import entry_points

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
    Scene,
    SceneObject,
    Split,
    Task,
)

ENTRY_POINTS = "vl_triune.tasks"
"""Entry-point group by which another package adds a `Task`."""

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
        ValueError: an entry point is not a `Task`, or takes a name or source that is in use.
    """
    tasks = dict(TASKS)
    for entry in entry_points(group=ENTRY_POINTS):
        task: object = entry.load()
        taken = {source for known in tasks.values() for source in known.sources}
        if not isinstance(task, Task) or task.name in tasks or taken & set(task.sources):
            raise ValueError(
                f"entry point {entry.name!r} ({entry.value}) of group {ENTRY_POINTS}: found "
                f"{task!r}, allowed: a tasks.Task whose name and sources are new; rename it"
            )
        tasks[task.name] = task
    return tasks


__all__ = [
    "ENTRY_POINTS",
    "TASKS",
    "Maker",
    "MissingDataError",
    "Question",
    "Scene",
    "SceneObject",
    "Split",
    "Task",
    "installed_tasks",
]
