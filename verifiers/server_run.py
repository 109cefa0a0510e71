"""A reward server from start to stop: one process that listens, others that judge."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic

import uvicorn
from fastapi import FastAPI

from data_specs import RewardSpec, Sample
from verifiers.pool import MEMORY_LIMIT_MB, TIME_LIMIT_S, ScoringPool
from verifiers.server import create_app
from verifiers.server_guard import is_loopback
from verifiers.server_service import RewardService, ServerLimits

KEEP_ALIVE_S = 75
"""How long an idle connection is kept; clients give theirs up sooner, so that none is cut off."""

_WAIT_S = 0.02
_TWICE_S = 0.5
_FIRST = [
    (
        Sample(
            id="",
            source="",
            task="",
            messages=(),
            images=(),
            reward=RewardSpec(verifier="number", answer="7", ground_truth="7"),
        ),
        "7",
    )
]


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """One reward server."""

    host: str = "127.0.0.1"
    """Address to listen on; any but a loopback one needs a token."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    workers: int = 1
    """Processes that judge, at least 1."""
    time_limit_s: float = TIME_LIMIT_S
    """Longest time one response may take."""
    memory_limit_mb: int = MEMORY_LIMIT_MB
    """Most memory a worker may take beside what it starts with."""
    token: str | None = field(default=None, repr=False)
    """Bearer token of every request; None: none is needed."""
    limits: ServerLimits = ServerLimits()
    grace_s: float = 30.0
    """How long requests in flight may go on once the server is told to stop."""

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host!r} can be reached from other machines; allowed without a token: "
                "127.0.0.1, ::1, localhost. Give a token with --token-file"
            )
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"port is {self.port!r}; allowed: 0 to 65535")
        if not self.grace_s >= 0:
            raise ValueError(f"grace_s is {self.grace_s!r}; allowed: at least 0")


def serve(config: ServerConfig, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight; a second signal ends at once.

    Args:
        config: what to serve.
        on_ready: told the server's address once it answers there.

    Raises: OSError if the address cannot be listened on or the workers do not start.
    """
    with (
        _bound(config.host, config.port) as listener,
        ScoringPool(
            config.workers,
            time_limit_s=config.time_limit_s,
            memory_limit_mb=config.memory_limit_mb,
        ) as pool,
    ):
        try:
            pool.score_batch(_FIRST)  # the workers have loaded everything by then
        except RuntimeError as error:
            raise OSError(f"the workers do not start: {error}") from error
        service = RewardService(pool, config.limits)

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop)
            yield

        def stop() -> None:
            if service.draining:
                # `timeout` and some supervisors send each signal twice at once.
                if monotonic() - stopped_at[0] > _TWICE_S:
                    server.force_exit = server.should_exit = True
                return
            service.draining = True
            stopped_at.append(monotonic())
            stopping.append(asyncio.get_running_loop().create_task(drain()))

        async def drain() -> None:
            try:
                async with asyncio.timeout(config.grace_s):
                    while service.requests_in_flight:
                        await asyncio.sleep(_WAIT_S)
            except TimeoutError:
                pass  # uvicorn says how many it cuts off
            server.should_exit = True

        stopped_at: list[float] = []
        stopping: list[asyncio.Task[None]] = []  # the loop alone would not keep the task alive
        app = create_app(service, token=config.token, lifespan=lifespan)
        server = _Server(
            uvicorn.Config(
                app,
                lifespan="on",
                ws="none",
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=1,
            )
        )
        gc.collect()
        gc.freeze()  # what is loaded by now stays: looking through it again takes 30 ms
        server.on_started = lambda: on_ready(_url(listener))
        server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn that says when it listens."""

    on_started: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.on_started()


def _bound(host: str, port: int) -> socket.socket:
    """A socket at the address, not listening yet: who connects too early is refused."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise OSError(
            f"cannot listen on {host} port {port} ({error.strerror}); give a free one with --port"
        ) from error
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
