"""A pool's processes kept up: the zygote, and as many workers as asked for that are not slow."""

from __future__ import annotations

import selectors
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, Protocol

from verifiers.pool_processes import Worker, Zygote, exit_text

_STILLBORN_MAX = 20  # that many workers in a row that did nothing: something is wrong with all
_STILLBORN_RUSH = 3  # after so many, the next ones are forked
_FORK_PAUSE_S = 0.25  # that much later
_VAIN_STARTS_MAX = 5  # of a zygote, in a row, whose workers said nothing


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """What a pool is asked to be; see `ScoringPool`."""

    workers: int
    time_limit_s: float
    memory_limit_mb: int
    preload: tuple[str, ...]


class End(NamedTuple):
    """How a worker ended."""

    status: int
    """Its exit status, or minus the signal that killed it."""
    grown_mb: float
    """Memory it had taken beside what it started with, MB."""


class Foreman(Protocol):
    """Who is told what the processes do."""

    def hear(self, worker: Worker, kind: str, content: Any) -> None:
        """A worker has said something: see `worker.work`."""
        ...

    def lose(self, worker: Worker, end: End | None) -> None:
        """A worker has ended; None if no item can be to blame."""
        ...

    def fail_all(self, text: str) -> None:
        """There are no processes, and none can be made."""
        ...


class Crew:
    """The processes of a pool, as the events of their sockets show them."""

    def __init__(
        self, settings: PoolSettings, selector: selectors.BaseSelector, foreman: Foreman
    ) -> None:
        self.workers: dict[int, Worker] = {}
        self.known: dict[str, tuple[str, bool]] = {}
        """The verifiers of the workers: version, and whether they judge many at once."""
        self.restarts = 0
        self._settings = settings
        self._selector = selector
        self._foreman = foreman
        self._zygote: Zygote | None = None
        self._num_forked = 0
        self._num_stillborn = 0
        self._no_fork_before = 0.0
        self._num_vain_starts = 0

    def start(self) -> None:
        """Start the zygote if there is none."""
        if self._zygote is not None:
            return
        settings = self._settings
        try:
            zygote = Zygote(settings.preload, settings.memory_limit_mb)
        except OSError as error:
            self._foreman.fail_all(f"scoring processes cannot be started: {error}")
            return
        self._zygote = zygote
        self._selector.register(
            zygote.control, selectors.EVENT_READ, partial(self._on_zygote, zygote)
        )

    @property
    def is_ready(self) -> bool:
        """Whether there is a zygote that forks."""
        return self._zygote is not None and self._zygote.is_ready

    def next_fork_at(self) -> float | None:
        """When workers may be made again, if that is paused."""
        return self._no_fork_before if monotonic() < self._no_fork_before else None

    @property
    def num_slow(self) -> int:
        """Workers on slow items."""
        return sum(worker.is_slow for worker in self.workers.values())

    def top_up(self, has_queue: bool, num_slow_waiting: int) -> None:
        """Make the workers that are missing.

        While work waits, there are as many as asked for that are not slow, and one for each slow
        item that waits and may run: at most twice as many as asked for.
        """
        zygote = self._zygote
        if zygote is None or not zygote.is_ready or self.next_fork_at():
            return
        num_slow = self.num_slow
        num_fast = len(self.workers) - num_slow
        wanted = self._settings.workers
        most = 2 * wanted if has_queue else wanted
        wanted += min(num_slow_waiting, wanted - num_slow)
        while num_fast < wanted and len(self.workers) < most:
            self._num_forked += 1
            num_fast += 1
            worker = self.workers[self._num_forked] = zygote.fork(self._num_forked)
            self._watch(worker, selectors.EVENT_READ)

    def send(self, worker: Worker) -> None:
        """Send the worker its piece, as far as it takes it now, and the rest when it does."""
        if not worker.send():
            self._watch(worker, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def listen(self, worker: Worker) -> None:
        """Pass on what the worker has said by now."""
        for kind, content in worker.command_reader.read():
            self._num_stillborn = self._num_vain_starts = 0
            self._foreman.hear(worker, kind, content)
            if kind == "leaving" and worker.number in self.workers:
                self._forget(worker)
            if worker.number not in self.workers:
                return

    def kill(self, worker: Worker) -> None:
        """End a worker that has something to do."""
        self.restarts += 1
        self.retire(worker)

    def slow_down(self, worker: Worker) -> None:
        """Let the worker, which is on a slow item, get out of the way of the others."""
        worker.is_slow = True
        if self._zygote is not None:
            self._zygote.let_yield(worker.number)

    def retire(self, worker: Worker) -> None:
        """End a worker that is of no more use; another takes its place."""
        if self._zygote is not None:
            self._zygote.kill(worker.number)
        self._forget(worker)

    def close(self) -> None:
        """End all."""
        for worker in list(self.workers.values()):
            self._forget(worker)
        if self._zygote is not None:
            self._zygote.close()

    def abandon(self) -> None:
        """Let go of all in a forked copy of the owner."""
        for worker in self.workers.values():
            worker.close()
        if self._zygote is not None:
            self._zygote.abandon()

    def _watch(self, worker: Worker, events: int) -> None:
        handler = partial(self._on_worker, worker)
        if worker.commands in self._selector.get_map():
            self._selector.modify(worker.commands, events, handler)
        else:
            self._selector.register(worker.commands, events, handler)

    def _forget(self, worker: Worker) -> None:
        del self.workers[worker.number]
        if worker.commands in self._selector.get_map():
            self._selector.unregister(worker.commands)
        worker.close()

    def _on_worker(self, worker: Worker, events: int) -> None:
        if self.workers.get(worker.number) is not worker:  # forgotten since the select
            return
        if events & selectors.EVENT_WRITE and worker.send():
            self._watch(worker, selectors.EVENT_READ)
        if events & selectors.EVENT_READ:
            self.listen(worker)
            if not worker.command_reader.is_open and worker.number in self.workers:
                self._selector.unregister(worker.commands)  # its death is the zygote's to tell

    def _on_zygote(self, zygote: Zygote, events: int) -> None:
        for kind, *content in zygote.reader.read():
            if kind == "ready":
                zygote.is_ready = True
                (self.known,) = content
            elif (worker := self.workers.get(content[0])) is None:
                continue
            elif kind == "born":
                worker.born(content[1])
            else:
                end = End(content[1], content[2]) if kind == "died" else None
                self._bury(worker, end)
                if self._num_stillborn > _STILLBORN_MAX:
                    self._bury_zygote(zygote)
                    how = content[1] if end is None else exit_text(end.status)
                    self._foreman.fail_all(f"workers end at once, the last with {how}")
                    return
        if not zygote.reader.is_open:
            said = self._bury_zygote(zygote)
            self._num_vain_starts += 1
            # What a failed import says it would say again; a signal may have been anybody's.
            may_work = zygote.is_ready or zygote.exit_code < 0
            if may_work and self._num_vain_starts < _VAIN_STARTS_MAX:
                self.start()
            else:
                self._num_vain_starts = 0
                self._foreman.fail_all(f"scoring processes cannot be started: {said}")

    def _bury(self, worker: Worker, end: End | None) -> None:
        self.listen(worker)
        if worker.number not in self.workers:
            return
        if worker.piece is None:
            self._num_stillborn += 1
            if self._num_stillborn >= _STILLBORN_RUSH:
                self._no_fork_before = monotonic() + _FORK_PAUSE_S
        self.restarts += 1
        self._foreman.lose(worker, end)
        self._forget(worker)

    def _bury_zygote(self, zygote: Zygote) -> str:
        """Let go of a zygote and its workers. What it has said while it started."""
        self._selector.unregister(zygote.control)
        self._zygote = None
        for worker in list(self.workers.values()):
            self._bury(worker, None)
        self._num_stillborn = 0
        self._no_fork_before = 0.0
        return zygote.close()
