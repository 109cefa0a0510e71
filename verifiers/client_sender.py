"""How one request gets its answer: from the least busy server, else from another, in time."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from random import Random
from time import monotonic
from typing import Any, NamedTuple, cast

import orjson

from data_specs import shorten
from verifiers.client_http import HttpAnswer, HttpEndpoint, HttpError
from verifiers.client_requests import BatchRequest
from verifiers.client_servers import RewardServer, RewardServers
from verifiers.verdict import Status, Verdict
from verifiers.wire import WireError, decode_answer

BACK_OFF_MIN_S = 0.05
"""Wait before a request is sent a second time; doubled with each time more."""

BACK_OFF_MAX_S = 5.0

_RETRIED_CODES = frozenset({408, 425, 429})


class RewardServiceError(RuntimeError):
    """No verdicts, and why; never to be taken for scores of zero."""


class RefusedByServer(RewardServiceError):
    """A server says that the request itself is wrong; sending it again would not help."""


class _AttemptFailed(Exception):
    """One server did not answer one request; another may."""


class Unanswered(NamedTuple):
    """Why a request got no answer before its deadline."""

    status: Status
    reason: str


class _Progress:
    """Where a request stands, for the words to say if its time runs out."""

    server: RewardServer | None = None
    """Who is working on it."""
    last_error: str = ""


class RequestSender:
    """Sends requests; all its methods run on one event loop."""

    def __init__(
        self,
        servers: RewardServers,
        endpoints: Mapping[str, HttpEndpoint],
        *,
        request_timeout_s: float,
        requests_in_flight_max: int,
    ) -> None:
        self._servers = servers
        self._endpoints = endpoints
        self._request_timeout_s = request_timeout_s
        self._slots = asyncio.Semaphore(requests_in_flight_max)
        self._random = Random()
        self.num_retries = 0
        self.num_hedges = 0

    async def send_all(
        self, requests: Sequence[BatchRequest], deadline_s: float
    ) -> list[list[Verdict] | Unanswered]:
        """For each request its verdicts, or why there are none after `deadline_s` seconds.

        Raises: RefusedByServer if a server refuses one of them.
        """
        if len(requests) == 1:
            return [await self._send(requests[0], deadline_s)]
        tasks = [asyncio.create_task(self._send(request, deadline_s)) for request in requests]
        try:
            return await asyncio.gather(*tasks)
        finally:
            await _cancel(tasks)

    async def _send(self, request: BatchRequest, deadline_s: float) -> list[Verdict] | Unanswered:
        progress = _Progress()
        try:
            async with asyncio.timeout(deadline_s):
                return await self._until_answered(request, progress)
        except TimeoutError:
            within = f"no answer within {deadline_s:g} s"
            if progress.server is not None:
                progress.server.failed(within, self._random)
                return Unanswered("timeout", f"{progress.server.url}: {within}")
            return Unanswered("fault", f"{within}; {progress.last_error or 'all servers rest'}")

    async def _until_answered(self, request: BatchRequest, progress: _Progress) -> list[Verdict]:
        back_off_s = BACK_OFF_MIN_S
        failed: RewardServer | None = None
        while True:
            async with self._slots:
                server = await self._able_server(failed)
                progress.server = server
                try:
                    return await self._ask(server, request)
                except _AttemptFailed as error:
                    progress.server, progress.last_error = None, str(error)
            failed = server
            self.num_retries += 1
            await asyncio.sleep(back_off_s * self._random.uniform(0.5, 1.0))
            back_off_s = min(BACK_OFF_MAX_S, 2.0 * back_off_s)

    async def _able_server(self, failed: RewardServer | None) -> RewardServer:
        """The least busy server, another than the one that failed if there is one."""
        while True:
            server = self._servers.least_busy(avoid=(failed,)) or self._servers.least_busy()
            if server is not None:
                return server
            await asyncio.sleep(max(0.01, self._servers.rest_s()))

    async def _ask(self, server: RewardServer, request: BatchRequest) -> list[Verdict]:
        """The first answer of this server or, if it takes its time, of a second one."""
        if len(self._servers.all) == 1:
            return await self._asked(server, request)
        tasks = {self._asked(server, request)}
        try:
            done, _ = await asyncio.wait(tasks, timeout=self._servers.hedge_after_s())
            other = None if done else self._servers.least_busy(avoid=(server,))
            if other is not None:
                self.num_hedges += 1
                tasks.add(self._asked(other, request))
            while True:
                done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if task.exception() is None or not pending:
                        return task.result()
                tasks = pending
        finally:
            await _cancel(tasks)

    def _asked(self, server: RewardServer, request: BatchRequest) -> asyncio.Task[list[Verdict]]:
        """One server's answer, on its way; from now on the server counts as busy with it."""
        server.items_in_flight += len(request.indices)
        server.num_requests += 1
        task = asyncio.create_task(self._post(server, request))

        def release(task: asyncio.Task[list[Verdict]]) -> None:
            server.items_in_flight -= len(request.indices)

        task.add_done_callback(release)
        return task

    async def _post(self, server: RewardServer, request: BatchRequest) -> list[Verdict]:
        """One server's answer.

        Raises: _AttemptFailed if another server may do better, else RefusedByServer.
        """
        started = monotonic()
        try:
            async with asyncio.timeout(self._request_timeout_s):
                answer = await self._endpoints[server.url].post(request.body)
            if answer.status == 200:
                verdicts = decode_answer(answer.body, request.request_id, len(request.indices))
                self._servers.took(monotonic() - started)
                server.succeeded()
                return verdicts
            problem = f"HTTP {answer.status}: {_message(answer)}"
            if answer.status < 500 and answer.status not in _RETRIED_CODES:
                server.last_error = problem
                raise RefusedByServer(f"{server.url} refuses the request: {problem}")
        except TimeoutError:
            problem = f"no answer within {self._request_timeout_s:g} s"
        except HttpError as error:
            problem = str(error)
        except WireError as error:
            problem = f"wrong answer: {error}"
        server.failed(problem, self._random)
        raise _AttemptFailed(f"{server.url}: {problem}")


async def _cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _message(answer: HttpAnswer) -> str:
    """What a server says about its refusal."""
    try:
        content: object = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        content = None
    error = cast("dict[str, object]", content).get("error") if isinstance(content, dict) else None
    return error if isinstance(error, str) else shorten(answer.body)
