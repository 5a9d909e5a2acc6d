"""Stripe's library over httpx2: asyncio, bounded in time, no redirects.

The library's own asyncio clients need the frozen httpx or read bodies outside of their error handling; this one turns
every failure on the way, half an answer included, into `APIConnectionError`, which means "outcome unknown".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

import httpx2
import stripe


class Httpx2Client(stripe.HTTPClient):
    """Implements what `stripe.StripeClient` asks of an asyncio HTTP client."""

    name = "httpx2"

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__()
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(timeout_seconds, connect=min(3.0, timeout_seconds)), follow_redirects=False
        )

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Send a request; returns body, status and headers, or raises `APIConnectionError`."""
        content = post_data.encode() if isinstance(post_data, str) else post_data
        try:
            response = await self._client.request(method, url, headers=dict(headers), content=content)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise stripe.APIConnectionError(f"no answer: {error!r}", should_retry=True) from error  # type: ignore[no-untyped-call]
        return response.content, response.status_code, response.headers

    def sleep_async(self, secs: float) -> Awaitable[None]:
        """Wait between the library's own tries."""
        return asyncio.sleep(secs)

    async def close_async(self) -> None:
        """Close the connections."""
        await self._client.aclose()
