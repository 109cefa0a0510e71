"""What a pool's workers do next: batches in turn, in pieces; items known to be slow apart."""

from __future__ import annotations

import math
from collections import deque

from verifiers.pool_job import Job, Piece

SLOW_S = 0.05
"""An item that takes longer, and far longer than others do, may not hold up others."""

_SLOW_FACTOR = 4.0
_PIECE_S = 0.01  # how long a piece should take: long against a wake-up, short against SLOW_S
_SHORTEST_PIECE_S = 0.0005  # below, one worker is quicker than two
_PIECE_ITEMS_MAX = 128
_FIRST_ITEM_S = 0.0002  # what an item is taken to cost before any was seen
_MEMORY_S = 5.0  # of judging, over which the cost of an item is averaged


class Queue:
    """Items that no worker has."""

    def __init__(self, workers: int, time_limit_s: float) -> None:
        self.jobs: deque[Job] = deque()
        """Jobs with items here; each gives a piece in turn."""
        self.slow: deque[tuple[Job, int]] = deque()
        """Items that have been found slow, and were stopped because as many slow ones ran."""
        self._workers = workers
        self._slow_s_max = time_limit_s / 4
        self._spent_s = {False: _FIRST_ITEM_S, True: _FIRST_ITEM_S}
        self._num_items = {False: 1.0, True: 1.0}

    @property
    def num_items(self) -> int:
        """How many items wait."""
        return sum(job.num_queued for job in list(self.jobs)) + len(self.slow)

    def add(self, job: Job) -> None:
        """A job all of whose items wait."""
        self.jobs.append(job)

    def put_back(self, job: Job, indices: list[int]) -> None:
        """Items that come next, each to be judged by itself."""
        if indices and not job.is_over:
            if not job.num_queued:
                self.jobs.appendleft(job)
            job.put_back(indices)

    def put_slow(self, job: Job, index: int) -> None:
        """An item that waits for its turn among the slow ones."""
        if not job.is_over:
            self.slow.append((job, index))

    def drop(self, job: Job) -> None:
        """No item of the job is wanted any more."""
        if job in self.jobs:
            self.jobs.remove(job)
        if self.slow:
            self.slow = deque(entry for entry in self.slow if entry[0] is not job)

    def next_piece(self) -> Piece:
        """A piece of the job whose turn it is, worth its trip and shared by all workers."""
        job = self.jobs.popleft()
        item_s = self._item_s(job.is_next_together)
        least, most = (
            min(_PIECE_ITEMS_MAX, max(1, int(seconds / item_s)))
            for seconds in (_SHORTEST_PIECE_S, _PIECE_S)
        )
        piece = job.take(max(least, min(most, math.ceil(job.num_queued / self._workers))))
        if job.num_queued:
            self.jobs.append(job)
        return piece

    def next_slow(self) -> Piece:
        """The slow item whose turn it is."""
        job, index = self.slow.popleft()
        return Piece(job=job, indices=[index], is_together=False)

    def learn(self, is_together: bool, num_items: int, seconds: float) -> None:
        """So many items took so long."""
        kept = math.exp(-seconds / _MEMORY_S)
        self._spent_s[is_together] = kept * self._spent_s[is_together] + seconds
        self._num_items[is_together] = kept * self._num_items[is_together] + num_items

    def slow_s(self, is_together: bool) -> float:
        """Seconds from which an item (or a whole piece, if judged together) is slow.

        Where all items take long, none of them is slow: they are the work.
        """
        usual_s = _SLOW_FACTOR * self._item_s(is_together)
        if is_together:
            usual_s = max(_SLOW_FACTOR * _PIECE_S, usual_s)
        return min(max(SLOW_S, usual_s), self._slow_s_max)

    def _item_s(self, is_together: bool) -> float:
        return self._spent_s[is_together] / max(1e-9, self._num_items[is_together])
