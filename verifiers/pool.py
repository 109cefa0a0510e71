"""Many verdicts at once in processes that can be killed, each response under a hard time limit."""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.context
import sys
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from types import TracebackType

from pebble import ProcessFuture, ProcessPool

from data_specs import Sample
from verifiers.iou_rule import ScoreContext
from verifiers.scoring import score_many
from verifiers.verdict import Verdict

Item = tuple[Sample, str]

TIME_LIMIT_S = 2.0
"""Longest time one response may take."""

_CHUNK_ITEMS_MAX = 16  # so many slow formulas still end within the limit of one
_DEFAULT_CONTEXT = ScoreContext()


class ScoringPool:
    """Warm worker processes. A response that exceeds the limit costs its worker, not the run.

    Use it as a context manager, or call `close`.
    """

    def __init__(self, workers: int, time_limit_s: float = TIME_LIMIT_S) -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers!r}; allowed: at least 1")
        if not time_limit_s > 0:
            raise ValueError(f"time_limit_s is {time_limit_s!r}; allowed: above 0")
        self.workers = workers
        self.time_limit_s = time_limit_s
        self._pool = ProcessPool(max_workers=workers, context=_process_context())

    def score_batch(
        self, items: Sequence[Item], context: ScoreContext = _DEFAULT_CONTEXT
    ) -> list[Verdict]:
        """One verdict per item, in order.

        Items travel in chunks. A chunk shares the limit of one response, which thousands of
        plain answers fit in; one that fails is run again item by item.
        """
        light = [(_without_images(sample), response) for sample, response in items]
        size = max(1, min(_CHUNK_ITEMS_MAX, -(-len(light) // (4 * self.workers))))
        chunks = [light[start : start + size] for start in range(0, len(light), size)]
        futures = [self._submit(chunk, context) for chunk in chunks]
        retried: dict[int, list[ProcessFuture[list[Verdict]]]] = {}
        results: list[list[Verdict] | None] = []
        for index, (chunk, future) in enumerate(zip(chunks, futures, strict=True)):
            result = self._result(future, chunk)
            if isinstance(result, Verdict):
                if len(chunk) == 1:
                    results.append([result])
                    continue
                retried[index] = [self._submit([item], context) for item in chunk]
                results.append(None)
            else:
                results.append(result)
        for index, singles in retried.items():
            verdicts: list[Verdict] = []
            for item, future in zip(chunks[index], singles, strict=True):
                result = self._result(future, [item])
                verdicts.extend([result] if isinstance(result, Verdict) else result)
            results[index] = verdicts
        return [verdict for part in results for verdict in part or ()]

    def close(self) -> None:
        """Stop the workers, whatever they do."""
        self._pool.stop()
        self._pool.join()

    def __enter__(self) -> ScoringPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _submit(self, chunk: list[Item], context: ScoreContext) -> ProcessFuture[list[Verdict]]:
        return self._pool.schedule(score_many, args=[chunk, context], timeout=self.time_limit_s)

    def _result(
        self, future: ProcessFuture[list[Verdict]], chunk: list[Item]
    ) -> list[Verdict] | Verdict:
        """The chunk's verdicts, or one verdict that says why there are none."""
        name = chunk[0][0].reward.verifier
        try:
            return future.result()
        except FutureTimeout:
            reason = f"no verdict within {self.time_limit_s:g} s"
            return Verdict(
                score=None,
                status="timeout",
                reason=reason,
                verifier=name,
                seconds=self.time_limit_s,
            )
        except Exception as error:  # noqa: BLE001 - process boundary: a worker died or broke
            reason = f"worker failed: {type(error).__name__}: {error}"
            return Verdict(score=None, status="fault", reason=reason, verifier=name)


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
    pool = _warm_pools.get(workers)
    if pool is None:
        if not _warm_pools:
            atexit.register(close_pools)
        pool = _warm_pools[workers] = ScoringPool(workers)
    return pool.score_batch(items, context)


def close_pools() -> None:
    """Stop every worker that `score_batch` keeps warm."""
    while _warm_pools:
        _warm_pools.popitem()[1].close()


_warm_pools: dict[int, ScoringPool] = {}


def _without_images(sample: Sample) -> Sample:
    """The sample as a verifier needs it: responses are text, so images stay here."""
    return replace(sample, images=()) if sample.images else sample


def _process_context() -> multiprocessing.context.BaseContext:
    """Clean workers: a fork of a process with torch's threads may hang.

    The fork server loads the verifiers once, so a killed worker is replaced in milliseconds.
    """
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["verifiers.worker"])
    return context
