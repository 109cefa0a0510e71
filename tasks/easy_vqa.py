"""Easy-VQA: a third party's images and questions, with its own published split."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from tasks.packaged import packaged_file
from tasks.task import (
    NUM_QUESTIONS,
    Scene,
    Split,
    boxed,
)


class _Asked(NamedTuple):
    text: str
    answer: str


@lru_cache(maxsize=2)
def _images(split: str) -> list[tuple[int, tuple[_Asked, ...]]]:
    """Image numbers with at least four questions, in a fixed shuffle."""
    path = packaged_file("easy_vqa", f"data/{split}/questions.json", "easy-vqa")
    rows: list[tuple[str, str, int]] = json.loads(path.read_text(encoding="utf-8"))
    asked: dict[int, list[_Asked]] = {}
    for text, answer, image in rows:
        asked.setdefault(image, []).append(_Asked(text, answer))
    whole = [(n, tuple(q)) for n, q in sorted(asked.items()) if len(q) >= NUM_QUESTIONS]
    order = np.random.default_rng(64).permutation(len(whole))
    return [whole[int(i)] for i in order]


def easy_vqa(rng: np.random.Generator, split: Split) -> Scene:
    """The split's image at `split.index` (repeating after the last), four of its questions.

    Answers that the image's other questions do not share are preferred: most are yes or no.
    """
    images = _images(split.name)
    number, asked = images[split.index % len(images)]
    path = packaged_file("easy_vqa", f"data/{split.name}/images", "easy-vqa") / f"{number}.png"
    with path.open("rb") as file:
        pixels = np.array(Image.open(file).convert("RGB"))
    shuffled = [asked[int(i)] for i in rng.permutation(len(asked))]
    first = {question.answer: question for question in reversed(shuffled)}
    chosen = [first[a] for a in dict.fromkeys(question.answer for question in shuffled)]
    chosen += [question for question in shuffled if question not in chosen]
    questions = tuple(
        boxed(_kind(question), question.text, question.answer, "text", ignore_case=True)
        for question in chosen[:NUM_QUESTIONS]
    )
    return Scene(image=pixels, objects=(), questions=questions)


def _kind(question: _Asked) -> str:
    if question.answer in ("yes", "no"):
        return "vqa_yes_no"
    return "vqa_shape" if question.answer in ("circle", "rectangle", "triangle") else "vqa_colour"
