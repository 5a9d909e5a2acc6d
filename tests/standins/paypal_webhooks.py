"""Signed webhooks (page "Integrate webhooks"). Owns when, how often and in which order.

That page: anything but 2xx is tried again, up to 25 times over three days (here after fractions of seconds); nothing is
said of order, so none is kept.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import aiohttp

from tests.standins.paypal_account import Account, Params, instant
from tests.standins.paypal_signing import Signer


@dataclass(frozen=True)
class WebhookSettings:
    """How events travel; every field can be set."""

    webhook_id: str
    cert_url: str
    url: str | None = None
    timing: str = "after"
    """`after` the response, `before` it (the response waits), `held` until released, or `never`."""
    copies: int = 1
    reverse: bool = False
    """Deliver the events of one batch newest first."""
    time_offset_seconds: int = 0
    retry_first_seconds: float = 0.05
    attempts_max: int = 25

    def changed(self, values: dict[str, Any]) -> WebhookSettings:
        """Return settings with these fields replaced; raises ValueError for what does not exist."""
        unknown = sorted(set(values) - {item.name for item in fields(self)})
        if unknown or values.get("timing", "after") not in ("after", "before", "held", "never"):
            raise ValueError(f"unknown field or timing: {values!r}")
        return replace(self, **values)


def encode_event(event: Params) -> bytes:
    """Encode an event; the spaces make a receiver fail that encodes it anew before checking."""
    return json.dumps(event, separators=(",", " : "), ensure_ascii=False).encode()


def headers_of(body: bytes, signer: Signer, settings: WebhookSettings, seconds: float) -> dict[str, str]:
    """Build the headers that prove a webhook."""
    transmission_id, time = str(uuid.uuid4()), instant(seconds + settings.time_offset_seconds)
    return {
        "Content-Type": "application/json",
        "User-Agent": "PayPal/AUHD-214.0-58862591",
        "PAYPAL-AUTH-ALGO": "SHA256withRSA",
        "PAYPAL-CERT-URL": settings.cert_url,
        "PAYPAL-TRANSMISSION-ID": transmission_id,
        "PAYPAL-TRANSMISSION-SIG": signer.sign(transmission_id, time, settings.webhook_id, body),
        "PAYPAL-TRANSMISSION-TIME": time,
    }


@dataclass
class WebhookSender:
    """Delivers events in the background and keeps an account of every attempt."""

    account: Account
    signer: Signer
    settings: WebhookSettings
    held: list[Params] = field(default_factory=list)
    deliveries: list[dict[str, Any]] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the client."""
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32))

    async def stop(self) -> None:
        """Give up everything still under way."""
        await self.reset()
        if self._session is not None:
            await self._session.close()

    async def reset(self) -> None:
        """Cancel what is under way and forget."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.held.clear()
        self.deliveries.clear()

    @property
    def under_way(self) -> int:
        """How many batches or retries are still running."""
        return len(self._tasks)

    async def dispatch(self, events: list[Params]) -> None:
        """Send the events of one request as the settings say."""
        if not events or self.settings.url is None or self.settings.timing == "never":
            return
        if self.settings.timing == "held":
            self.held.extend(events)
        elif self.settings.timing == "before":
            await self._deliver(events)
        else:
            self._keep(asyncio.create_task(self._deliver(events)))

    def release(self, *, reverse: bool = False) -> int:
        """Send everything held, oldest or newest first."""
        events, self.held = self.held, []
        self._keep(asyncio.create_task(self._deliver(events[::-1] if reverse else events)))
        return len(events)

    def resend(self, event: Params) -> None:
        """Send one event again, as the dashboard's "resend" does."""
        self._keep(asyncio.create_task(self._deliver([event])))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, events: list[Params]) -> None:
        for event in events[::-1] if self.settings.reverse else events:
            for _ in range(self.settings.copies):
                if not await self._attempt(event, 1):
                    self._keep(asyncio.create_task(self._retry(event)))

    async def _retry(self, event: Params) -> None:
        wait = self.settings.retry_first_seconds
        for attempt in range(2, self.settings.attempts_max + 1):
            await asyncio.sleep(wait)
            if await self._attempt(event, attempt):
                return
            wait = min(wait * 2, 1.0)

    async def _attempt(self, event: Params, attempt: int) -> bool:
        assert self._session is not None
        body, status = encode_event(event), None
        headers = headers_of(body, self.signer, self.settings, self.account.now())
        try:
            timeout = aiohttp.ClientTimeout(total=10)
            async with self._session.post(
                str(self.settings.url), data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            status = None
        self.deliveries.append(
            {"event": event["id"], "type": event["event_type"], "attempt": attempt, "status": status}
        )
        return status is not None and 200 <= status < 300

    def as_json(self) -> dict[str, Any]:
        """Return the settings and what is still to come."""
        return {**asdict(self.settings), "held": len(self.held), "under_way": self.under_way}
