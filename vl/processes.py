"""Several processes that train one model, as `accelerate launch --num_processes N` starts them.

Every process holds the whole model and knows the whole batch; it computes its share of the batch's
shards and exchanges results (`vl.parallel.Shards`), so that N processes come to the numbers of one.
Losses are normalised by the tokens of the whole step, hence gradients are summed, not averaged.
The first process alone writes logs and checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")

_BUCKET_NUMEL = 16 * 2**20


def evenly(count: int, parts: int) -> list[range]:
    """Positions 0 ... count - 1 in consecutive parts of nearly equal number."""
    bounds = [count * part // parts for part in range(parts + 1)]
    return [range(start, end) for start, end in pairwise(bounds)]


@dataclass(frozen=True)
class Processes:
    """One process among `size`; alone, nothing is exchanged."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """True for the process that writes."""
        return self.rank == 0

    def own(self, count: int) -> range:
        """Positions of this process among `count` items: consecutive, of nearly equal number."""
        return evenly(count, self.size)[self.rank]

    def gather(self, mine: Sequence[T]) -> list[T]:
        """The items of all processes, those of the first process first; they must pickle."""
        if self.size == 1:
            return list(mine)
        found: list[Sequence[T]] = [()] * self.size
        distributed.all_gather_object(found, mine)
        return [item for items in found for item in items]

    def agree(self, flag: bool) -> bool:
        """True everywhere if it is True in any process."""
        return any(self.gather([flag]))

    def wait(self) -> None:
        """Returns when every process has come here."""
        if self.size > 1:
            distributed.barrier()

    def leave(self) -> None:
        """Ends the exchange, at the very end; a process that exits inside it may abort instead."""
        if self.size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Gives every process the first one's values, in place."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor.detach(), src=0)

    def sum_gradients(self, params: Sequence[nn.Parameter]) -> None:
        """Replaces each gradient by its sum over processes; None where none has one."""
        if self.size == 1 or not params:
            return
        device = params[0].device
        has = torch.tensor([p.grad is not None for p in params], dtype=torch.int32, device=device)
        distributed.all_reduce(has, distributed.ReduceOp.MAX)
        live = [param for param, some in zip(params, has.tolist(), strict=True) if some]
        for bucket in _buckets(live):
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            flat = torch.cat([grad.flatten() for grad in grads])
            distributed.all_reduce(flat)
            sizes = [grad.numel() for grad in grads]
            for param, grad in zip(bucket, flat.split(sizes), strict=True):
                param.grad = grad.view_as(param)


ALONE = Processes()


def launched_processes() -> Processes:
    """The place of this process among those that `accelerate launch` started; alone without it.

    On CPU the processes talk through gloo, on GPUs through NCCL, as accelerate sets up. Without a
    GPU, too, `accelerate launch` starts several only with `--multi_gpu`.

    Raises:
        ValueError: accelerate was told to shard the model (FSDP, DeepSpeed, Megatron).
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedType

    # on a machine without GPU accelerate sees several processes only if told to use the CPU
    state = Accelerator(cpu=not torch.cuda.is_available()).state
    if state.distributed_type not in (
        DistributedType.NO,
        DistributedType.MULTI_CPU,
        DistributedType.MULTI_GPU,
    ):
        raise ValueError(
            f"accelerate launch: found distributed type {state.distributed_type.value}; this "
            "trainer keeps the whole model in every process (NO, MULTI_CPU or MULTI_GPU), because "
            "its backward pass through shared prefixes takes whole gradients. Launch without "
            "sharding, train adapters (LoRA), or use the engine that shards: --engine verl"
        )
    return Processes(rank=state.process_index, size=state.num_processes)


def _buckets(params: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Consecutive parameters of one type and device, up to some 16 million numbers."""
    buckets: list[list[nn.Parameter]] = []
    numel = 0
    for param in params:
        last = buckets[-1][-1] if buckets else None
        fits = last is not None and (last.dtype, last.device) == (param.dtype, param.device)
        if not fits or numel + param.numel() > _BUCKET_NUMEL:
            buckets.append([])
            numel = 0
        buckets[-1].append(param)
        numel += param.numel()
    return buckets
