"""Many verdicts at once in processes that can be killed, each response under a hard time limit.

How it works, what it guarantees and what it does not: docs/verifiers/pool.md.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from data_specs import Sample
from verifiers.iou_rule import ScoreContext
from verifiers.scoring import score_many
from verifiers.verdict import Verdict

if TYPE_CHECKING:
    from concurrent.futures import Future

    from verifiers.pool_dispatch import Dispatcher

Item = tuple[Sample, str]

TIME_LIMIT_S = 2.0
"""Longest time one response may take."""
MEMORY_LIMIT_MB = 2048
"""Most memory a worker may take beside what it starts with."""

_DEFAULT_CONTEXT = ScoreContext()


@dataclass(frozen=True, kw_only=True)
class PoolStats:
    """What a pool is doing, and what it has done since it was made."""

    num_workers: int
    """Workers there are now, those for the queue behind slow items included."""
    busy: int
    """Workers with something to judge."""
    queued: int
    """Responses that no worker has yet."""
    scored: int
    """Responses that have a verdict, whatever its status."""
    timeouts: int
    """Responses that exceeded the time limit."""
    restarts: int
    """Workers that were killed or died."""


class ScoringPool:
    """Warm worker processes. A response that exceeds a limit costs its worker, not the run.

    Use it as a context manager, or call `close`. Any thread may call it.
    """

    def __init__(
        self,
        workers: int,
        *,
        time_limit_s: float = TIME_LIMIT_S,
        memory_limit_mb: int = MEMORY_LIMIT_MB,
        preload: tuple[str, ...] = (),
    ) -> None:
        """Start the processes, without waiting for them.

        Args:
            workers: processes that judge side by side, at least 1.
            time_limit_s: longest time one response may take, above 0.
            memory_limit_mb: most memory a worker may take beside what it starts with, MB.
            preload: modules to import before the first verdict, such as one that puts your
                verifier into VERIFIERS; what they do at import must be safe to fork.
        """
        if workers < 1:
            raise ValueError(f"workers is {workers!r}; allowed: at least 1")
        if not 0 < time_limit_s < 1e6:
            raise ValueError(f"time_limit_s is {time_limit_s!r}; allowed: above 0, below 1e6")
        if memory_limit_mb < 1:
            raise ValueError(f"memory_limit_mb is {memory_limit_mb!r}; allowed: at least 1")
        _check_platform()
        from verifiers.pool_crew import PoolSettings
        from verifiers.pool_dispatch import Dispatcher

        self.workers = workers
        self.time_limit_s = time_limit_s
        self.memory_limit_mb = memory_limit_mb
        self._dispatcher: Dispatcher = Dispatcher(
            PoolSettings(
                workers=workers,
                time_limit_s=time_limit_s,
                memory_limit_mb=memory_limit_mb,
                preload=tuple(preload),
            )
        )
        # Closes a forgotten pool too, when it is collected or when the interpreter ends.
        self._finalizer = weakref.finalize(self, self._dispatcher.stop)

    def submit(
        self, items: Sequence[Item], context: ScoreContext = _DEFAULT_CONTEXT
    ) -> Future[list[Verdict]]:
        """The verdicts to come, one per item, in order.

        Cancelling the future takes what is still queued out of the queue.

        Raises: ValueError or TypeError if an item cannot be sent to a worker; RuntimeError if the
        pool is closed or belongs to another process. What goes wrong later, the future raises.
        """
        from verifiers.pool_job import Job

        job = Job(items, context)
        if not job.names:
            job.end()
        else:
            self._dispatcher.submit(job)
        return job.future

    def score_batch(
        self, items: Sequence[Item], context: ScoreContext = _DEFAULT_CONTEXT
    ) -> list[Verdict]:
        """One verdict per item, in order."""
        future = self.submit(items, context)
        try:
            return future.result()
        finally:
            future.cancel()  # when interrupted; a future that is done stays as it is

    async def score_batch_async(
        self, items: Sequence[Item], context: ScoreContext = _DEFAULT_CONTEXT
    ) -> list[Verdict]:
        """One verdict per item, in order, without holding up the event loop."""
        import asyncio

        return await asyncio.wrap_future(self.submit(items, context))

    def stats(self) -> PoolStats:
        """Counts of this moment; taken without stopping anything, so they may differ by a few."""
        dispatcher = self._dispatcher
        workers = list(dispatcher.crew.workers.values())
        return PoolStats(
            num_workers=len(workers),
            busy=sum(worker.piece is not None for worker in workers),
            queued=dispatcher.queue.num_items
            + sum(len(job.names) for job in list(dispatcher.inbox)),
            scored=dispatcher.scored,
            timeouts=dispatcher.timeouts,
            restarts=dispatcher.crew.restarts,
        )

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more work."""
        return self._dispatcher.is_closed

    def close(self) -> None:
        """Stop the workers, whatever they do; who still waits for verdicts gets a RuntimeError."""
        self._finalizer()

    def __enter__(self) -> ScoringPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def score_batch(
    items: Sequence[Item], context: ScoreContext = _DEFAULT_CONTEXT, workers: int = 0
) -> list[Verdict]:
    """One verdict per (sample, response), in order.

    Args:
        items: what to judge.
        context: progress and IoU rule.
        workers: processes to use; they stay warm for the next call. 0 judges in this process,
            where nothing limits the time a hostile formula takes.
    """
    if workers == 0:
        return score_many(items, context)
    # A fork of this process finds neither its parent's pools nor a lock that somebody holds.
    with _locks.setdefault(os.getpid(), threading.Lock()):
        key = os.getpid(), workers
        pool = _warm_pools.get(key)
        if pool is None or pool.is_closed:
            pool = _warm_pools[key] = ScoringPool(workers)
    return pool.score_batch(items, context)


def close_pools() -> None:
    """Stop every worker that `score_batch` keeps warm; the end of the interpreter does, too."""
    for key in list(_warm_pools):
        if key[0] == os.getpid():
            _warm_pools.pop(key).close()


_warm_pools: dict[tuple[int, int], ScoringPool] = {}
_locks: dict[int, threading.Lock] = {}


def _check_platform() -> None:
    import socket

    if not (hasattr(os, "fork") and hasattr(socket, "send_fds")):
        raise OSError(
            f"ScoringPool needs fork and Unix sockets, which {sys.platform} has not: judge in "
            "this process with score_batch(items, workers=0), which has no time limit, or use "
            "reward servers on another machine"
        )
    if not sys.executable:
        raise OSError(
            "ScoringPool starts sys.executable, which this embedded interpreter has not set: set "
            "it to a Python with verifiers installed, or judge with workers=0"
        )
