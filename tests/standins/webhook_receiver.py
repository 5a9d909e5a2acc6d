"""A receiver of Standard Webhooks, written with the standard's own library; it breaks on demand."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from tests.standins.faults import FaultPlan
from tests.standins.loopback import LoopbackServer, cut

FAULT_KINDS = frozenset(
    {"server_error", "rate_limit", "gone", "refuse", "redirect", "slow", "cut_before", "cut_after", "endless"}
)


@dataclass(frozen=True)
class Received:
    """A message whose signature was right."""

    message_id: str
    event: Any
    signatures: int


class WebhookReceiver:
    """Takes what any of its secrets verifies; refuses the rest with 401. Every request is kept in `requests`."""

    def __init__(self) -> None:
        self.secrets: list[str] = []
        self.received: list[Received] = []
        self.requests: list[dict[str, str]] = []
        self.elsewhere = 0
        self.faults = FaultPlan(FAULT_KINDS)
        app = web.Application()
        app.router.add_post("/hook", self._take)
        app.router.add_route("*", "/elsewhere", self._take_elsewhere)
        self._server = LoopbackServer(app)

    @property
    def url(self) -> str:
        """Where messages are taken."""
        return f"{self._server.url}/hook"

    @property
    def message_ids(self) -> list[str]:
        """Ids of the messages taken, in order."""
        return [one.message_id for one in self.received]

    async def start(self) -> None:
        """Listen on a free loopback port."""
        await self._server.start()

    async def stop(self) -> None:
        """Stop listening."""
        await self._server.stop()

    async def _take_elsewhere(self, _: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.requests.append({name.lower(): value for name, value in request.headers.items()})
        fault = self.faults.take(request.method, request.path)
        match fault.kind if fault is not None else None:
            case "server_error":
                return web.Response(status=503)
            case "rate_limit":
                assert fault is not None
                return web.Response(status=429, headers={"Retry-After": str(fault.retry_after_seconds)})
            case "gone":
                return web.Response(status=410)
            case "refuse":
                return web.Response(status=400, text="we do not like this")
            case "redirect":
                return web.Response(status=307, headers={"Location": "/elsewhere"})
            case "cut_before":
                return cut(request)
            case "slow":
                assert fault is not None
                await self._server.pause(fault.seconds)
        answer = self._verify(await request.read())
        if fault is not None and fault.kind == "cut_after":
            return cut(request)
        if fault is not None and fault.kind == "endless":
            return await self._answer_for_ever(request)
        return answer

    def _verify(self, body: bytes) -> web.Response:
        headers = self.requests[-1]
        for secret in self.secrets:
            try:
                event = Webhook(secret).verify(body, headers)
            except WebhookVerificationError:
                continue
            signatures = len(headers["webhook-signature"].split())
            self.received.append(Received(headers["webhook-id"], event, signatures))
            return web.Response()
        return web.Response(status=401)

    async def _answer_for_ever(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError, OSError):
            while not self._server.closing.is_set():
                await response.write(b"x" * 65_536)
        return response
