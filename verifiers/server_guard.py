"""Who may ask a reward server, and how much: what is checked before and while a body is read."""

from __future__ import annotations

import asyncio
import hmac
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from verifiers.server_request import RefusedRequest
from verifiers.server_service import RewardService, ServerLimits

JSON = "application/json"

TOKEN_CHARS_MIN = 16
"""Shortest bearer token."""


class Guard:
    """Who may ask at all, decided before anything of a body is read; and a count of the answers."""

    def __init__(self, app: ASGIApp, service: RewardService, token: str | None) -> None:
        self._app = app
        self._service = service
        self._bearer = None if token is None else b"Bearer " + token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        service, path = self._service, scope["path"]

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                service.metrics.count_request(path, message["status"])
            await send(message)

        service.requests_in_flight += 1
        try:
            refused = self._refused(path, dict(scope["headers"]))
            if refused is None:
                await self._app(scope, receive, counted)
            else:
                await refusal_response(refused)(scope, receive, counted)
        finally:
            service.requests_in_flight -= 1

    def _refused(self, path: str, headers: dict[bytes, bytes]) -> RefusedRequest | None:
        if path == "/health":
            return None
        if self._bearer is not None:
            given = headers.get(b"authorization", b"")
            if hmac.compare_digest(given, self._bearer):
                return None
            found = "another token" if given else "no token"
            return RefusedRequest(
                401, f"found {found}; allowed: the header 'Authorization: Bearer TOKEN'"
            )
        host = headers.get(b"host", b"").decode("latin-1")
        if is_loopback(host if host.endswith("]") else host.rpartition(":")[0] or host):
            return None
        return RefusedRequest(
            403,
            f"the request is for host {host!r}; allowed without a token: localhost, 127.0.0.1, "
            "[::1]. Start the server with --token-file",
        )


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> str:
    """The bearer token that a file holds.

    Raises: ValueError if it is short or holds anything but visible ASCII.
    """
    token = path.read_text(encoding="utf-8").strip()
    if len(token) < TOKEN_CHARS_MIN or not all("!" <= char <= "~" for char in token):
        raise ValueError(
            f"{path} holds {len(token)} characters; allowed: a token of at least {TOKEN_CHARS_MIN} "
            f"visible ASCII characters. Make one: python -c 'import secrets; "
            f"print(secrets.token_urlsafe(32))' > {path}"
        )
    return token


async def read_body(scope: Scope, receive: Receive, limits: ServerLimits) -> bytes:
    """The whole body of a request.

    Raises: RefusedRequest before more than the limit is read.
    """
    headers = dict(scope["headers"])
    kind = headers.get(b"content-type", b"").decode("latin-1")
    if kind.partition(";")[0].strip().lower() != JSON:
        raise RefusedRequest(415, f"content type {kind!r}; allowed: {JSON}")
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limits.body_bytes_max:
        raise _too_large(limits)
    chunks: list[bytes] = []
    num_bytes = 0
    try:
        async with asyncio.timeout(limits.body_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RefusedRequest(400, "the connection was closed before the body's end")
                chunk: bytes = message.get("body", b"")
                num_bytes += len(chunk)
                if num_bytes > limits.body_bytes_max:
                    raise _too_large(limits)
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError as error:
        raise RefusedRequest(
            408, f"the body took longer than {limits.body_s:g} s to arrive"
        ) from error


def _too_large(limits: ServerLimits) -> RefusedRequest:
    return RefusedRequest(
        413, f"allowed: a body of up to {limits.body_bytes_max} bytes. Send the items in several"
    )


def refusal_response(error: RefusedRequest) -> Response:
    """The answer that says why; the connection ends where a body may be left unread."""
    headers: dict[str, str] = {}
    if error.code in (401, 403, 408, 413, 415):
        headers["connection"] = "close"
    if error.code == 401:
        headers["www-authenticate"] = "Bearer"
    if error.code in (429, 503):
        headers["retry-after"] = "1"
    body = orjson.dumps(error.refusal.model_dump())
    return Response(body, error.code, headers=headers, media_type=JSON)
