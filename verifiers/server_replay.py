"""Answers by request id: a request that is sent again is answered, not judged again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import blake2b
from time import monotonic

BYTES_MAX = 64 * 2**20
"""Answers kept, in bytes."""

AGE_MAX_S = 600.0
"""How long an answer is kept."""

_ENTRY_BYTES = 1024  # what keeping an answer costs beside its bytes


class OtherBody(ValueError):
    """A request id that came with another body before."""


@dataclass
class _Entry:
    digest: bytes
    answer: asyncio.Task[bytes]
    started: float
    num_bytes: int = 0


class Replays:
    """The answers of the last minutes, and those on their way. The oldest go first."""

    def __init__(self, bytes_max: int = BYTES_MAX, age_max_s: float = AGE_MAX_S) -> None:
        self._bytes_max = bytes_max
        self._age_max_s = age_max_s
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, request_id: str, digest: bytes) -> asyncio.Task[bytes] | None:
        """The answer to the same request, done or on its way; None if it is new.

        Raises: OtherBody if the id stood for something else.
        """
        self._drop_old()
        entry = self._entries.get(request_id)
        if entry is None:
            return None
        if entry.digest != digest:
            raise OtherBody(
                f"request_id {request_id!r} came with another body before; "
                "allowed: a new id for each new request"
            )
        return entry.answer

    def start(
        self, request_id: str, digest: bytes, judge: Callable[[], Awaitable[bytes]]
    ) -> asyncio.Task[bytes]:
        """The task that makes the answer; it goes on if whoever asked goes away."""

        async def answer() -> bytes:
            return await judge()

        task = asyncio.create_task(answer())
        entry = _Entry(digest, task, monotonic())
        self._entries[request_id] = entry
        task.add_done_callback(lambda done: self._keep(request_id, entry, done))
        return task

    def _keep(self, request_id: str, entry: _Entry, done: asyncio.Task[bytes]) -> None:
        if done.cancelled() or done.exception() is not None:
            del self._entries[request_id]  # the next sending tries again
            return
        entry.num_bytes = len(done.result()) + _ENTRY_BYTES
        self._num_bytes += entry.num_bytes
        self._drop_old()

    def _drop_old(self) -> None:
        """Forget what is too old or too much; never what is on its way."""
        oldest = monotonic() - self._age_max_s
        dropped: list[str] = []
        num_bytes = self._num_bytes
        for request_id, entry in self._entries.items():
            if num_bytes <= self._bytes_max and entry.started > oldest:
                break
            if entry.answer.done():
                num_bytes -= entry.num_bytes
                dropped.append(request_id)
        for request_id in dropped:
            del self._entries[request_id]
        self._num_bytes = num_bytes


def digest_of(body: bytes) -> bytes:
    """What tells one body from another."""
    return blake2b(body, digest_size=16).digest()
