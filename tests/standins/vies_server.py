"""A stand-in for VIES' REST interface ("VIES on-the-Web Endpoint", `POST /check-vat-number`).

Errors are as VIES gives them: status 200 with `actionSucceed: false` (member state away, too many at once) or 400 and
500 with the same body. A consultation number is given only to those who say who they are, and only for valid numbers.
Registers that do not tell who holds a number say `---` (Germany, Spain).
"""

from __future__ import annotations

import itertools
from typing import Any

from aiohttp import web

from tests.standins.faults import FaultPlan
from tests.standins.loopback import LoopbackServer, add_fault_routes, cut, read_json

# Error codes of VIES' page "Technical information".
FAULT_KINDS = frozenset(
    {
        "ms_unavailable", "ms_max_concurrent", "global_max_concurrent", "timeout", "service_unavailable", "ip_blocked",
        "invalid_input", "invalid_requester", "server_error", "not_json", "other_number", "hang_after", "cut_before",
    }
)  # fmt: skip
_CODES = {
    "ms_unavailable": (200, "MS_UNAVAILABLE"),
    "ms_max_concurrent": (200, "MS_MAX_CONCURRENT_REQ"),
    "global_max_concurrent": (200, "GLOBAL_MAX_CONCURRENT_REQ"),
    "timeout": (200, "TIMEOUT"),
    "service_unavailable": (500, "SERVICE_UNAVAILABLE"),
    "ip_blocked": (400, "IP_BLOCKED"),
    "invalid_input": (400, "INVALID_INPUT"),
    "invalid_requester": (400, "INVALID_REQUESTER_INFO"),
}
_SILENT = frozenset({"DE", "ES"})


class ViesStandIn:
    """The server; `valid` are the numbers in use with their holders, `asked` what was asked."""

    def __init__(self) -> None:
        self.valid: dict[str, tuple[str, str]] = {}
        self.asked: list[dict[str, Any]] = []
        self.faults = FaultPlan(FAULT_KINDS)
        self._numbers = itertools.count(1)
        app = web.Application()
        add_fault_routes(app, self.faults)
        app.router.add_post("/_control/numbers", self._add)
        app.router.add_post("/check-vat-number", self._check)
        self._server = LoopbackServer(app)

    @property
    def url(self) -> str:
        """What stands in place of `https://ec.europa.eu/taxation_customs/vies/rest-api`."""
        return self._server.url

    async def start(self, port: int = 0) -> None:
        """Listen on a loopback port."""
        await self._server.start(port)

    async def stop(self) -> None:
        """Stop listening."""
        await self._server.stop()

    async def _add(self, request: web.Request) -> web.Response:
        self.valid |= {number: tuple(holder) for number, holder in (await read_json(request)).items()}
        return web.json_response({})

    async def _check(self, request: web.Request) -> web.Response:
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
            return web.Response(status=502, text="<html>Bad gateway</html>", content_type="text/html")
        if kind == "not_json":
            return web.Response(text="<html>VIES is being maintained</html>", content_type="text/html")
        if kind in _CODES:
            status, code = _CODES[kind]
            return web.json_response({"actionSucceed": False, "errorWrappers": [{"error": code}]}, status=status)
        country, number = asked["countryCode"], asked["vatNumber"]
        holder = self.valid.get(country + number)
        knows_asker = bool(asked.get("requesterMemberStateCode") and asked.get("requesterNumber"))
        name, address = holder if holder and country not in _SILENT else ("---", "---")
        return web.json_response(
            {
                "countryCode": country,
                "vatNumber": "999" if kind == "other_number" else number,
                "requestDate": "2026-11-20T10:00:00.000Z",
                "valid": holder is not None,
                "requestIdentifier": f"WAPIAAAA{next(self._numbers):08}" if holder and knows_asker else "",
                "name": name,
                "address": address,
            }
        )
