"""Data parallelism by threads: each shard of a batch is computed on one core, with one model.

PyTorch releases the interpreter lock inside its operators, and the backward pass holds it not at
all, so shards run side by side on shared weights. For models this small it is faster than two
OpenMP threads inside every operator. The result depends on the number of shards (order of sums,
random streams), not on the number of threads. Of several processes (`vl.processes`) each computes
its part of the shards; what comes back is the whole, the same in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor, nn

from .processes import ALONE, Processes, evenly

T = TypeVar("T")
R = TypeVar("R")


class Shards:
    """A fixed number of shards and the threads that compute them.

    Args:
        num_shards: parts of every batch, over all processes; decides results. One a process =
            everything in the calling thread.
        processes: this process's place among those that train together.
    """

    def __init__(self, num_shards: int, processes: Processes = ALONE) -> None:
        if num_shards < processes.size:
            raise ValueError(
                f"num_shards: found {num_shards!r} for {processes.size} processes; it must be at "
                "least 1, and one a process"
            )
        self.num_shards, self.processes = num_shards, processes
        self._num_threads = -(-num_shards // processes.size)
        self._pool = ThreadPoolExecutor(self._num_threads, initializer=_one_thread)

    def split(self, items: Sequence[T]) -> list[list[T]]:
        """Consecutive parts of nearly equal size; never an empty one."""
        count = min(self.num_shards, len(items))
        return [list(items[part.start : part.stop]) for part in evenly(len(items), count)]

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Results in the order of the items; with several processes they must pickle."""
        mine = [items[position] for position in self.processes.own(len(items))]
        return self.processes.gather(self._map_here(function, mine))

    def collect(self, parts: Mapping[int, R]) -> list[R]:
        """Values by number, in order, from those that each process has."""
        found = self.processes.gather(list(parts.items()))
        return [value for _, value in sorted(found, key=lambda part: part[0])]

    def _map_here(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        if self._num_threads == 1 or len(items) == 1:
            return [function(item) for item in items]
        return list(self._pool.map(function, items))

    def backward(
        self, params: Sequence[nn.Parameter], losses: Sequence[Callable[[], Tensor]]
    ) -> None:
        """Sets each parameter's gradient to the sum over all shares of the loss.

        At most `num_shards` shares are computed at once; more of them accumulate. A process
        computes its own shares only; what these write beside their loss is for `collect`.
        """

        def gradients(loss: Callable[[], Tensor]) -> tuple[Tensor | None, ...]:
            value = loss()
            if not value.requires_grad:
                return (None,) * len(params)
            return torch.autograd.grad(value, params, allow_unused=True)

        for param in params:
            param.grad = None
        mine = [losses[position] for position in self.processes.own(len(losses))]
        for start in range(0, len(mine), self._num_threads):
            shares = self._map_here(gradients, mine[start : start + self._num_threads])
            for param, parts in zip(params, zip(*shares, strict=True), strict=True):
                found = [part for part in (param.grad, *parts) if part is not None]
                param.grad = torch.stack(found).sum(0) if found else None
        self.processes.sum_gradients(params)


def _one_thread() -> None:
    torch.set_num_threads(1)
