"""A stand-in for a tax service (docs/tax.md): combined rates by postal code, as a provider of US sales tax has them."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from tests.standins.faults import FaultPlan
from tests.standins.loopback import LoopbackServer, add_fault_routes, cut

FAULT_KINDS = frozenset({"server_error", "not_json", "cut_before", "unfit_rate", "missing_line", "hang_after"})
# State with county, city and district: New York City 4 + 4.5 + 0.375, Chicago 6.25 + 1.75 + 1.25 + 1.
COMBINED = {"10001": ("8.875", "US-NY"), "60601": ("10.25", "US-IL")}


class TaxServiceStandIn:
    """The server; takes the token `tax-token` only."""

    token = "tax-token"

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.faults = FaultPlan(FAULT_KINDS)
        app = web.Application()
        add_fault_routes(app, self.faults)
        app.router.add_post("/treatments", self._answer)
        self._server = LoopbackServer(app)

    @property
    def url(self) -> str:
        """Base URL."""
        return self._server.url

    async def start(self, port: int = 0) -> None:
        """Listen on a loopback port."""
        await self._server.start(port)

    async def stop(self) -> None:
        """Stop listening."""
        await self._server.stop()

    async def _answer(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"code": "unauthorized"}, status=401)
        asked = await request.json()
        self.asked.append(asked)
        fault = self.faults.take(request.method, request.path)
        kind = fault.kind if fault else ""
        if kind == "cut_before":
            return cut(request)
        if fault is not None and kind == "hang_after":
            await self._server.pause(fault.seconds)
            return cut(request)
        if kind == "server_error":
            return web.Response(status=503, text="no")
        if kind == "not_json":
            return web.Response(text="hello")
        party = asked["party"]
        found = COMBINED.get(party["postal_code"][:5])
        if found is None:
            reason = f"no jurisdiction for {party['postal_code']!r}"
            return web.json_response({"code": "unknown_place", "reason": reason}, status=422)
        rate, place = found
        lines = [
            {
                "reference": line["reference"],
                "category": "E" if party["exempt"] else "S",
                "rate": "0" if party["exempt"] else "1e3" if kind == "unfit_rate" else rate,
                "place": place,
                "kind": "sales_tax",
                "note": party["exempt"],
                "note_code": "exempt" if party["exempt"] else "",
            }
            for line in asked["lines"]
        ]
        return web.json_response({"lines": lines[1:] if kind == "missing_line" else lines})
