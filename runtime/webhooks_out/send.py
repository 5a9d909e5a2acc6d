"""Sends one webhook by HTTP. Owns what of the receiver's answer counts: its status, and when to come again."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime

import httpcore2

from core.clock import Clock
from core.errors import InvalidInputError
from runtime.webhooks_out.address_guard import GuardedNetwork, OutgoingPolicy, RefusedAddressError, check_url
from runtime.webhooks_out.schedule import Attempt
from runtime.webhooks_out.signing import signed_headers

_TIMEOUT_SECONDS = 10.0


class WebhookSender:
    """Posts signed messages; each try has a connection of its own, follows no redirect and reads no body."""

    def __init__(
        self,
        policy: OutgoingPolicy,
        clock: Clock,
        *,
        timeout_seconds: float = _TIMEOUT_SECONDS,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._policy, self._clock, self._timeout_seconds = policy, clock, timeout_seconds
        self._ssl_context = ssl_context or httpcore2.default_ssl_context()

    async def send(self, url: str, message_id: str, body: bytes, secrets: list[str]) -> Attempt:
        """Post once and say what became of it; never raises for what the receiver or its name does."""
        try:
            parts = check_url(url, self._policy)
        except InvalidInputError as refused:
            return Attempt(0, str(refused))
        headers = [
            *signed_headers(message_id, body, secrets=secrets, now=self._clock.now()).items(),
            ("content-type", "application/json"),
            ("user-agent", "Meterbook-Webhooks/1"),
            ("connection", "close"),
        ]
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        address = httpcore2.URL(scheme=parts.scheme, host=parts.hostname or "", port=parts.port, target=target)
        try:
            async with (
                # Each phase has its own bound in the library; the whole is what matters here.
                asyncio.timeout(self._timeout_seconds),
                httpcore2.AsyncConnectionPool(
                    ssl_context=self._ssl_context, network_backend=GuardedNetwork(self._policy), max_connections=1
                ) as pool,
                pool.stream("POST", address, headers=headers, content=body) as response,
            ):
                return self._judge(response)
        except RefusedAddressError as error:
            return Attempt(0, str(error))
        except TimeoutError:
            return Attempt(0, f"no answer within {self._timeout_seconds:g} s")
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
            return Attempt(0, f"no answer: {type(error).__name__}: {str(error)[:200]}")

    def _judge(self, response: httpcore2.Response) -> Attempt:
        if 200 <= response.status < 300:
            return Attempt(response.status)
        headers = {name.lower(): value for name, value in response.headers}
        if 300 <= response.status < 400:
            return Attempt(response.status, f"{response.status}: redirects are not followed, change the URL instead")
        return Attempt(response.status, f"answered {response.status}", self._retry_after(headers.get(b"retry-after")))

    def _retry_after(self, value: bytes | None) -> timedelta | None:
        """Read `Retry-After`: seconds or a date (RFC 9110 §10.2.3)."""
        if value is None:
            return None
        if value.isdigit() and len(value) < 9:
            return timedelta(seconds=int(value))
        try:
            until = parsedate_to_datetime(value.decode("ascii"))
        except (ValueError, UnicodeDecodeError):
            return None
        aware = until if until.tzinfo else until.replace(tzinfo=UTC)
        return max(aware - self._clock.now(), timedelta(0))
