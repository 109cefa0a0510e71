"""A task of one's own: a dark square, judged by the verifiers that exist."""

from __future__ import annotations

import numpy as np

from tasks import Scene, SceneObject, Split, Task
from tasks.canvas import LIGHT, gradient, rectangle
from tasks.task import boxed, boxes


def dark_square(rng: np.random.Generator, split: Split) -> Scene:
    """One dark square on even coordinates; one box question and three short ones."""
    canvas = gradient(rng, LIGHT)
    x, y, side = (int(value) * 2 for value in rng.integers(4, 12, size=3))
    rectangle(canvas, (x, y, x + side, y + side), (20, 20, 20))
    square = SceneObject(label="square", box=(x, y, x + side, y + side))
    half = "left" if x + side / 2 < 32 else "right"
    questions = (
        boxes("box", "box the square.", [square], "square"),
        boxed("width", "how wide is it?", side, "number"),
        boxed("half", "left or right?", half, "text"),
        boxed("corner", "how far is it from the left?", x, "number"),
    )
    return Scene(image=canvas, objects=(square,), questions=questions)


TASK = Task(
    name="squares",
    verifiers=("detection", "number", "text"),
    judged_by="overlap with the box; equal number or word",
    sources={"dark_square": dark_square},
    licence="Apache-2.0",
    in_macro=False,
)
