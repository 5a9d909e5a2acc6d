"""Fixtures: clients of the stand-ins for Stripe, and a receiver for its webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import stripe
from aiohttp import web

from tests.standins.loopback import LoopbackServer
from tests.standins.process import Standins


@pytest.fixture
def client(standins: Standins) -> stripe.StripeClient:
    """The synchronous client, without retries of its own so that each test sees the first answer."""
    return stripe.StripeClient(
        standins.stripe_api_key, base_addresses={"api": standins.stripe_url}, max_network_retries=0
    )


@pytest.fixture
async def async_client(standins: Standins) -> AsyncIterator[stripe.StripeClient]:
    http_client = stripe.AIOHTTPClient(timeout=20)
    yield stripe.StripeClient(
        standins.stripe_api_key,
        base_addresses={"api": standins.stripe_url},
        http_client=http_client,
        max_network_retries=0,
    )
    await http_client.close_async()  # type: ignore[no-untyped-call]


class Receiver:
    """Takes webhooks the way the product must: checks the signature over the raw bytes, then answers."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.events: list[Any] = []
        self.refusals: list[str] = []
        self.answers: list[int] = []
        """Statuses of the next answers; 200 when empty."""
        app = web.Application()
        app.router.add_post("/webhooks/stripe", self._take)
        self._server = LoopbackServer(app)

    @property
    def url(self) -> str:
        return f"{self._server.url}/webhooks/stripe"

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()

    async def _take(self, request: web.Request) -> web.Response:
        status = self.answers.pop(0) if self.answers else 200
        if status != 200:
            return web.Response(status=status)
        try:
            event = stripe.Webhook.construct_event(
                await request.read(), request.headers["Stripe-Signature"], self.secret
            )
        except stripe.SignatureVerificationError as error:
            self.refusals.append(str(error))
            return web.Response(status=400)
        self.events.append(event)
        return web.Response()

    async def wait_for(self, count: int) -> None:
        """Wait until so many events came; the test's own time limit ends a wait in vain."""
        await wait_until(lambda: len(self.events) >= count)


async def wait_until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture
async def receiver(standins: Standins) -> AsyncIterator[Receiver]:
    receiver = Receiver(standins.stripe_webhook_secret)
    await receiver.start()
    standins.set_webhooks(url=receiver.url)
    yield receiver
    await receiver.stop()
