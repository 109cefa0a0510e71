"""Verdicts from reward servers: each item gets one, or the reason why it has none, never a zero.

A batch goes out in several requests, each to the least busy server; one that fails goes to another
server until the deadline. A request that is sent twice has one id, so a server judges it once.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from types import TracebackType
from urllib.parse import urlsplit
from weakref import WeakSet

from data_specs import Sample
from verifiers.iou_rule import ScoreContext
from verifiers.verdict import Verdict

try:
    from verifiers.client_connections import Connections
    from verifiers.client_requests import Split, split_batch
    from verifiers.client_sender import RefusedByServer, RewardServiceError, Unanswered
    from verifiers.client_servers import RewardServers
except ModuleNotFoundError as error:
    raise ImportError(
        f"a reward client needs {error.name}; install it: pip install 'vl-triune[serve]'"
    ) from error

__all__ = ["ClientStats", "RefusedByServer", "RewardClient", "RewardServiceError", "ServerStats"]

DEADLINE_S = 60.0
"""How long a batch may take in all."""

REQUEST_TIMEOUT_S = 30.0
"""How long one server may take for one request before another one is asked."""

ITEMS_PER_REQUEST = 64
"""Most items in one request."""

_ITEMS_PER_REQUEST_MIN = 8  # fewer are not worth a request of their own
_DEFAULT_CONTEXT = ScoreContext()


@dataclass(frozen=True, kw_only=True)
class ServerStats:
    """What a client knows about one server."""

    url: str
    items_in_flight: int
    requests: int
    failed: int
    last_error: str
    """Empty if nothing failed yet."""


@dataclass(frozen=True, kw_only=True)
class ClientStats:
    """What a client has done."""

    items: int
    unscored: int
    """Items that no server answered for."""
    requests: int
    """Requests sent, repeated ones included."""
    retries: int
    """Requests sent again because a server failed."""
    hedges: int
    """Requests sent to a second server because the first took its time."""
    servers: tuple[ServerStats, ...]


class RewardClient:
    """Connections to reward servers, to be used from any number of threads and event loops.

    A process that is forked makes its own connections. Use it as a context manager, or call
    `close`.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        token: str | None = None,
        deadline_s: float = DEADLINE_S,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        hedge_after_s: float | None = None,
        max_items_per_request: int = ITEMS_PER_REQUEST,
    ) -> None:
        """Connects to nothing yet.

        Args:
            urls: base addresses, `http://host:8000`.
            token: bearer token of all of them.
            deadline_s: how long a batch may take in all, retries included.
            request_timeout_s: how long one server may take for one request.
            hedge_after_s: after so long a request goes to a second server too, and the first
                answer counts; None: four times the median, at least 3 s; math.inf: never.
            max_items_per_request: larger batches go out in several requests.
        """
        if isinstance(urls, str) or not urls or len(set(urls)) < len(urls):
            raise ValueError(f"urls is {urls!r}; allowed: one or more addresses, each once")
        self._urls = tuple(map(_checked_url, urls))
        for name, value in (
            ("deadline_s", deadline_s),
            ("request_timeout_s", request_timeout_s),
            ("hedge_after_s", 1.0 if hedge_after_s is None else hedge_after_s),
            ("max_items_per_request", max_items_per_request),
        ):
            if not value > 0:
                raise ValueError(f"{name} is {value!r}; allowed: above 0")
        if token is not None and not all("!" <= char <= "~" for char in token):
            raise ValueError("the token has characters that are not visible ASCII; allowed: none")
        self._token = token
        self._deadline_s = deadline_s
        self._request_timeout_s = request_timeout_s
        self._hedge_after_s = hedge_after_s
        self._max_items = max_items_per_request
        self._num_items = 0
        self._num_unscored = 0
        self._closed = False
        self._forget_connections()
        _watch_forks()
        _clients.add(self)

    def score_batch(
        self, items: Sequence[tuple[Sample, str]], context: ScoreContext = _DEFAULT_CONTEXT
    ) -> list[Verdict]:
        """One verdict per (sample, response), in order.

        Items that no server answered for in time are unscored, with the reason.

        Raises:
            RewardServiceError: no server answered for any of them; names each with its last error.
            RefusedByServer: a server says that the request is wrong.
        """
        if not items:
            return []
        split = self._split(items, context)
        future = self._sent(split)
        try:
            answers = future.result()
        except BaseException:
            future.cancel()  # whoever waited was interrupted
            raise
        return self._verdicts(items, split, answers)

    async def score_batch_async(
        self, items: Sequence[tuple[Sample, str]], context: ScoreContext = _DEFAULT_CONTEXT
    ) -> list[Verdict]:
        """`score_batch` for an event loop, which goes on meanwhile."""
        if not items:
            return []
        split = self._split(items, context)
        answers = await asyncio.wrap_future(self._sent(split))
        return self._verdicts(items, split, answers)

    def stats(self) -> ClientStats:
        """What the client has done since it was made, or since its process was forked."""
        connections = self._connections
        servers = connections.servers.all if connections else ()
        return ClientStats(
            items=self._num_items,
            unscored=self._num_unscored,
            requests=sum(one.num_requests for one in servers),
            retries=connections.sender.num_retries if connections else 0,
            hedges=connections.sender.num_hedges if connections else 0,
            servers=tuple(
                ServerStats(
                    url=one.url,
                    items_in_flight=one.items_in_flight,
                    requests=one.num_requests,
                    failed=one.num_failed,
                    last_error=one.last_error,
                )
                for one in servers
            ),
        )

    def close(self) -> None:
        """Give up what is in flight and close the connections."""
        with self._lock:
            self._closed = True
            connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()

    def __enter__(self) -> RewardClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _split(self, items: Sequence[tuple[Sample, str]], context: ScoreContext) -> Split:
        """The batch as requests: with several servers, enough of them to keep all busy."""
        most = self._max_items
        if len(self._urls) > 1:
            share = -(-len(items) // (2 * len(self._urls)))
            most = min(most, max(share, _ITEMS_PER_REQUEST_MIN))
        return split_batch(items, context, most)

    def _sent(self, split: Split) -> Future[list[list[Verdict] | Unanswered]]:
        with self._lock:
            if self._closed:
                raise RewardServiceError("the client is closed")
            if self._connections is None:
                self._connections = Connections(
                    RewardServers(self._urls, self._hedge_after_s),
                    self._token,
                    self._request_timeout_s,
                )
            return self._connections.send_all(split.requests, self._deadline_s)

    def _verdicts(
        self,
        items: Sequence[tuple[Sample, str]],
        split: Split,
        answers: list[list[Verdict] | Unanswered],
    ) -> list[Verdict]:
        """The answers in the order of the items."""
        if answers and all(isinstance(answer, Unanswered) for answer in answers):
            raise self._nothing_scored(sum(len(request.indices) for request in split.requests))
        verdicts = dict(split.unsendable)
        num_unscored = 0
        for request, answer in zip(split.requests, answers, strict=True):
            if isinstance(answer, Unanswered):
                num_unscored += len(request.indices)
                unscored = Verdict.unscored(answer.reason, status=answer.status)
                for index in request.indices:
                    name = items[index][0].reward.verifier
                    verdicts[index] = replace(unscored, verifier=name)
            else:
                verdicts.update(zip(request.indices, answer, strict=True))
        with self._lock:
            self._num_items += len(items)
            self._num_unscored += num_unscored
        return [verdicts[index] for index in range(len(items))]

    def _nothing_scored(self, num_items: int) -> RewardServiceError:
        said = "; ".join(
            f"{one.url}: {one.last_error or 'not asked'}" for one in self.stats().servers
        )
        return RewardServiceError(
            f"no server scored any of {num_items} items within {self._deadline_s:g} s. {said}. "
            "Start the servers with 'vl serve', or name others"
        )

    def _forget_connections(self) -> None:
        """Start anew: in a forked process the thread is gone and the connections are another's."""
        self._lock = threading.Lock()
        self._connections: Connections | None = None


def _checked_url(url: str) -> str:
    """The address without its last slash."""
    parts = urlsplit(url)
    try:
        is_usable = parts.port != 0 and bool(parts.hostname)
    except ValueError:  # what stands for the port is no number
        is_usable = False
    is_plain = url.isascii() and url.isprintable() and " " not in url
    has_more = parts.query or parts.fragment or parts.username
    if parts.scheme not in ("http", "https") or not is_usable or not is_plain or has_more:
        raise ValueError(f"server {url!r}; allowed: an address like http://127.0.0.1:8000")
    return url.rstrip("/")


_clients: WeakSet[RewardClient] = WeakSet()
_abandoned: list[Connections] = []


@functools.cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget_all_connections)


def _forget_all_connections() -> None:
    """In a forked process: every client starts anew.

    What belongs to the parent is kept untouched: to close it here would disturb it there.
    """
    for client in _clients:
        connections = client._connections  # pyright: ignore[reportPrivateUsage]
        if connections is not None:
            _abandoned.append(connections)
        client._forget_connections()  # pyright: ignore[reportPrivateUsage]
