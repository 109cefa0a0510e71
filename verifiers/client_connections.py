"""A thread with an event loop, which all of a client's connections belong to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from verifiers.client_http import HttpEndpoint
from verifiers.client_requests import BatchRequest
from verifiers.client_sender import RequestSender, RewardServiceError, Unanswered
from verifiers.client_servers import RewardServers
from verifiers.verdict import Verdict

REQUESTS_IN_FLIGHT_PER_SERVER = 32


class Connections:
    """Connections to a client's servers, made as they are needed."""

    def __init__(self, servers: RewardServers, token: str | None, request_timeout_s: float) -> None:
        self.servers = servers
        slots = REQUESTS_IN_FLIGHT_PER_SERVER * len(servers.all)
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._endpoints = {
            server.url: HttpEndpoint(f"{server.url}/score", headers) for server in servers.all
        }
        self.sender = RequestSender(
            servers,
            self._endpoints,
            request_timeout_s=request_timeout_s,
            requests_in_flight_max=slots,
        )
        self._closing = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="reward client", daemon=True
        )
        self._thread.start()

    def send_all(
        self, requests: Sequence[BatchRequest], deadline_s: float
    ) -> Future[list[list[Verdict] | Unanswered]]:
        """The answers to all requests of a batch, once they are there."""
        return asyncio.run_coroutine_threadsafe(self._answers(requests, deadline_s), self._loop)

    def close(self) -> None:
        """Cancel what is in flight, close the connections and end the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _answers(
        self, requests: Sequence[BatchRequest], deadline_s: float
    ) -> list[list[Verdict] | Unanswered]:
        try:
            return await self.sender.send_all(requests, deadline_s)
        except asyncio.CancelledError:
            if self._closing:
                raise RewardServiceError("the client was closed before the answer came") from None
            raise

    async def _end(self) -> None:
        self._closing = True
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for endpoint in self._endpoints.values():
            endpoint.close()
