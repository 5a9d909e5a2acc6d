"""A stand-in for Stripe's API over real HTTP, for the `stripe` library with another base address.

Owns the order in which a request is judged: fault in front of the API, API key, idempotency key, parameters, execution.
Objects and their rules live in `stripe_account` and beside it; tests steer through `stripe_control`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import copy
import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.standins import (
    stripe_customers,
    stripe_errors,
    stripe_intents,
    stripe_products,
    stripe_refunds,
    stripe_setups,
)
from tests.standins.faults import Fault, FaultPlan
from tests.standins.loopback import LoopbackServer, add_fault_routes, cut
from tests.standins.stripe_account import API_VERSION, Account, Cause
from tests.standins.stripe_errors import StripeRefusal, invalid
from tests.standins.stripe_idempotency import IdempotencyKeys, SavedResult
from tests.standins.stripe_params import Params, decode_form
from tests.standins.stripe_webhooks import WebhookSender, WebhookSettings

FAULT_KINDS = frozenset(
    {
        "unavailable",  # 503 in front of the API; nothing began, nothing kept
        "rate_limit",  # 429 with Retry-After, in front of the API
        "conflict",  # 409 as if the key's first request were still running
        "cut_before",  # connection reset, nothing began
        "slow",  # waits `seconds` while the key is in flight, then answers
        "server_error",  # 500 kept for the key, nothing was done
        "server_error_after",  # 500 kept for the key, although the request was carried out
        "hang_after",  # carried out and kept for the key, but no answer for `seconds`, then a reset
        "cut_after",  # carried out and kept for the key, connection reset before any byte
        "cut_in_body",  # carried out and kept for the key, connection closed in the middle of the body
    }
)
_AFTER = ("hang_after", "cut_after", "cut_in_body")

Read = Callable[..., Params]
_WRITES: dict[str, Read] = {
    "POST /v1/customers": stripe_customers.create_customer,
    "POST /v1/customers/{}": stripe_customers.update_customer,
    "DELETE /v1/customers/{}": stripe_customers.delete_customer,
    "POST /v1/payment_methods": stripe_customers.create_payment_method,
    "POST /v1/payment_methods/{}/attach": stripe_customers.attach_payment_method,
    "POST /v1/payment_methods/{}/detach": stripe_customers.detach_payment_method,
    "POST /v1/payment_intents": stripe_intents.create_intent,
    "POST /v1/payment_intents/{}": stripe_intents.update_intent,
    "POST /v1/payment_intents/{}/confirm": stripe_intents.confirm_intent,
    "POST /v1/payment_intents/{}/cancel": stripe_intents.cancel_intent,
    "POST /v1/refunds": stripe_refunds.create_refund,
    "POST /v1/setup_intents": stripe_setups.create_setup,
    "POST /v1/products": stripe_products.create_product,
    "POST /v1/products/{}": stripe_products.update_product,
    "POST /v1/prices": stripe_products.create_price,
}
_READS: dict[str, Read] = {
    "GET /v1/customers": stripe_customers.list_customers,
    "GET /v1/customers/{}": stripe_customers.retrieve_customer,
    "GET /v1/customers/{}/payment_methods": stripe_customers.list_customer_payment_methods,
    "GET /v1/payment_methods": stripe_customers.list_payment_methods,
    "GET /v1/payment_methods/{}": stripe_customers.retrieve_payment_method,
    "GET /v1/payment_intents": stripe_intents.list_intents,
    "GET /v1/payment_intents/search": stripe_intents.search_intents,
    "GET /v1/payment_intents/{}": stripe_intents.retrieve_intent,
    "GET /v1/charges": stripe_intents.list_charges,
    "GET /v1/charges/{}": stripe_intents.retrieve_charge,
    "GET /v1/refunds": stripe_refunds.list_refunds,
    "GET /v1/refunds/{}": stripe_refunds.retrieve_refund,
    "GET /v1/setup_intents/{}": stripe_setups.retrieve_setup,
    "GET /v1/products/{}": stripe_products.retrieve_product,
    "GET /v1/prices": stripe_products.list_prices,
    "GET /v1/events": Account.list_events,
    "GET /v1/events/{}": Account.retrieve_event,
}
_EXPANDABLE = {"customer", "payment_method", "latest_charge", "charge", "payment_intent"}


@dataclass(frozen=True)
class Answer:
    """What goes back over the wire."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class LoggedRequest:
    """One API request as it was seen and answered."""

    method: str
    path: str
    idempotency_key: str | None
    status: int = 0
    replayed: bool = False
    fault: str | None = None


class StripeStandIn:
    """The server and its state; `await start()`, then `url` is the API's base address."""

    def __init__(
        self, api_key: str, webhook_secret: str, webhook_url: str | None = None, *, run_tag: str | None = None
    ) -> None:
        self.api_key = api_key
        self.run_tag = run_tag or _tag_from_clock()
        self.faults = FaultPlan(FAULT_KINDS)
        urls = (webhook_url,) if webhook_url else ()
        self._first_settings = WebhookSettings(webhook_secret, urls)
        self._resets = 0
        self.log: list[LoggedRequest] = []
        self.account = Account(self.run_tag)
        self.keys = IdempotencyKeys()
        self.webhooks = WebhookSender(self.account, self._first_settings)
        self._requests_seen = 0
        self._server = LoopbackServer(self._build_app())

    @property
    def url(self) -> str:
        """Base address for `StripeClient(base_addresses={"api": url})`."""
        return self._server.url

    async def start(self, port: int = 0) -> None:
        """Listen on a loopback port."""
        await self.webhooks.start()
        await self._server.start(port)

    async def stop(self) -> None:
        """Stop listening and delivering."""
        await self._server.stop()
        await self.webhooks.stop()

    async def reset(self) -> None:
        """Forget every object, key, fault and delivery; webhook settings return to those at the start.

        Ids go on being new, so that a receiver that remembers event ids is not confused.
        """
        self._resets += 1
        await self.webhooks.reset()
        self.faults.clear()
        self.log.clear()
        self.account = Account(f"{self.run_tag}{self._resets:04d}")
        self.keys = IdempotencyKeys()
        self.webhooks.account = self.account
        self.webhooks.settings = self._first_settings

    def _build_app(self) -> web.Application:
        from tests.standins.stripe_control import add_stripe_control  # the control needs this module's class

        app = web.Application()
        add_fault_routes(app, self.faults)
        add_stripe_control(app, self)
        app.router.add_route("*", "/{tail:.*}", self._serve)
        return app

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self._requests_seen += 1
        request_id = f"req_{self.run_tag}{self._requests_seen:08d}"
        # API reference, "Idempotent requests": keys have no effect on GET and DELETE.
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        entry = LoggedRequest(request.method, request.path, key)
        self.log.append(entry)
        fault = self.faults.take(request.method, request.path)
        entry.fault = fault.kind if fault else None
        if fault is not None and fault.kind == "cut_before":
            return cut(request)
        text = (await request.read()).decode("utf-8", "replace")
        try:
            answer = await self._judge(request, text, Cause(request_id, key), fault, entry)
        except StripeRefusal as refusal:
            answer = _refusal_answer(refusal)
        entry.status = answer.status
        return await self._send(request, answer, fault, request_id, key)

    async def _judge(
        self, request: web.Request, text: str, cause: Cause, fault: Fault | None, entry: LoggedRequest
    ) -> Answer:
        """Decide one request; the order is that of the pages named beside each step."""
        if fault is not None and fault.kind == "unavailable":
            raise stripe_errors.unavailable()
        if fault is not None and fault.kind == "rate_limit":
            # Page "Advanced error handling": rate limiters run before the idempotency layer.
            raise stripe_errors.rate_limited(fault.retry_after_seconds)
        self._authenticate(request)
        if fault is not None and fault.kind == "conflict":
            raise stripe_errors.key_in_use(cause.idempotency_key)
        operation, identities = _find_operation(request.method, request.path)
        params = decode_form(text if request.method == "POST" else request.rel_url.raw_query_string)
        key = cause.idempotency_key
        if key is None:
            return await self._execute(operation, params, identities, cause, fault)
        endpoint, fingerprint = request.path, _fingerprint(params)
        saved = self.keys.begin(key, endpoint, fingerprint)
        if saved is not None:
            entry.replayed = True
            return Answer(saved.status, saved.body, {**saved.headers, "Idempotent-Replayed": "true"})
        try:
            answer = await self._execute(operation, params, identities, cause, fault)
        except StripeRefusal as refusal:
            answer = _refusal_answer(refusal)
            if not refusal.executed:
                self.keys.abandon(key)
                return answer
        except BaseException:
            self.keys.abandon(key)
            raise
        self.keys.save(key, SavedResult(endpoint, fingerprint, answer.status, answer.body, answer.headers))
        return answer

    def _authenticate(self, request: web.Request) -> None:
        """API reference, "Authentication": the key as bearer token, or as user name of HTTP basic auth."""
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        given = ""
        if scheme.lower() == "bearer":
            given = credentials.strip()
        elif scheme.lower() == "basic":
            try:
                given = base64.b64decode(credentials, validate=True).decode().split(":")[0]
            except (binascii.Error, UnicodeDecodeError):
                given = ""
        if not given:
            raise stripe_errors.unauthorized("You did not provide an API key.")
        if given != self.api_key:
            raise stripe_errors.unauthorized(f"Invalid API Key provided: {given[:8]}****")

    async def _execute(
        self, operation: str, params: Params, identities: list[str], cause: Cause, fault: Fault | None
    ) -> Answer:
        expand = _read_expand(params)
        if fault is not None and fault.kind == "slow":
            await self._server.pause(fault.seconds)
        if fault is not None and fault.kind == "server_error":
            raise stripe_errors.server_error()
        params = {name: value for name, value in params.items() if name != "expand"}
        if operation in _READS:
            result = _READS[operation](self.account, params, *identities)
        else:
            result = _WRITES[operation](self.account, params, cause, *identities)
        if fault is not None and fault.kind == "server_error_after":
            raise stripe_errors.server_error()
        result = copy.deepcopy(result)
        for path in expand:
            self._expand(result, path)
        return Answer(200, _encode(result))

    def _expand(self, result: Any, path: list[str]) -> None:
        if isinstance(result, list):
            for item in result:
                self._expand(item, path)
        elif isinstance(result, dict) and path:
            inner = result.get(path[0])
            if isinstance(inner, str) and (found := self.account.find(inner)) is not None:
                result[path[0]] = inner = copy.deepcopy(found)
            self._expand(inner, path[1:])

    async def _send(
        self, request: web.Request, answer: Answer, fault: Fault | None, request_id: str, key: str | None
    ) -> web.StreamResponse:
        headers = {
            "Content-Type": "application/json",
            "Request-Id": request_id,
            "Stripe-Version": request.headers.get("Stripe-Version", API_VERSION),
            **answer.headers,
        }
        if key is not None:
            headers["Idempotency-Key"] = key  # Stripe echoes it.
        events = self.account.take_fresh_events()
        if self.webhooks.settings.timing == "before" or (fault is not None and fault.kind in _AFTER):
            await self.webhooks.dispatch(events)
            events = []
        if fault is not None and fault.kind == "hang_after":
            await self._server.pause(fault.seconds)
        if fault is not None and fault.kind in ("hang_after", "cut_after"):
            return cut(request)
        response = web.StreamResponse(status=answer.status, headers=headers)
        response.content_length = len(answer.body)
        try:
            await response.prepare(request)
            if fault is not None and fault.kind == "cut_in_body":
                await response.write(answer.body[: len(answer.body) // 2])
                if request.transport is not None:
                    request.transport.close()
                return response
            await response.write(answer.body)
            await response.write_eof()
        except (ConnectionError, asyncio.CancelledError):
            # The client hung up; what was done stays done, and its events still go out.
            await self.webhooks.dispatch(events)
            raise
        await self.webhooks.dispatch(events)
        return response


def _tag_from_clock() -> str:
    """Make ids of two runs differ: a receiver keeps event ids in a database that outlives the stand-in."""
    value, letters = int(time.time() * 1000), ""
    while value:
        value, digit = divmod(value, 36)
        letters = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + letters
    return letters


def _find_operation(method: str, path: str) -> tuple[str, list[str]]:
    exact = f"{method} {path}"
    if exact in _READS or exact in _WRITES:
        return exact, []
    match = re.fullmatch(r"/v1/(\w+)/([^/]+)(?:/(\w+))?", path)
    if match is not None:
        name = f"{method} /v1/{match[1]}/{{}}" + (f"/{match[3]}" if match[3] else "")
        if name in _READS or name in _WRITES:
            return name, [match[2]]
    message = f"Unrecognized request URL ({method}: {path})."
    raise StripeRefusal(404, "invalid_request_error", message, executed=False)


def _read_expand(params: Params) -> list[list[str]]:
    """API reference, "Expanding responses": names separated by dots, up to four deep; lists by `data.`."""
    wanted = params.get("expand", [])
    paths = [str(item).split(".") for item in (wanted if isinstance(wanted, list) else [wanted])]
    for path in paths:
        names = path[1:] if path[0] == "data" else path
        if not names or len(path) > 4 or not set(names) <= _EXPANDABLE:
            raise invalid(f"This property cannot be expanded ({'.'.join(path)}).", param="expand")
    return paths


def _fingerprint(params: Params) -> str:
    return hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()


def _encode(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode()


def _refusal_answer(refusal: StripeRefusal) -> Answer:
    return Answer(refusal.status, _encode(refusal.body()), refusal.headers)
