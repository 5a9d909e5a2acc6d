"""A stand-in for a Slack incoming webhook (Slack's page "Sending messages using incoming webhooks").

Answers are Slack's plain words: `ok`, `invalid_payload`, `no_text`, `invalid_blocks`, `no_service`, `rate_limited`.
"""

from __future__ import annotations

import json
import time
from typing import Any

from aiohttp import web

from tests.standins.faults import FaultPlan
from tests.standins.loopback import LoopbackServer, add_fault_routes, cut

HOOK_PATH = "/services/T00000001/B00000001/standin"
# Slack's page "Rate limits": 429 with Retry-After. Its changelog of 2016-05-17: rollup_error for HTTP 500.
FAULT_KINDS = frozenset({"rate_limit", "server_error", "slow", "hang_after", "cut_before", "cut_after"})
BLOCKS_MAX = 50  # Slack's page "Blocks": up to 50 blocks in a message


class SlackStandIn:
    """The server and the messages it took."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.faults = FaultPlan(FAULT_KINDS)
        app = web.Application()
        add_fault_routes(app, self.faults)
        app.router.add_get("/_control/messages", self._show)
        app.router.add_post("/_control/reset", self._reset)
        app.router.add_post("/services/{team}/{bot}/{secret}", self._post)
        self._server = LoopbackServer(app)

    @property
    def url(self) -> str:
        """The full URL of the incoming webhook."""
        return self._server.url + HOOK_PATH

    @property
    def control_url(self) -> str:
        """Base URL of the control surface."""
        return f"{self._server.url}/_control"

    async def start(self, port: int = 0) -> None:
        """Listen on a loopback port."""
        await self._server.start(port)

    async def stop(self) -> None:
        """Stop listening."""
        await self._server.stop()

    async def _show(self, _: web.Request) -> web.Response:
        return web.json_response({"messages": self.messages})

    async def _reset(self, _: web.Request) -> web.Response:
        self.messages.clear()
        self.faults.clear()
        return web.json_response({})

    async def _post(self, request: web.Request) -> web.Response:
        fault = self.faults.take(request.method, request.path)
        kind = fault.kind if fault else None
        if fault is not None and kind == "rate_limit":
            headers = {"Retry-After": str(fault.retry_after_seconds)}
            return web.Response(status=429, text="rate_limited", headers=headers)
        if kind == "server_error":
            return web.Response(status=500, text="rollup_error")
        if kind == "cut_before":
            return cut(request)
        if fault is not None and kind == "slow":
            await self._server.pause(fault.seconds)
        if request.path != HOOK_PATH:
            return web.Response(status=404, text="no_service")
        payload = _read_payload(request.content_type, await request.text())
        word = _find_fault(payload)
        if word is not None:
            return web.Response(status=400, text=word)
        self.messages.append({"text": payload.get("text"), "payload": payload, "received_at": time.time()})
        if fault is not None and kind == "hang_after":
            await self._server.pause(fault.seconds)
        if kind in ("hang_after", "cut_after"):
            return cut(request)
        return web.Response(text="ok")


def _read_payload(content_type: str, text: str) -> Any:
    """Read JSON, whatever the content type says, or the older form field `payload`; None when it is neither."""
    if content_type == "application/x-www-form-urlencoded" and text.startswith("payload="):
        from urllib.parse import parse_qs

        text = parse_qs(text)["payload"][0]
    try:
        return json.loads(text)
    except ValueError:
        return None


def _find_fault(payload: Any) -> str | None:
    """Return Slack's word for what is wrong with the message, or None."""
    if not isinstance(payload, dict):
        return "invalid_payload"
    text, blocks = payload.get("text"), payload.get("blocks")
    if text is not None and not isinstance(text, str):
        return "invalid_payload"
    if blocks is not None:
        well_formed = isinstance(blocks, list) and all(isinstance(b, dict) and b.get("type") for b in blocks)
        if not well_formed or len(blocks) > BLOCKS_MAX:
            return "invalid_blocks"
    if not text and not blocks and not payload.get("attachments"):
        return "no_text"
    return None
