"""The reward server's endpoints, as an ASGI application around a `RewardService`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from verifiers.registry import find_verifier, verifier_names
from verifiers.server_guard import JSON, Guard, read_body, refusal_response
from verifiers.server_request import RefusedRequest
from verifiers.server_schema import Refusal, ScoreAnswer, ScoreRequest
from verifiers.server_service import RewardService

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "The body is no JSON."},
    401: {"model": Refusal, "description": "No token, or not the server's."},
    403: {"model": Refusal, "description": "No token is needed, but the host is not this machine."},
    408: {"model": Refusal, "description": "The body took too long to arrive."},
    409: {"model": Refusal, "description": "The request_id stood for another body."},
    413: {"model": Refusal, "description": "Too many bytes or items."},
    415: {"model": Refusal, "description": "The content type is not application/json."},
    422: {"model": Refusal, "description": "Malformed; nothing was judged."},
    429: {"model": Refusal, "description": "The queue is full; ask again or elsewhere."},
    503: {"model": Refusal, "description": "The server is stopping; ask elsewhere."},
}

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(
    service: RewardService, *, token: str | None = None, lifespan: Lifespan | None = None
) -> ASGIApp:
    """The server as an ASGI application.

    Args:
        service: what answers.
        token: bearer token that every request but those for /health must carry; without one, only
            requests to a loopback name are answered, so that no web page can reach the server.
        lifespan: what to do around serving.
    """
    app = _App(
        title="vl-triune reward server",
        version=service.version,
        docs_url=None,  # that page would load its scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )

    @app.post(
        "/score",
        response_model=None,
        summary="Judge a batch.",
        responses={200: {"model": ScoreAnswer}, **_REFUSALS},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {JSON: {"schema": {"$ref": _App.REF.format(model="ScoreRequest")}}},
            }
        },
    )
    async def score(request: Request) -> Response:
        try:
            body = await read_body(request.scope, request.receive, service.limits)
            return Response(await service.score(body), media_type=JSON)
        except RefusedRequest as error:
            return refusal_response(error)

    @app.get("/health", response_model=None, summary="200 while serving, 503 while stopping.")
    async def health() -> Response:
        status = "stopping" if service.draining else "ok"
        if service.pool.is_closed:
            status = "the workers have ended; start the server again"
        body = orjson.dumps({"status": status})
        return Response(body, 200 if status == "ok" else 503, media_type=JSON)

    @app.get("/version", response_model=None, summary="Versions and limits.")
    async def version() -> Response:
        return Response(orjson.dumps(_version(service)), media_type=JSON)

    @app.get("/metrics", response_model=None, summary="Counts and times as Prometheus text.")
    async def metrics() -> Response:
        return Response(_metrics(service), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/score" and scope["method"] == "POST":
            # Without FastAPI's layers, which cost as much as everything else of a small request.
            response = await score(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await app(scope, receive, send)

    return Guard(routed, service, token)


class _App(FastAPI):
    """FastAPI whose document has the schema of requests, which it does not read itself."""

    REF = "#/components/schemas/{model}"

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            schema = ScoreRequest.model_json_schema(ref_template=self.REF)
            parts = schema.pop("$defs")
            document["components"]["schemas"].update(parts, ScoreRequest=schema)
            document["components"]["securitySchemes"] = {
                "token": {"type": "http", "scheme": "bearer"}
            }
            document["security"] = [{"token": []}, {}]
        assert self.openapi_schema is not None
        return self.openapi_schema


def _version(service: RewardService) -> dict[str, Any]:
    found = {name: find_verifier(name) for name in verifier_names()}
    return {
        "server": "vl-triune",
        "version": service.version,
        "verifiers": {name: one.version for name, one in found.items() if one is not None},
        "body_bytes_max": service.limits.body_bytes_max,
        "items_max": service.limits.items_max,
    }


def _metrics(service: RewardService) -> str:
    pool = service.pool.stats()
    return service.metrics.text(
        gauges={
            "requests_in_flight": service.requests_in_flight,
            "items_in_flight": service.items_in_flight,
            "queue_items": pool.queued,
            "pool_workers": pool.num_workers,
            "pool_workers_busy": pool.busy,
        },
        counters={"pool_restarts_total": pool.restarts, "pool_timeouts_total": pool.timeouts},
        version=service.version,
    )
