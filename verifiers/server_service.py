"""What a reward server does with a request's body, without HTTP: read, admit, judge, remember.

The event loop reads requests and writes answers; it never judges anything itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib.metadata import version as version_of
from time import perf_counter

from verifiers.pool import ScoringPool
from verifiers.server_metrics import Metrics
from verifiers.server_replay import OtherBody, Replays, digest_of
from verifiers.server_request import Batch, RefusedRequest, read_request
from verifiers.verdict import Verdict
from verifiers.wire import checked, encode_answer

ENDPOINTS = ("/score", "/health", "/metrics", "/version", "/openapi.json")

_SMALL_BODY_BYTES = 2**18  # reading takes the loop less than a millisecond
_FEW_VERDICTS = 256


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """What a server takes on."""

    body_bytes_max: int = 64 * 2**20
    """Largest request body, in bytes."""
    items_max: int = 4096
    """Most items in one request."""
    queue_items_max: int = 65_536
    """Most items accepted and not yet judged; beyond them requests are answered with 429."""
    body_s: float = 60.0
    """Longest time a body may take to arrive."""

    def __post_init__(self) -> None:
        for name in ("body_bytes_max", "items_max", "queue_items_max", "body_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed: above 0")


class RewardService:
    """One server's state: its pool, what it has counted, and what it is working on."""

    def __init__(self, pool: ScoringPool, limits: ServerLimits | None = None) -> None:
        self.pool = pool
        self.limits = limits or ServerLimits()
        self.metrics = Metrics(ENDPOINTS)
        self.replays = Replays()
        self.version = version_of("vl-triune")
        self.draining = False
        """Whether new work is refused because the server is stopping."""
        self.items_in_flight = 0
        self.requests_in_flight = 0

    async def score(self, body: bytes) -> bytes:
        """The answer to a request's body.

        Raises: RefusedRequest.
        """
        if len(body) <= _SMALL_BODY_BYTES:
            batch, digest = self._read(body)
        else:
            batch, digest = await asyncio.to_thread(self._read, body)
        if batch.request_id is None:
            self._admit(batch)
            return await self._judge(batch)
        try:
            answer = self.replays.find(batch.request_id, digest)
        except OtherBody as error:
            raise RefusedRequest(409, str(error)) from error
        if answer is None:
            self._admit(batch)
            answer = self.replays.start(batch.request_id, digest, lambda: self._judge(batch))
        else:
            self.metrics.replays += 1
        return await asyncio.shield(answer)  # who asked may go away; the answer is kept

    def _read(self, body: bytes) -> tuple[Batch, bytes]:
        batch = read_request(body, items_max=self.limits.items_max)
        return batch, b"" if batch.request_id is None else digest_of(body)

    def _admit(self, batch: Batch) -> None:
        if self.draining:
            raise RefusedRequest(503, "the server is stopping; ask another one")
        waiting, most = self.items_in_flight, self.limits.queue_items_max
        if waiting and waiting + len(batch.items) > most:
            raise RefusedRequest(
                429,
                f"{waiting} items wait and {len(batch.items)} more were sent; "
                f"allowed: {most} in all. Send them later, or to another server",
            )
        self.items_in_flight += len(batch.items)

    async def _judge(self, batch: Batch) -> bytes:
        """The answer to an admitted batch."""
        started = perf_counter()
        try:
            judged = await asyncio.wrap_future(self.pool.submit(batch.items, batch.context))
        except RuntimeError as error:
            raise RefusedRequest(503, f"nobody judges here any more: {error}") from error
        finally:
            self.items_in_flight -= len(batch.items)
        if len(judged) <= _FEW_VERDICTS:
            verdicts, answer = self._answer(batch, judged)
        else:
            verdicts, answer = await asyncio.to_thread(self._answer, batch, judged)
        self.metrics.count_verdicts(verdicts, perf_counter() - started)
        return answer

    def _answer(self, batch: Batch, judged: list[Verdict]) -> tuple[list[Verdict], bytes]:
        verdicts = [checked(verdict) for verdict in judged]
        return verdicts, encode_answer(verdicts, batch.request_id, self.version)
