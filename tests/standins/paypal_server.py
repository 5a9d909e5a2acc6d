"""A stand-in for PayPal's REST API over real HTTP: OAuth, orders v2, captures, refunds, events, webhook certificates.

Owns the order in which a request is judged: fault in front of the API, access token, PayPal-Request-Id, parameters,
execution. Objects and their rules live in `paypal_account`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from aiohttp import web

from tests.standins import paypal_errors
from tests.standins.faults import Fault, FaultPlan
from tests.standins.loopback import LoopbackServer, add_fault_routes, cut, read_json, refuse_control
from tests.standins.paypal_account import INSTRUMENTS, Account, Params
from tests.standins.paypal_errors import PayPalRefusal
from tests.standins.paypal_signing import Authority, Signer
from tests.standins.paypal_webhooks import WebhookSender, WebhookSettings

FAULT_KINDS = frozenset(
    {
        "unavailable",  # 503 in front of the API
        "rate_limit",  # 429
        "conflict",  # 409, as if the first request with this id still ran
        "cut_before",  # connection reset, nothing began
        "slow",  # waits `seconds`, then answers
        "server_error",  # 500, nothing was done
        "server_error_after",  # 500, although it was carried out
        "hang_after",  # carried out, no answer for `seconds`, then a reset
        "cut_after",  # carried out, connection reset before any byte
        "cut_in_body",  # carried out, connection closed in the middle of the body
    }
)
_AFTER = ("hang_after", "cut_after", "cut_in_body")
# "The server stores keys for 6 hours" (Orders v2), "for 45 days" (Payments v2).
ORDER_KEY_SECONDS, PAYMENT_KEY_SECONDS = 6 * 3600, 45 * 86400
TOKEN_SECONDS = 32_400
WEBHOOK_ID = "1JE4291016473214C"
CERT_PATH = "/v1/notifications/certs/"


@dataclass
class LoggedRequest:
    """One API request as it was seen and answered."""

    method: str
    path: str
    request_id: str | None
    status: int = 0
    replayed: bool = False
    fault: str | None = None


@dataclass
class _Key:
    """A PayPal-Request-Id that was used: what it made, and until when it is remembered."""

    path: str
    show: Callable[[], Params]
    until: float


@dataclass
class PayPalStandIn:
    """The server and its state; `await start()`, then `url` is the API's base address."""

    client_id: str = "client-standin"
    client_secret: str = "secret-standin"
    run_tag: str = ""
    authority: Authority = field(default_factory=Authority)
    log: list[LoggedRequest] = field(default_factory=list)
    tokens_given: int = 0

    def __post_init__(self) -> None:
        self.run_tag = self.run_tag or _tag_from_clock()
        self.faults = FaultPlan(FAULT_KINDS)
        self.signer: Signer = self.authority.issue()
        self.certificates: dict[str, bytes] = {"CERT-standin": self.signer.pem}
        self._resets = 0
        self._tokens: dict[str, float] = {}
        self._keys: dict[str, _Key] = {}
        self._running: set[str] = set()
        self._server = LoopbackServer(self._build_app())
        self.account = Account(self.run_tag, "")
        self.webhooks = WebhookSender(self.account, self.signer, WebhookSettings(WEBHOOK_ID, ""))

    @property
    def url(self) -> str:
        """Base address of the API."""
        return self._server.url

    @property
    def cert_prefix(self) -> str:
        """Below this are the certificates."""
        return f"{self.url}{CERT_PATH}"

    async def start(self, port: int = 0) -> None:
        """Listen on a loopback port."""
        await self._server.start(port)
        self._begin()
        await self.webhooks.start()

    async def stop(self) -> None:
        """Stop listening and delivering."""
        await self._server.stop()
        await self.webhooks.stop()

    async def reset(self) -> None:
        """Forget every object, id, token, fault and delivery. Ids go on being new."""
        self._resets += 1
        await self.webhooks.reset()
        self.faults.clear()
        self.log.clear()
        self._tokens.clear()
        self._keys.clear()
        self.tokens_given = 0
        self._begin()

    def _begin(self) -> None:
        self.account = Account(f"{self.run_tag}{self._resets:02d}"[-10:], self.url)
        self.webhooks.account = self.account
        self.webhooks.settings = WebhookSettings(WEBHOOK_ID, f"{self.cert_prefix}CERT-standin")

    async def act(self, change: Callable[[], Any]) -> Any:
        """Carry out what happens without an API call (the payer, a review), and send its events."""
        result = change()
        await self.webhooks.dispatch(self.account.take_fresh_events())
        return result

    async def approve(self, order_id: str, instrument: str = "good") -> None:
        """Approve an order as its payer."""
        await self.act(lambda: self.account.approve(order_id, instrument))

    def revoke_tokens(self) -> None:
        """Let every access token be refused from now on."""
        self._tokens.clear()

    def expire_request_ids(self, ending: str = "") -> None:
        """Forget the PayPal-Request-Ids of calls whose path ends so, as after 6 hours or 45 days."""
        self._keys = {name: key for name, key in self._keys.items() if not key.path.endswith(ending)}

    def _build_app(self) -> web.Application:
        app = web.Application()
        add_fault_routes(app, self.faults)
        app.router.add_get("/_control/ledger", self._show_ledger)
        app.router.add_get("/_control/requests", self._show_requests)
        app.router.add_post("/_control/webhooks", self._set_webhooks)
        app.router.add_post("/_control/orders/{id}/approve", self._approve)
        app.router.add_post("/_control/reset", self._reset)
        app.router.add_get(CERT_PATH + "{name}", self._certificate)
        app.router.add_get("/checkoutnow", self._page)
        app.router.add_route("*", "/{tail:.*}", self._serve)
        return app

    async def _show_ledger(self, _: web.Request) -> web.Response:
        return web.json_response({"captures": self.account.ledger()})

    async def _show_requests(self, _: web.Request) -> web.Response:
        return web.json_response({"requests": [asdict(entry) for entry in self.log]})

    async def _set_webhooks(self, request: web.Request) -> web.Response:
        try:
            self.webhooks.settings = self.webhooks.settings.changed(await read_json(request))
        except (TypeError, ValueError) as error:
            raise refuse_control(str(error)) from error
        return web.json_response(self.webhooks.as_json())

    async def _approve(self, request: web.Request) -> web.Response:
        instrument = (await read_json(request)).get("instrument", "good") if request.can_read_body else "good"
        if instrument not in INSTRUMENTS:
            raise refuse_control(f"instrument is one of {INSTRUMENTS}")
        try:
            await self.approve(request.match_info["id"], instrument)
        except PayPalRefusal as refusal:
            raise refuse_control(str(refusal)) from refusal
        return web.json_response({"approved": request.match_info["id"]})

    async def _reset(self, _: web.Request) -> web.Response:
        await self.reset()
        return web.json_response({})

    async def _certificate(self, request: web.Request) -> web.Response:
        pem = self.certificates.get(request.match_info["name"])
        if pem is None:
            raise web.HTTPNotFound
        return web.Response(body=pem, content_type="application/x-pem-file")

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=f"Log in to approve order {request.query.get('token', '')}.\n")

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        # API reference, "HTTP request headers": PayPal-Request-Id is for POST.
        request_id = request.headers.get("PayPal-Request-Id") if request.method == "POST" else None
        entry = LoggedRequest(request.method, request.path, request_id)
        self.log.append(entry)
        fault = self.faults.take(request.method, request.path)
        entry.fault = fault.kind if fault else None
        if fault is not None and fault.kind == "cut_before":
            return cut(request)
        body = await request.read()
        try:
            entry.status, content = await self._judge(request, body, entry, fault)
        except PayPalRefusal as refusal:
            entry.status, content = refusal.status, {**refusal.content, "debug_id": f"f{len(self.log):012x}"}
        return await self._send(request, entry, content, fault)

    async def _judge(
        self, request: web.Request, body: bytes, entry: LoggedRequest, fault: Fault | None
    ) -> tuple[int, Params]:
        if fault is not None and fault.kind == "unavailable":
            raise paypal_errors.unavailable()
        if fault is not None and fault.kind == "rate_limit":
            raise paypal_errors.rate_limited()
        if request.path == "/v1/oauth2/token":
            return self._give_token(request, body)
        refused = self._check_token(request)
        if refused is not None:
            return refused
        if fault is not None and fault.kind == "conflict":
            raise paypal_errors.in_progress()
        if fault is not None and fault.kind == "slow":
            await self._server.pause(fault.seconds)
        if fault is not None and fault.kind == "server_error":
            raise paypal_errors.server_error()
        result = await self._execute(request, body, entry)
        if fault is not None and fault.kind == "server_error_after":
            raise paypal_errors.server_error()
        return result

    def _give_token(self, request: web.Request, body: bytes) -> tuple[int, Params]:
        """Page "Authentication": basic auth and grant_type=client_credentials."""
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        try:
            given = base64.b64decode(credentials, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            given = ""
        if scheme.lower() != "basic" or given != f"{self.client_id}:{self.client_secret}":
            return 401, {"error": "invalid_client", "error_description": "Client Authentication failed"}
        if body != b"grant_type=client_credentials":
            return 400, {"error": "unsupported_grant_type", "error_description": "Grant Type is NULL"}
        self.tokens_given += 1
        token = f"A21AA{self.run_tag}{self._resets}{self.tokens_given:08d}"
        self._tokens[token] = self.account.now() + TOKEN_SECONDS
        return 200, {"scope": "", "access_token": token, "token_type": "Bearer", "expires_in": TOKEN_SECONDS}

    def _check_token(self, request: web.Request) -> tuple[int, Params] | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and self._tokens.get(token, 0) > self.account.now():
            return None
        return 401, {"error": "invalid_token", "error_description": "Token signature verification failed"}

    async def _execute(self, request: web.Request, body: bytes, entry: LoggedRequest) -> tuple[int, Params]:
        parts = request.path.strip("/").split("/")
        match (request.method, parts):
            case ("POST", ["v2", "checkout", "orders"]):
                content = _parse(body)
                if "payment_source" in content and entry.request_id is None:
                    text = "A PayPal-Request-Id is required if you are trying to process payment for an Order."
                    raise paypal_errors.malformed("PAYPAL_REQUEST_ID_REQUIRED", text)
                return self._once(entry, request, lambda: self.account.create_order(content), ORDER_KEY_SECONDS)
            case ("GET", ["v2", "checkout", "orders", order_id]):
                return 200, self.account.show_order(order_id)
            case ("POST", ["v2", "checkout", "orders", order_id, "capture"]):
                _parse(body or b"{}")
                return self._once(entry, request, lambda: self.account.capture_order(order_id), ORDER_KEY_SECONDS)
            case ("GET", ["v2", "payments", "captures", capture_id]):
                return 200, _found(self.account.captures, capture_id)
            case ("GET", ["v2", "payments", "refunds", refund_id]):
                return 200, _found(self.account.refunds, refund_id)
            case ("POST", ["v2", "payments", "captures", capture_id, "refund"]):
                content = _parse(body or b"{}")
                work = lambda: self.account.refund_capture(capture_id, content)  # noqa: E731
                return self._once(entry, request, work, PAYMENT_KEY_SECONDS)
            case ("POST", ["v1", "notifications", "verify-webhook-signature"]):
                return 200, {"verification_status": "SUCCESS" if self._is_ours(body) else "FAILURE"}
            case ("GET", ["v1", "notifications", "webhooks-events"]):
                return 200, self._list_events(request)
            case _:
                raise paypal_errors.missing()

    def _once(
        self, entry: LoggedRequest, request: web.Request, work: Callable[[], Params], seconds: int
    ) -> tuple[int, Params]:
        """Page "Idempotency": a known id gives "the latest status of the previous request", none does it again.

        A refusal is not kept: the payer may choose another instrument and the same call may then succeed.
        """
        key, path = entry.request_id, request.path
        if key is None:
            return 201, _represent(request, work())
        known = self._keys.get(f"{path} {key}")
        if known is not None and known.until > self.account.now():
            entry.replayed = True
            return 200, _represent(request, known.show())
        result = work()
        self._keys[f"{path} {key}"] = _Key(path, lambda: result, self.account.now() + seconds)
        return 201, _represent(request, result)

    def _is_ours(self, body: bytes) -> bool:
        """Judge a signature over the event's bytes as they came (page "Integrate webhooks", postback)."""
        question = _parse(body)
        start = body.find(b'"webhook_event"')
        if start < 0:
            return False
        text = body[start + len(b'"webhook_event"') :].decode().lstrip()[1:].lstrip()
        _, length = json.JSONDecoder().raw_decode(text)
        event = text[:length].encode()
        # The webhook must be the asking account's; a stranger's own one is his to ask about, and is good too.
        if not isinstance(question.get("webhook_id"), str):
            return False
        expected = self.signer.sign(
            question["transmission_id"], question["transmission_time"], question["webhook_id"], event
        )
        return bool(question["transmission_sig"] == expected)

    def _list_events(self, request: web.Request) -> Params:
        """Webhooks Management 1.11, "List event notifications"."""
        size, start = int(request.query.get("page_size", "10")), int(request.query.get("offset", "0"))
        begin, end = request.query.get("start_time", ""), request.query.get("end_time", "~")
        chosen = [event for event in self.account.events.values() if begin <= event["create_time"] <= end]
        page: Params = {"events": chosen[start : start + size], "count": len(chosen), "links": []}
        if start + size < len(chosen):
            following = request.rel_url.update_query(offset=str(start + size))
            page["links"].append({"href": f"{self.url}{following}", "rel": "next", "method": "GET"})
        return page

    async def _send(
        self, request: web.Request, entry: LoggedRequest, content: Params, fault: Fault | None
    ) -> web.StreamResponse:
        body = json.dumps(content).encode()
        headers = {"Content-Type": "application/json", "paypal-debug-id": f"f{len(self.log):012x}"}
        events = self.account.take_fresh_events()
        if self.webhooks.settings.timing == "before" or (fault is not None and fault.kind in _AFTER):
            await self.webhooks.dispatch(events)
            events = []
        if fault is not None and fault.kind == "hang_after":
            await self._server.pause(fault.seconds)
            return cut(request)
        if fault is not None and fault.kind == "cut_after":
            return cut(request)
        response = web.StreamResponse(status=entry.status, headers={**headers, "Content-Length": str(len(body))})
        await response.prepare(request)
        if fault is not None and fault.kind == "cut_in_body":
            await response.write(body[: len(body) // 2])
            if request.transport is not None:
                request.transport.abort()
            return response
        await response.write(body)
        await response.write_eof()
        await self.webhooks.dispatch(events)
        return response

    async def settle(self) -> None:
        """Wait until every webhook under way has ended."""
        while self.webhooks.under_way:
            await asyncio.sleep(0.005)


def _represent(request: web.Request, resource: Params) -> Params:
    """Header Prefer: `return=minimal` (the default) gives id, status and links only."""
    if request.headers.get("Prefer") == "return=representation":
        return resource
    return {name: resource[name] for name in ("id", "status", "links") if name in resource}


def _parse(body: bytes) -> Params:
    try:
        content = json.loads(body)
    except ValueError:
        raise paypal_errors.malformed("MALFORMED_REQUEST_JSON", "The request JSON is not well formed.") from None
    if not isinstance(content, dict):
        raise paypal_errors.malformed("MALFORMED_REQUEST_JSON", "The request JSON is not well formed.")
    return content


def _found(things: dict[str, Params], identity: str) -> Params:
    if identity not in things:
        raise paypal_errors.missing()
    return things[identity]


def _tag_from_clock() -> str:
    """Make ids of two runs differ: a receiver keeps event ids in a database that outlives the stand-in."""
    value, letters = int(time.time() * 1000), ""
    while value:
        value, digit = divmod(value, 36)
        letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[digit] + letters
    return letters
