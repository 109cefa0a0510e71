"""The page of a scored MEGA-Bench run: means with intervals, tasks, and a gallery of responses."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from verifiers.megabench.aggregate import DIMENSIONS, official_dimensions
from verifiers.megabench.compare import Interval, intervals, scores_by_task
from verifiers.megabench.files import QueryRecord, TaskRecord, query_score
from verifiers.megabench.score_file import unscored_reasons
from vl.report.render import asset, make_environment

CARDS_PER_TASK = 2
"""Default of how many queries of each task the gallery shows."""

_PICTURE_PX = 320
_RESPONSE_CHARS_MAX = 6000
_TITLES = {
    "app": "Applications",
    "skills": "Skills",
    "input_format": "Input formats",
    "output_format": "Output formats",
    "input_num": "Numbers of images",
}
_MODES = {
    "compat": "Scored in compat mode: upstream's scores, comparable with published ones.",
    "sound": "Scored in sound mode: upstream's oddities corrected, not comparable with published "
    "scores.",
}


class Table(NamedTuple):
    """Means of one dimension."""

    title: str
    first: str
    rows: Sequence[tuple[str, Interval]]
    is_main: bool


class FieldView(NamedTuple):
    """A field of a query."""

    name: str
    reference: str
    score: float | None
    remark: str
    """Why it is unscored."""


class UnscoredReason(NamedTuple):
    """Why queries are unscored, and how many of each task."""

    reason: str
    tasks: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Card:
    """A query of the gallery."""

    task: str
    application: str
    query_idx: int
    description: str
    question: str
    fields: Sequence[FieldView]
    response: str
    score: float | None
    verdict: str
    """`correct` at 1, `incorrect` at 0, `partial` between, `unscored`."""
    picture: str | None
    """Data URL of the query's first image."""
    num_media: int


def render_results(
    path: Path,
    records: Sequence[TaskRecord],
    groups: Mapping[str, Interval],
    *,
    name: str = "",
    mode: str = "compat",
    media: Path = Path(),
    per_task: int = CARDS_PER_TASK,
) -> Path:
    """Writes the page, which needs nothing else and makes no request, and returns its path.

    Args:
        groups: means of the sets and of each keyword, as `compare.intervals` gives them.
        media: the folder that holds `data/`; images that are not there are left out.
    """
    scores = scores_by_task(records)
    by_task = intervals(scores, {task: [task] for task in scores})
    page = (
        make_environment()
        .get_template("megabench.html.j2")
        .render(
            name=name or path.resolve().parent.name,
            style=asset("report.css"),
            script=asset("report.js"),
            headline=_headline(groups),
            mode_note=_MODES[mode],
            tables=_tables(groups),
            tasks=sorted(by_task.items(), key=lambda item: item[1].mean),
            unscored=_unscored(records),
            cards=list(choose_cards(records, media, per_task)),
            num_queries=sum(len(record["query_response"]) for record in records),
            per_task=per_task,
        )
    )
    part = path.with_suffix(".part")
    part.write_text(page, encoding="utf-8", errors="replace")
    os.replace(part, path)
    return path


def choose_cards(records: Iterable[TaskRecord], media: Path, per_task: int) -> Iterable[Card]:
    """Some queries of each task, right, partial, wrong and unscored ones in turn.

    The order within a kind is that of a hash, and each task starts with another kind: nothing is
    chosen because it looks good.
    """
    for number, record in enumerate(records):
        kinds: dict[str, list[QueryRecord]] = {}
        for query in sorted(record["query_response"], key=lambda q: _hash(record, q)):
            kinds.setdefault(verdict_of(query), []).append(query)
        order = sorted(kinds)
        queues = [kinds[order[(number + turn) % len(order)]] for turn in range(len(order))]
        taken = 0
        while taken < per_task and any(queues):
            for queue in queues:
                if queue and taken < per_task:
                    yield _card(record, queue.pop(0), media)
                    taken += 1


def verdict_of(query: QueryRecord) -> str:
    """`correct`, `partial`, `incorrect` or `unscored`; not applicable counts as 0."""
    score = query_score(query)
    if score is None:
        return "unscored"
    return "correct" if score >= 1 else "partial" if score > 0 else "incorrect"


def _card(record: TaskRecord, query: QueryRecord, media: Path) -> Card:
    dimensions = official_dimensions().get(record["task_name"])
    response = query["response"]
    cut = f"{response[:_RESPONSE_CHARS_MAX]} … ({len(response)} characters)"
    return Card(
        task=record["task_name"],
        application=dimensions["app"].replace("_", " ") if dimensions else "other",
        query_idx=query["query_idx"],
        description=record["global_description"],
        question=query["query_text"],
        fields=_fields(query),
        response=response if len(response) <= _RESPONSE_CHARS_MAX else cut,
        score=query_score(query),
        verdict=verdict_of(query),
        picture=_picture(media, query["images"] or record["global_images"]),
        num_media=len(query["images"]) + len(record["global_images"]),
    )


def _fields(query: QueryRecord) -> list[FieldView]:
    scores = query.get("scores")
    unscored = None if scores is None else scores.get("unscored")
    known = {} if scores is None else scores["field"] | (unscored["field"] if unscored else {})
    reasons = unscored["reasons"] if unscored else {}
    names = [*query["correct_answer"], *(n for n in known if n not in query["correct_answer"])]
    return [
        FieldView(
            name=name,
            reference=str(query["correct_answer"].get(name, "")),
            score=known.get(name),
            remark=reasons.get(name, ""),
        )
        for name in names
    ]


def _picture(media: Path, paths: Sequence[str]) -> str | None:
    for path in paths[:1]:
        try:
            with Image.open(media / path) as image:
                image.thumbnail((_PICTURE_PX, _PICTURE_PX))
                buffer = io.BytesIO()
                image.convert("RGB").save(buffer, "JPEG", quality=80)
        except (OSError, ValueError, SyntaxError):  # a video, or not there
            return None
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return None


def _headline(groups: Mapping[str, Interval]) -> str:
    found = [
        f"{name} {100 * groups[key].mean:.2f} % ({groups[key].num_tasks} tasks)"
        for key, name in (("core", "Core"), ("open", "Open"), ("overall", "Overall"))
        if key in groups
    ]
    return ", ".join(found) + "." if found else "No task is scored."


def _tables(groups: Mapping[str, Interval]) -> list[Table]:
    sets = [(key.capitalize(), groups[key]) for key in ("core", "open", "overall") if key in groups]
    tables = [Table("Sets", "Set", sets, True)]
    for dimension in ("app", *(name for name in DIMENSIONS if name != "app")):
        prefix = f"{dimension}/"
        rows = [
            (label.removeprefix(prefix).replace("_", " "), interval)
            for label, interval in groups.items()
            if label.startswith(prefix)
        ]
        if rows:
            tables.append(Table(_TITLES[dimension], "Keyword", rows, False))
    return tables


def _unscored(records: Iterable[TaskRecord]) -> list[UnscoredReason]:
    found: dict[str, dict[str, int]] = {}
    for task, reasons in unscored_reasons(records).items():
        for reason, num_queries in reasons.items():
            found.setdefault(reason, {})[task] = num_queries
    return [UnscoredReason(reason, tasks) for reason, tasks in found.items()]


def _hash(record: TaskRecord, query: QueryRecord) -> str:
    return hashlib.sha256(f"{record['task_name']}\n{query['query_idx']}".encode()).hexdigest()
