"""The thread that runs a pool: hands out pieces, takes verdicts, watches the clock.

All state belongs to this thread. Others reach it by `submit` and `stop` only.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from verifiers.pool_crew import Crew, End, PoolSettings
from verifiers.pool_job import Job, Piece
from verifiers.pool_processes import Worker, exit_text
from verifiers.pool_queue import Queue
from verifiers.pool_wire import Record, unpack_verdict
from verifiers.registry import VERIFIERS
from verifiers.verdict import Status, Verdict

OWN_TIME_FACTOR_MAX = 2.0
"""Longest wall time of an item, in time limits, however long its worker waits for a processor."""

_DEATHS_MAX = 2  # an item that two workers died on is at fault
# That somebody kills a worker is not its item's doing, unless that is the system short of memory
# and the item had taken much. It counts a tenth nonetheless, so that trying again has an end.
_OUTSIDE_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT})
_OUTSIDE_WEIGHT = 0.1
_MUCH_MEMORY_MB = 64.0


class Dispatcher:
    """A running pool. Nothing in it waits for a single worker."""

    def __init__(self, settings: PoolSettings) -> None:
        self.scored = 0
        self.timeouts = 0
        self.queue = Queue(settings.workers, settings.time_limit_s)
        self.inbox: deque[Job] = deque()
        self.is_closed = False
        """Closed, or about to be: takes no more jobs."""
        self._settings = settings
        self._unfinished: set[Job] = set()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self.crew = Crew(settings, self._selector, self)
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._on_wake)
        _running.add(self)
        self._thread = threading.Thread(target=self._run, name="scoring-pool", daemon=True)
        self._thread.start()

    # What other threads call.

    def submit(self, job: Job) -> None:
        """Queue a job; its future ends in any case."""
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"this ScoringPool belongs to process {self._pid}, and this is a fork of it, "
                f"{os.getpid()}: make a pool here, or call score_batch(items, workers=N)"
            )
        with self._lock:
            if self.is_closed:
                raise RuntimeError("this ScoringPool is closed: make a new one")
            self.inbox.append(job)
        self._wake()

    def stop(self) -> None:
        """End all processes; whoever still waits for verdicts gets a RuntimeError."""
        if os.getpid() != self._pid:
            return
        self.is_closed = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def abandon(self) -> None:
        """Let go, in a forked process, of what belongs to the process that was forked."""
        # The set of watched sockets is shared with that process: close it, change nothing in it.
        self._selector.close()
        self._woken.close()
        self._waker.close()
        self.crew.abandon()

    def _wake(self) -> None:
        try:
            self._waker.send(b"w")
        except OSError:  # full, so it will wake; or closed, so it need not
            return

    # The thread.

    def _run(self) -> None:
        try:
            self.crew.start()
            while not self.is_closed:
                for key, events in self._selector.select(self._timeout_s()):
                    handler: Callable[[int], None] = key.data
                    handler(events)
                self._take_inbox()
                self._check_clocks()
                waiting = len(self.queue.slow)
                self.crew.top_up(bool(self.queue.jobs or waiting), waiting)
                self._dispatch()
        finally:
            self._end(sys.exc_info()[1])

    def _end(self, error: BaseException | None) -> None:
        with self._lock:
            self.is_closed = True
        self.crew.close()
        self._selector.close()
        self._woken.close()
        self._waker.close()
        _running.discard(self)
        why = f"failed ({type(error).__name__}: {error})" if error else "was closed"
        self.fail_all(f"the ScoringPool {why} before all responses were judged")

    def _on_wake(self, events: int) -> None:
        try:
            self._woken.recv(4096)
        except BlockingIOError:
            return

    def _timeout_s(self) -> float | None:
        """Seconds until something has to be looked at although nothing has happened."""
        times = [
            worker.check_at for worker in self.crew.workers.values() if worker.piece is not None
        ]
        if (next_fork_at := self.crew.next_fork_at()) is not None:
            times.append(next_fork_at)
        return max(0.0, min(times) - monotonic()) if times else None

    # Jobs.

    def _take_inbox(self) -> None:
        if not self.inbox:
            return
        self.crew.start()
        if not self.crew.is_ready:
            return
        known = self.crew.known
        while self.inbox:
            job = self.inbox.popleft()
            strangers = sorted(
                name for name in job.distinct_names if name in VERIFIERS and name not in known
            )
            if strangers:
                job.end(
                    ValueError(
                        f"verifier {strangers[0]!r} is registered in this process only; workers "
                        f"know: {', '.join(sorted(known))}. Name the module that registers it, "
                        "ScoringPool(..., preload=('its_module',)), install it with an entry "
                        "point, or judge in this process with workers=0"
                    )
                )
                continue
            job.sort(known)
            self._unfinished.add(job)
            self.queue.add(job)

    def _give(self, job: Job, index: int, verdict: Verdict) -> None:
        if job.is_over or not job.give(index, verdict):
            return
        self.scored += 1
        if job.num_missing == 0:
            self._drop(job)

    def _drop(self, job: Job, error: Exception | None = None) -> None:
        self._unfinished.discard(job)
        self.queue.drop(job)
        job.end(error)

    def fail_all(self, text: str) -> None:
        """Every job that waits gets the error."""
        for job in list(self._unfinished):
            self._drop(job, RuntimeError(text))
        while self.inbox:
            self._drop(self.inbox.popleft(), RuntimeError(text))

    # Pieces.

    def _dispatch(self) -> None:
        queue, most = self.queue, self._settings.workers
        if not (queue.jobs or queue.slow):
            return
        workers = self.crew.workers.values()
        idle = [worker for worker in workers if worker.is_idle]
        num_slow = self.crew.num_slow
        num_busy = sum(worker.piece is not None for worker in workers) - num_slow
        while idle and queue.slow and num_slow < most:
            job = queue.slow[0][0]
            if job.future.cancelled():
                self._drop(job)
                continue
            num_slow += 1
            self._send(idle.pop(), queue.next_slow(), is_slow=True)
        while idle and queue.jobs and num_busy < most:
            job = queue.jobs[0]
            if job.future.cancelled():
                self._drop(job)
                continue
            num_busy += 1
            self._send(idle.pop(), queue.next_piece(), is_slow=False)

    def _send(self, worker: Worker, piece: Piece, *, is_slow: bool) -> None:
        worker.begin(piece, self.queue.slow_s(piece.is_together))
        if is_slow:
            self.crew.slow_down(worker)
        self.crew.send(worker)

    def hear(self, worker: Worker, kind: str, content: Any) -> None:
        """A worker has judged something, or cannot read its piece."""
        self._note_written(worker)
        piece = worker.piece
        if piece is None:
            return
        if kind == "unreadable":
            text = (
                f"a row's extra or params cannot be read in a worker ({content}): put plain "
                "values there, define their classes in a module, or judge with workers=0"
            )
            self._drop(piece.job, ValueError(text))
        else:
            self._note(worker, piece, content)
        if kind == "records":
            return
        if piece.num_done:
            self.queue.learn(piece.is_together, piece.num_done, worker.piece_own_s())
        worker.piece = None
        if worker.is_slow:
            self.crew.retire(worker)  # a process that has once yielded cannot stop yielding
        self.queue.put_back(piece.job, piece.missing())

    def _note_written(self, worker: Worker) -> None:
        """Take the verdicts of a piece that is under way."""
        if worker.piece is not None:
            self._note(worker, worker.piece, worker.record_reader.read())

    def _note(self, worker: Worker, piece: Piece, records: list[Record]) -> None:
        for record in records:
            position: int = record[0]
            piece.num_done = position + 1
            worker.started = record[1]
            if position < 0:
                worker.begun_at = worker.started
            else:
                self._give(piece.job, piece.indices[position], unpack_verdict(record))

    def lose(self, worker: Worker, end: End | None) -> None:
        """A worker has ended: the item it was on is tried once more, and is then at fault."""
        self._note_written(worker)
        piece = worker.piece
        if piece is None:
            return
        missing = piece.missing()
        if end is not None and missing and worker.begun_at and not piece.is_together:
            is_own = -end.status not in _OUTSIDE_SIGNALS or end.grown_mb > _MUCH_MEMORY_MB
            if piece.job.suspect(missing[0], 1.0 if is_own else _OUTSIDE_WEIGHT) >= _DEATHS_MAX:
                reason = f"workers died on it, the last with {exit_text(end.status)}"
                self._give_unscored(piece.job, missing.pop(0), "fault", reason)
        self.queue.put_back(piece.job, missing)

    def _give_unscored(
        self, job: Job, index: int, status: Status, reason: str, seconds: float = 0.0
    ) -> None:
        name = job.names[index]
        version, _ = self.crew.known.get(name, ("", False))
        verdict = Verdict(
            score=None,
            status=status,
            reason=reason,
            seconds=seconds,
            verifier=name,
            version=version,
        )
        self._give(job, index, verdict)

    # The clock.

    def _check_clocks(self) -> None:
        now = monotonic()
        for worker in list(self.crew.workers.values()):
            if worker.piece is None or now < worker.check_at:
                continue
            # It may have gone on, or be done, since the select.
            self._note_written(worker)
            self.crew.listen(worker)
            if worker.number in self.crew.workers:
                self._check_clock(worker, now)

    def _check_clock(self, worker: Worker, now: float) -> None:
        piece = worker.piece
        if piece is None:
            return
        is_ordinary = worker.begun_at is not None and not worker.is_slow
        limit_s = worker.slow_s if is_ordinary else self._settings.time_limit_s
        elapsed, own_s = now - worker.started, worker.own_s(now)
        last_s = OWN_TIME_FACTOR_MAX * limit_s
        if own_s < limit_s and elapsed < last_s:
            worker.check_at = now + max(0.001, min(limit_s - own_s, last_s - elapsed))
        elif is_ordinary and not piece.is_together and self.crew.num_slow < self._settings.workers:
            self.crew.slow_down(worker)
            worker.check_at = now + self._settings.time_limit_s - own_s
            self.queue.put_back(piece.job, piece.take_back())
        else:
            self._kill(worker, piece, elapsed)

    def _kill(self, worker: Worker, piece: Piece, elapsed: float) -> None:
        """End a worker that takes too long; what becomes of its items depends on why."""
        self.crew.kill(worker)
        missing = piece.missing()
        if worker.begun_at is None:
            pass  # it never came to it
        elif piece.is_together:
            self.queue.learn(True, len(piece.indices), elapsed)
        elif not worker.is_slow:
            self.queue.put_slow(piece.job, missing.pop(0))
        else:
            self.timeouts += 1
            reason = f"no verdict within {self._settings.time_limit_s:g} s"
            self._give_unscored(piece.job, missing.pop(0), "timeout", reason, elapsed)
        self.queue.put_back(piece.job, missing)


_running: set[Dispatcher] = set()


def _abandon_all() -> None:
    for dispatcher in list(_running):
        dispatcher.abandon()
    _running.clear()


if hasattr(os, "register_at_fork"):
    # A forked copy must not keep the workers' sockets open: workers end when their owner's close.
    os.register_at_fork(after_in_child=_abandon_all)
