"""Data parallelism by threads: each shard of a batch is computed on one core, with one model.

PyTorch releases the interpreter lock inside its operators, and the backward pass holds it not at
all, so shards run side by side on shared weights. For models this small it is faster than two
OpenMP threads inside every operator. The result depends on the number of shards (order of sums,
random streams), not on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
R = TypeVar("R")


class Shards:
    """A fixed number of shards and the threads that compute them.

    Args:
        num_shards: parts of every batch; decides results. 1 = everything in the calling thread.
    """

    def __init__(self, num_shards: int) -> None:
        if num_shards < 1:
            raise ValueError(f"num_shards: found {num_shards!r}; it must be at least 1")
        self.num_shards = num_shards
        self._pool = ThreadPoolExecutor(num_shards, initializer=_one_thread)

    def split(self, items: Sequence[T]) -> list[list[T]]:
        """Consecutive parts of nearly equal size; never an empty one."""
        count = min(self.num_shards, len(items))
        bounds = [len(items) * part // count for part in range(count + 1)]
        return [list(items[a:b]) for a, b in pairwise(bounds)]

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Results in the order of the items."""
        if self.num_shards == 1 or len(items) == 1:
            return [function(item) for item in items]
        return list(self._pool.map(function, items))

    def backward(
        self, params: Sequence[nn.Parameter], losses: Sequence[Callable[[], Tensor]]
    ) -> None:
        """Sets each parameter's gradient to the sum over all shares of the loss.

        At most `num_shards` shares are computed at once; more of them accumulate.
        """

        def gradients(loss: Callable[[], Tensor]) -> tuple[Tensor | None, ...]:
            value = loss()
            if not value.requires_grad:
                return (None,) * len(params)
            return torch.autograd.grad(value, params, allow_unused=True)

        for param in params:
            param.grad = None
        for start in range(0, len(losses), self.num_shards):
            shares = self.map(gradients, losses[start : start + self.num_shards])
            for param, parts in zip(params, zip(*shares, strict=True), strict=True):
                found = [part for part in (param.grad, *parts) if part is not None]
                param.grad = torch.stack(found).sum(0) if found else None


def _one_thread() -> None:
    torch.set_num_threads(1)
