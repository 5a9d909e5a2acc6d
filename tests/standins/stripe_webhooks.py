"""Signed webhooks (page "Receive Stripe events in your webhook endpoint"). Owns when, how often and in which order.

That page: an endpoint may get an event more than once, order is not guaranteed, each attempt has its own timestamp and
signature, anything but 2xx is a failure, and delivery is retried with exponential back-off (three days in live mode,
a few hours in a sandbox; here the waits are fractions of seconds so that tests need not wait).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import aiohttp

from tests.standins.stripe_account import Account
from tests.standins.stripe_params import Params

DEFAULT_EVENTS = (
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.requires_action",
    "payment_intent.canceled",
    "charge.refunded",
)


@dataclass(frozen=True)
class WebhookSettings:
    """How events travel; every field can be set by `POST /_control/webhooks`."""

    secret: str
    urls: tuple[str, ...] = ()
    enabled_events: tuple[str, ...] = DEFAULT_EVENTS
    """Event types sent; `*` sends all."""
    timing: str = "after"
    """`after` the response, `before` it (the response waits), `delayed`, or `held` until released."""
    delay_seconds: float = 0.5
    copies: int = 1
    """How often each event is delivered even though the first delivery succeeded."""
    reverse: bool = False
    """Deliver the events of one request newest first."""
    timestamp_offset_seconds: int = 0
    """Added to the signature's time: an old or future delivery."""
    timeout_seconds: float = 10.0
    retry_first_seconds: float = 0.1
    retry_longest_seconds: float = 2.0
    attempts_max: int = 100

    def changed(self, values: Any) -> WebhookSettings:
        """Return settings with the given fields replaced; raises ValueError for a field or value that is wrong."""
        if not isinstance(values, dict):
            raise ValueError("expected a JSON object")
        given = dict(values)
        if "url" in given:
            url = given.pop("url")
            given["urls"] = [url] if url else []
        unknown = sorted(set(given) - {item.name for item in fields(self)})
        if unknown:
            raise ValueError(f"unknown field {unknown[0]!r}")
        for name in ("urls", "enabled_events"):
            if name in given:
                given[name] = tuple(given[name])
        result = replace(self, **given)
        if result.timing not in ("after", "before", "delayed", "held"):
            raise ValueError(f"unknown timing {result.timing!r}")
        if not isinstance(result.copies, int) or result.copies < 1:
            raise ValueError("copies must be an integer from 1")
        return result


@dataclass(frozen=True)
class Delivery:
    """One attempt to deliver one event."""

    event: str
    type: str
    object: str
    url: str
    attempt: int
    status: int | None
    error: str | None
    delivered: bool


def sign(payload: bytes, secret: str, timestamp: int) -> str:
    """Build the Stripe-Signature header: HMAC-SHA256 over `timestamp.payload` (same page, "Verify manually")."""
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + payload, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def encode_event(event: Params) -> bytes:
    """Encode an event the way Stripe does, indented: a receiver that re-serialises it before checking fails."""
    return json.dumps(event, indent=2).encode()


@dataclass
class WebhookSender:
    """Delivers events in the background and keeps an account of every attempt."""

    account: Account
    settings: WebhookSettings
    held: list[Params] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    _waiting: dict[str, set[int]] = field(default_factory=dict)
    """The endpoints that have not yet confirmed an event."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the client; called inside the running loop."""
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32))

    async def stop(self) -> None:
        """Give up everything still under way."""
        await self.reset()
        if self._session is not None:
            await self._session.close()

    async def reset(self) -> None:
        """Cancel what is under way and forget held events and past deliveries."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.held.clear()
        self.deliveries.clear()
        self._waiting.clear()

    @property
    def under_way(self) -> int:
        """How many batches or retries are still running."""
        return len(self._tasks)

    async def dispatch(self, events: list[Params]) -> None:
        """Send the events of one request as the settings say; returns at once unless timing is `before`."""
        wanted = [event for event in events if self._is_wanted(event)]
        if not wanted or not self.settings.urls:
            return
        for event in wanted:
            self.account.undelivered.add(event["id"])
            self._waiting[event["id"]] = set(range(len(self.settings.urls)))
            event["pending_webhooks"] = len(self.settings.urls)
        if self.settings.timing == "held":
            self.held.extend(wanted)
        elif self.settings.timing == "before":
            await self._deliver_batch(wanted, 0.0)
        else:
            self._spawn(wanted, self.settings.delay_seconds if self.settings.timing == "delayed" else 0.0)

    def release(self, *, reverse: bool = False) -> int:
        """Send everything held, oldest or newest first; returns how many events."""
        events, self.held = self.held, []
        if events:
            self._spawn(events[::-1] if reverse else events, 0.0)
        return len(events)

    def resend(self, event: Params) -> None:
        """Send one event again, as the Dashboard's and the CLI's "resend" do."""
        self._spawn([event], 0.0)

    def _is_wanted(self, event: Params) -> bool:
        return "*" in self.settings.enabled_events or event["type"] in self.settings.enabled_events

    def _spawn(self, events: list[Params], delay_seconds: float) -> None:
        self._keep(asyncio.create_task(self._deliver_batch(events, delay_seconds)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver_batch(self, events: list[Params], delay_seconds: float) -> None:
        if delay_seconds:
            await asyncio.sleep(delay_seconds)
        for event in events[::-1] if self.settings.reverse else events:
            for endpoint in range(len(self.settings.urls)):
                for _ in range(self.settings.copies):
                    if not await self._attempt(event, endpoint, 1):
                        self._keep(asyncio.create_task(self._retry(event, endpoint)))

    async def _retry(self, event: Params, endpoint: int) -> None:
        wait = self.settings.retry_first_seconds
        for attempt in range(2, self.settings.attempts_max + 1):
            await asyncio.sleep(wait)
            if await self._attempt(event, endpoint, attempt):
                return
            wait = min(wait * 2, self.settings.retry_longest_seconds)

    async def _attempt(self, event: Params, endpoint: int, attempt: int) -> bool:
        # The address and the secret are read anew: a receiver that comes back elsewhere still gets its retries.
        if endpoint >= len(self.settings.urls):
            return True
        url = self.settings.urls[endpoint]
        payload = encode_event(event)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "Stripe-Signature": sign(
                payload, self.settings.secret, int(time.time()) + self.settings.timestamp_offset_seconds
            ),
        }
        assert self._session is not None
        status: int | None = None
        error: str | None = None
        try:
            timeout = aiohttp.ClientTimeout(total=self.settings.timeout_seconds)
            async with self._session.post(
                url, data=payload, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        delivered = status is not None and 200 <= status < 300
        subject = event["data"]["object"]["id"]
        self.deliveries.append(Delivery(event["id"], event["type"], subject, url, attempt, status, error, delivered))
        if delivered:
            self._confirm(event, endpoint)
        return delivered

    def _confirm(self, event: Params, endpoint: int) -> None:
        waiting = self._waiting.get(event["id"], set())
        waiting.discard(endpoint)
        event["pending_webhooks"] = len(waiting)
        if not waiting:
            self.account.undelivered.discard(event["id"])

    def as_json(self) -> dict[str, Any]:
        """Return the settings and what is still to come."""
        return {**asdict(self.settings), "held": len(self.held), "under_way": self.under_way}
