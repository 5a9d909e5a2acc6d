"""What surrounds every request: its Request-Id, its metrics, and 413 as problem+json.

Plain ASGI, outermost: the framework's own body limit answers in plain text before any exception handler runs.
"""

from __future__ import annotations

import time
from uuid import uuid4

from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import REQUEST_ID_KEY, problem

_REQUESTS = Counter("billing_api_requests_total", "Requests of the HTTP API", ["method", "endpoint", "status"])
_SECONDS = Histogram(
    "billing_api_request_seconds",
    "Time from request to the start of the answer",
    ["endpoint"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class Envelope:
    """Wraps the whole app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = str(uuid4())
        scope[REQUEST_ID_KEY] = request_id
        started = time.perf_counter()
        replaced = False

        async def send_enveloped(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start":
                _count(scope, message["status"], time.perf_counter() - started)
                if message["status"] == 413 and not _is_problem(message):
                    replaced = True
                    refusal = problem(scope, 413, "too_large", "the body is larger than this endpoint takes")
                    await refusal(scope, receive, send_with_id)
                    return
            if not replaced:
                await send_with_id(message)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"request-id", request_id.encode())]
            await send(message)

        await self._app(scope, receive, send_enveloped)


def _is_problem(message: Message) -> bool:
    return any(name == b"content-type" and b"problem+json" in value for name, value in message["headers"])


def _count(scope: Scope, status: int, seconds: float) -> None:
    endpoint = endpoint_of(scope)
    # Only known words become labels: a scanner must not be able to fill the registry.
    method = scope["method"] if scope["method"] in _METHODS else "other"
    _REQUESTS.labels(method, endpoint, str(status)).inc()
    _SECONDS.labels(endpoint).observe(seconds)


def endpoint_of(scope: Scope) -> str:
    """Return the path of the matched route with its parameters' names, `unmatched` if there is none."""
    return getattr(scope.get("route"), "path", "unmatched")
