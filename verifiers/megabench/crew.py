"""Responses scored side by side in processes that can be killed; one that hangs costs its worker.

A worker is given some queries of one task and sends each query's scores back as soon as it has
them, so whoever kills it knows which query it was on. Nothing here decides a score: a query that
exceeds the limit, or takes its worker down, is unscored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

SCORE_LIMIT_S = 120.0
"""Longest time for one query. Programs run several tests, each with a limit of its own."""
_GRACE_S = 2.0
_PIECE_MAX = 16  # queries sent to a worker at a time

_CHILD = """
import sys
from multiprocessing.connection import Connection
pipe = Connection(int(sys.argv[1]))
sys.path[:] = pipe.recv()
from verifiers.megabench.crew import serve
serve(pipe)
"""

Work = Callable[[Any, Any], Any]
"""A task and one of its items to a result; a module-level function, so that it can be sent."""


class Done(NamedTuple):
    """One result, or why there is none."""

    group: int
    """Position of the group."""
    item: int
    """Position of the item in its group."""
    result: Any
    failure: str = ""


class Group(NamedTuple):
    """Items that share something large: a task and its queries."""

    shared: Any
    items: Sequence[Any]


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    is_ready: bool = False
    group: int = -1
    items: deque[int] = field(default_factory=deque[int])
    """Positions it still has to do, the one it is on first."""
    started: float = 0.0
    """When it began the first of them."""


def run_all(
    work: Work, groups: Sequence[Group], *, workers: int, limit_s: float = SCORE_LIMIT_S
) -> Iterator[Done]:
    """`work(shared, item)` for every item, in the order in which they are done.

    Args:
        work: what to do with each.
        groups: see Group; a group is split if that keeps the workers busy.
        workers: processes, at least 1.
        limit_s: longest time for one item; its worker is killed then.
    """
    if workers < 1 or limit_s <= 0:
        raise ValueError(
            f"workers is {workers}, limit_s is {limit_s}; allowed: at least 1, above 0"
        )
    pieces = _split(groups)
    crew = [_start(work) for _ in range(min(workers, len(pieces)))]
    try:
        for worker in crew:
            _give(worker, groups, pieces)
        while busy := [worker for worker in crew if worker.items]:
            ends = min(worker.started for worker in busy) + limit_s
            ready = wait([worker.pipe for worker in busy], max(0.0, ends - time.monotonic()))
            for worker in busy:
                done = _receive(worker) if worker.pipe in ready else _expired(worker, limit_s)
                if done is None:
                    continue
                yield done
                if worker.pipe.closed:
                    crew[crew.index(worker)] = _replace(worker, work, groups, pieces)
                elif not worker.items:
                    _give(worker, groups, pieces)
    finally:
        for worker in crew:
            _kill(worker, _GRACE_S if not worker.items else 0.0)


def _split(groups: Sequence[Group]) -> deque[tuple[int, list[int]]]:
    """Pieces of groups, the small last ones of each next to the others of the group."""
    return deque(
        (number, list(range(start, min(start + _PIECE_MAX, len(group.items)))))
        for number, group in enumerate(groups)
        for start in range(0, len(group.items), _PIECE_MAX)
    )


def serve(pipe: Connection) -> None:
    """What a worker does until its pipe closes."""
    work: Work = pipe.recv()
    pipe.send("ready")
    while True:
        try:
            shared, items = pipe.recv()
        except (EOFError, OSError):
            return
        for item in items:
            try:
                answer = work(shared, item), ""
            except Exception as error:  # noqa: BLE001 - process boundary: a fault is unscored
                answer = None, f"scoring failed: {type(error).__name__}: {error}"
            pipe.send(answer)


def _start(work: Work) -> _Worker:
    """A fresh interpreter: the caller may have threads, which a fork cannot carry, or a main
    module that cannot be imported, which `multiprocessing` would try.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,  # so that killing it also ends what it has started
        )
    pipe = Connection(ours.detach())
    pipe.send(sys.path)
    pipe.send(work)
    return _Worker(process=process, pipe=pipe)


def _give(worker: _Worker, groups: Sequence[Group], pieces: deque[tuple[int, list[int]]]) -> None:
    if not pieces:
        return
    worker.group, items = pieces.popleft()
    worker.items, worker.started = deque(items), time.monotonic()
    group = groups[worker.group]
    worker.pipe.send((group.shared, [group.items[item] for item in items]))


def _receive(worker: _Worker) -> Done | None:
    try:
        message = worker.pipe.recv()
    except (EOFError, OSError):
        _kill(worker)
        code = worker.process.returncode
        if not worker.is_ready:
            raise OSError(
                f"{sys.executable}: a scoring process ended at its start, exit code {code}; what "
                "it said stands above. Score with 0 workers to do without"
            ) from None
        item = worker.items.popleft()
        return Done(worker.group, item, None, f"scoring died, exit code {code}")
    worker.started = time.monotonic()
    if not worker.is_ready:
        worker.is_ready = True
        return None
    return Done(worker.group, worker.items.popleft(), *message)


def _expired(worker: _Worker, limit_s: float) -> Done | None:
    if time.monotonic() - worker.started < limit_s:
        return None
    _kill(worker)
    return Done(worker.group, worker.items.popleft(), None, f"scoring took over {limit_s:g} s")


def _replace(
    worker: _Worker, work: Work, groups: Sequence[Group], pieces: deque[tuple[int, list[int]]]
) -> _Worker:
    if worker.items:
        pieces.appendleft((worker.group, list(worker.items)))
    new = _start(work)
    _give(new, groups, pieces)
    return new


def _kill(worker: _Worker, grace_s: float = 0.0) -> None:
    """Ends the worker and all that it has started.

    Args:
        grace_s: how long it may take to end by itself, now that its pipe is closed.
    """
    worker.pipe.close()
    if grace_s:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(grace_s)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all have ended
        os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
