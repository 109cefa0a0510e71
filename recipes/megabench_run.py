"""A policy asked all of MEGA-Bench, query by query: what is answered stays, whatever happens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_specs.megabench import MegaQuery, MegaTask
from tasks.megabench import (
    TOO_MANY_IMAGES,
    Budget,
    VideoReader,
    build_parts,
    check_query,
    must_ask_again,
)
from verifiers.megabench.files import (
    QueryRecord,
    TaskRecord,
    read_json,
    read_responses,
    write_json,
    write_responses,
)

from .megabench_ask import Answered, Asked, Asker

RESPONSES = "all_query_responses.json"
JOURNAL = "responses.part.jsonl"
PROTOCOL = "protocol.json"
PROTOCOL_VERSION = 1
"""Goes up when the same model would be asked differently."""


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What is asked, and where responses go."""

    tasks: Sequence[MegaTask]
    only: frozenset[str] | None = None
    """Names of the tasks to ask; None: all."""
    media: Path
    """The folder that holds `data/`."""
    out: Path
    budget: Budget
    keep_refusals: bool = False
    """A query that the endpoint refuses gets the empty response; else it stays unanswered."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended."""

    num_asked: int
    num_kept: int
    """Responses of an earlier run."""
    refused: Sequence[str]
    """Queries without a response, and what the endpoint said."""


def run_queries(
    plan: RunPlan,
    asker: Asker,
    *,
    videos: VideoReader | None = None,
    on_answer: Callable[[int], None] = lambda done: None,
) -> RunResult:
    """Asks what has no response yet and writes the official response file into `out`.

    A run that stops, however it stops, keeps its responses; the same command goes on with it. Asked
    again are only queries whose text or media have changed, and refusals that came as a response.

    Raises: ValueError if `out` holds responses to another protocol, MediaError before the first
    query if media are missing or leave no room; what the asker raises.
    """
    kept = _kept_responses(plan)
    todo = list(_unanswered(plan, kept))
    for task, query in todo:
        check_query(task, query, plan.media, plan.budget)
    plan.out.mkdir(parents=True, exist_ok=True)
    _claim(plan, asker)
    journal = plan.out / JOURNAL
    _fold(plan, kept)
    num_kept = len(kept)
    refused: list[str] = []
    try:
        with journal.open("w", encoding="utf-8") as file:
            for answered in _answers(plan, asker, todo, videos):
                asked = answered.asked
                where = f"{asked.task.name} query {asked.query.index}"
                response = answered.response
                if response is None:
                    refused.append(f"{where}: {answered.refusal}")
                    response = "" if plan.keep_refusals else None
                if response is not None:
                    kept[asked.task.name, asked.query.index] = response
                    file.write(_line(asked, response))
                    file.flush()
                on_answer(len(kept) - num_kept + (0 if plan.keep_refusals else len(refused)))
    finally:
        _fold(plan, kept)
        journal.unlink(missing_ok=True)
    return RunResult(num_asked=len(kept) - num_kept, num_kept=num_kept, refused=refused)


def num_unanswered(plan: RunPlan) -> int:
    """Queries that a run would ask."""
    return sum(1 for _ in _unanswered(plan, _kept_responses(plan)))


def protocol_of(plan: RunPlan, asker_name: str) -> dict[str, Any]:
    """What decides which responses come out, with its hash."""
    protocol: dict[str, Any] = {
        "version": PROTOCOL_VERSION,
        "benchmark": "MEGA-Bench",
        "policy": asker_name,
        "temperature": 0.0,
        "budget": asdict(plan.budget),
    }
    text = json.dumps(protocol, sort_keys=True)
    return protocol | {"hash": hashlib.sha256(text.encode()).hexdigest()[:16]}


def _claim(plan: RunPlan, asker: Asker) -> None:
    """Writes down the protocol of the folder, or finds the same one there."""
    path = plan.out / PROTOCOL
    protocol = protocol_of(plan, asker.name)
    if not path.exists():
        write_json(path, protocol)
        return
    before: Mapping[str, Any] = read_json(path)
    differ = [key for key in protocol if key != "hash" and protocol[key] != before.get(key)]
    if differ:
        shown = "; ".join(f"{key} {before.get(key)!r}, now {protocol[key]!r}" for key in differ)
        raise ValueError(
            f"--out {plan.out}: holds responses to another protocol ({shown}). Give another "
            "folder, or the settings of that run"
        )


def _kept_responses(plan: RunPlan) -> dict[tuple[str, int], str]:
    """(task, query index) -> the response of an earlier run that still answers the question."""
    digests = {
        (task.name, query.index): _digest(task, query)
        for task in plan.tasks
        for query in task.queries
    }
    kept: dict[tuple[str, int], str] = {}
    for name, index, digest, response in [*_stored(plan.out), *_journal(plan.out)]:
        if digests.get((name, index)) == digest and not must_ask_again(response):
            kept[name, index] = response
    return kept


def _unanswered(
    plan: RunPlan, kept: Mapping[tuple[str, int], str]
) -> Iterator[tuple[MegaTask, MegaQuery]]:
    for task in plan.tasks:
        if plan.only is None or task.name in plan.only:
            yield from ((task, q) for q in task.queries if (task.name, q.index) not in kept)


def _fold(plan: RunPlan, kept: Mapping[tuple[str, int], str]) -> None:
    """Writes the response file; tasks in it that the plan does not know stay as they are."""
    path = plan.out / RESPONSES
    known = {task.name for task in plan.tasks}
    others = read_responses(path) if path.exists() else []
    others = [task for task in others if task["task_name"] not in known]
    write_responses(path, [*_records(plan.tasks, kept), *others])


def _stored(out: Path) -> Iterator[tuple[str, int, str, str]]:
    path = out / RESPONSES
    for task in read_responses(path) if path.exists() else ():
        for query in task["query_response"]:
            digest = _hash(
                task["global_description"],
                task["global_images"],
                task["example_info"]["example_text"],
                task["example_info"]["image_paths"],
                query["query_text"],
                query["images"],
            )
            yield task["task_name"], query["query_idx"], digest, query["response"]


def _journal(out: Path) -> Iterator[tuple[str, int, str, str]]:
    """What a run that was killed has left; a torn last line is passed over."""
    path = out / JOURNAL
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            name, index, digest, response = json.loads(line)
        except ValueError:
            continue
        yield name, index, digest, response


def _line(asked: Asked, response: str) -> str:
    digest = _digest(asked.task, asked.query)
    return json.dumps([asked.task.name, asked.query.index, digest, response]) + "\n"


def _digest(task: MegaTask, query: MegaQuery) -> str:
    return _hash(
        task.description,
        task.global_media,
        task.example_text,
        task.example_media,
        query.text,
        query.media,
    )


def _hash(*asked: str | Sequence[str]) -> str:
    """Of all that a query shows."""
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def _answers(
    plan: RunPlan,
    asker: Asker,
    todo: Iterable[tuple[MegaTask, MegaQuery]],
    videos: VideoReader | None,
) -> Iterator[Answered]:
    """Responses as they come; a query over the budget has its fixed one without being asked."""
    over: list[Answered] = []

    def asks() -> Iterator[Asked]:
        for task, query in todo:
            parts = build_parts(task, query, plan.media, plan.budget, videos)
            if parts is None:
                over.append(Answered(Asked(task, query, ()), TOO_MANY_IMAGES))
            else:
                yield Asked(task, query, parts)

    yield from asker.answers(asks())
    yield from over


def _records(
    tasks: Iterable[MegaTask], responses: Mapping[tuple[str, int], str]
) -> Iterator[TaskRecord]:
    """The tasks that have responses, as the official file lists them."""
    for task in tasks:
        answered = [query for query in task.queries if (task.name, query.index) in responses]
        if answered:
            yield TaskRecord(
                task_name=task.name,
                global_description=task.description,
                global_images=list(task.global_media),
                example_info={
                    "image_paths": list(task.example_media),
                    "example_text": task.example_text,
                },
                query_response=[
                    QueryRecord(
                        response=responses[task.name, query.index],
                        correct_answer=dict(query.answer),
                        global_idx=query.id,
                        query_idx=query.index,
                        images=list(query.media),
                        query_text=query.text,
                    )
                    for query in answered
                ],
            )
