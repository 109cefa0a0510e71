"""The cards of the report's gallery: held-out rows with image, boxes, answers and verdicts."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from data_specs import Box
from verifiers import parse_boxes
from vl.report.run_view import HeldOutRow, RunView, in_page_order, is_correct
from vl.rundir import Answer, image_path

SHOWN_WIDTH_PX = 256
"""How wide the page shows an image; larger originals are shrunk to it before they are stored."""


class Picture(NamedTuple):
    """An image as the page holds it: once, however many cards show it."""

    key: str
    data_url: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class CountedAnswer:
    """A sampled answer and how many samples of the row gave exactly this one."""

    answer: Answer
    count: int
    verdict: str


@dataclass(frozen=True, kw_only=True)
class PhaseAnswers:
    """What one phase's model answered."""

    phase: str
    greedy: Answer
    verdict: str
    """`correct`, `incorrect` or `unscored`: the greedy answer."""
    boxes: Sequence[Box]
    """Those of the greedy answer, in per mille."""
    samples: Sequence[CountedAnswer]
    num_samples: int
    num_correct: int


@dataclass(frozen=True, kw_only=True)
class Card:
    """One held-out row of the gallery."""

    row: HeldOutRow
    picture: Picture | None
    true_boxes: Sequence[Box]
    answers: Sequence[PhaseAnswers]


def compared_phases(run: RunView) -> tuple[str, str] | None:
    """(before, after): SFT and RL where both were evaluated, else the first and the last."""
    phases = run.phases
    if not phases:
        return None
    after = "rl" if "rl" in phases else phases[-1]
    before = "sft" if "sft" in phases and after != "sft" else phases[0]
    return before, after


def choose_rows(
    rows: Sequence[HeldOutRow], before: str, after: str, per_source: int
) -> list[HeldOutRow]:
    """At most `per_source` rows of each source, right and wrong ones in turn.

    The four kinds (newly right, right twice, wrong twice, newly wrong) take turns, so that a kind
    with few rows is seen. Within a kind the order is that of a hash of the id: the same rows are
    chosen in each run on the same data, and no row is chosen because it looks good. The sources
    take turns too, so that the first cards show every task.
    """
    by_source: dict[tuple[str, str], dict[tuple[bool, bool], list[HeldOutRow]]] = {}
    for row in sorted(rows, key=_hash_of):
        right = tuple(
            phase in row.greedy and is_correct(row.greedy[phase]) for phase in (before, after)
        )
        kinds = by_source.setdefault((row.line["task"], row.line["source"]), {})
        kinds.setdefault((right[0], right[1]), []).append(row)
    keys = [
        key
        for task in in_page_order({task: None for task, _ in by_source})
        for key in sorted(key for key in by_source if key[0] == task)
    ]
    # each source starts with another kind, so that the first cards are not all of one kind
    columns = [_in_turn(by_source[key], per_source, start) for start, key in enumerate(keys)]
    return [row for rank in itertools.zip_longest(*columns) for row in rank if row is not None]


def make_cards(run: RunView, rows: Sequence[HeldOutRow]) -> list[Card]:
    """The cards of the chosen rows; a row whose image is not stored has no picture."""
    pictures: dict[str, Picture | None] = {}
    cards: list[Card] = []
    for row in rows:
        image_id = row.line["image_id"]
        if image_id is not None and image_id not in pictures:
            path = image_path(run.run_dir, image_id)
            pictures[image_id] = _load_picture(path, f"picture-{len(pictures)}")
        true_boxes = parse_boxes(row.line["ground_truth"]) or ()
        cards.append(
            Card(
                row=row,
                picture=None if image_id is None else pictures[image_id],
                true_boxes=true_boxes,
                answers=[
                    _phase_answers(phase, answer, row.samples.get(phase, ()), bool(true_boxes))
                    for phase, answer in row.greedy.items()
                ],
            )
        )
    return cards


def verdict_of(answer: Answer) -> str:
    """`correct`, `incorrect` or `unscored`."""
    if answer["score"] is None:
        return "unscored"
    return "correct" if is_correct(answer) else "incorrect"


def _phase_answers(
    phase: str, greedy: Answer, samples: Sequence[Answer], has_boxes: bool
) -> PhaseAnswers:
    counts = Counter((sample["response"], sample["score"]) for sample in samples)
    first = {(sample["response"], sample["score"]): sample for sample in reversed(samples)}
    return PhaseAnswers(
        phase=phase,
        greedy=greedy,
        verdict=verdict_of(greedy),
        boxes=(parse_boxes(greedy["response"]) or ()) if has_boxes else (),
        samples=[
            CountedAnswer(answer=first[key], count=count, verdict=verdict_of(first[key]))
            for key, count in counts.most_common()
        ],
        num_samples=len(samples),
        num_correct=sum(is_correct(sample) for sample in samples),
    )


def _in_turn(
    kinds: Mapping[tuple[bool, bool], list[HeldOutRow]], limit: int, start: int
) -> list[HeldOutRow]:
    order = [(False, True), (True, True), (False, False), (True, False)]
    queues = [list(kinds.get(order[(start + turn) % 4], ())) for turn in range(4)]
    chosen: list[HeldOutRow] = []
    while len(chosen) < limit and any(queues):
        for queue in queues:
            if queue and len(chosen) < limit:
                chosen.append(queue.pop(0))
    return chosen


def _hash_of(row: HeldOutRow) -> str:
    name = f"{row.line['source']}\n{row.line['id']}"
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _load_picture(path: Path, key: str) -> Picture | None:
    if not path.exists():
        return None
    with Image.open(path) as image:
        width, height = image.size
        data = path.read_bytes()
        if width > 2 * SHOWN_WIDTH_PX:
            image = image.convert("RGB")
            image.thumbnail((2 * SHOWN_WIDTH_PX, 4 * SHOWN_WIDTH_PX))
            buffer = io.BytesIO()
            image.save(buffer, format="PNG")
            data = buffer.getvalue()
    encoded = base64.b64encode(data).decode("ascii")
    return Picture(key, f"data:image/png;base64,{encoded}", width, height)
