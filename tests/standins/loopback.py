"""How the HTTP stand-ins listen: an aiohttp application on a loopback port; stopping waits for no hung request."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from aiohttp import web

from tests.standins.faults import FaultError, FaultPlan

HOST = "127.0.0.1"


class LoopbackServer:
    """One aiohttp application listening on `127.0.0.1`; port 0 takes a free one."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        self.port = 0
        self.closing = asyncio.Event()

    @property
    def url(self) -> str:
        """Base URL without a slash at the end."""
        return f"http://{HOST}:{self.port}"

    async def start(self, port: int = 0) -> None:
        """Listen; returns when connections are accepted."""
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Let hung requests go and close the port."""
        self.closing.set()
        await self._runner.cleanup()

    async def pause(self, seconds: float) -> None:
        """Wait, or return at once when the server stops."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.closing.wait(), seconds)


async def read_json(request: web.Request) -> Any:
    """Read a control request's JSON; raises 400 with a sentence when it is not JSON."""
    try:
        return await request.json()
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise refuse_control(f"not JSON: {error}") from error


def refuse_control(reason: str) -> web.HTTPBadRequest:
    """Build the 400 that a wrong control request gets."""
    return web.HTTPBadRequest(text=json.dumps({"error": reason}), content_type="application/json")


def add_fault_routes(app: web.Application, plan: FaultPlan) -> None:
    """Add `GET | POST | DELETE /_control/faults` for one plan."""

    async def show(_: web.Request) -> web.Response:
        return web.json_response({"faults": plan.as_json()})

    async def add(request: web.Request) -> web.Response:
        try:
            plan.add(await read_json(request))
        except FaultError as error:
            raise refuse_control(str(error)) from error
        return web.json_response({"faults": plan.as_json()})

    async def clear(_: web.Request) -> web.Response:
        plan.clear()
        return web.json_response({"faults": []})

    app.router.add_get("/_control/faults", show)
    app.router.add_post("/_control/faults", add)
    app.router.add_delete("/_control/faults", clear)


def cut(request: web.Request) -> web.Response:
    """Reset the connection before any byte of the answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
