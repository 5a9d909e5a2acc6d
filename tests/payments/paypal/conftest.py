"""Fixtures of PayPal: the stand-in in this process, a provider that talks to it, payments that exist on paper only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from core.clock import SystemClock
from core.messages import InvoiceFinalized
from core.money import Money
from payments.adapters.paypal_certificates import PayPalCertificates, load_roots
from payments.adapters.paypal_client import PayPalClient
from payments.adapters.paypal_order import PayPalWebhookReader
from payments.adapters.paypal_provider import PayPalProvider
from payments.adapters.postgres_captures import PostgresCaptures
from payments.adapters.postgres_store import PostgresPayments
from payments.apply_webhook import apply_next_webhook
from payments.ask_payers import give_up_waiting, tell_payers
from payments.capture_paypal_order import capture_approved_orders
from payments.charge_invoice import charge_invoice
from payments.close_pending_payments import close_pending_payments
from payments.domain.payment import Payment, payment_id_of
from payments.domain.refund import Refund, refund_id_of
from payments.ports import Payer, PayerAction, PaymentMethod, StoredWebhook
from payments.receive_paypal_webhook import receive_paypal_webhook
from payments.receive_webhook import InvalidSignatureError
from payments.remind_payers import remind_payers
from payments.set_payment_method import set_payment_method
from payments.sweep_provider_events import sweep_provider_events
from runtime.postgres import Pool, create_pool
from runtime.settings import Settings, load_settings
from tests.payments.conftest import Books
from tests.standins.loopback import LoopbackServer
from tests.standins.paypal_server import WEBHOOK_ID, PayPalStandIn
from tests.standins.paypal_signing import Authority

RETURN_URL = "https://books.example/paid"
METHOD = PaymentMethod("acme", "paypal", "acme", "approval")


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def paypal(authority: Authority) -> AsyncIterator[PayPalStandIn]:
    standin = PayPalStandIn(authority=authority)
    await standin.start()
    yield standin
    await standin.stop()


@pytest.fixture
async def provider(paypal: PayPalStandIn) -> AsyncIterator[PayPalProvider]:
    client = PayPalClient(paypal.client_id, paypal.client_secret, paypal.url, SystemClock(), timeout_seconds=5)
    provider = PayPalProvider(client, RETURN_URL)
    yield provider
    await provider.close()


@dataclass
class MemoryInbox:
    kept: dict[str, StoredWebhook] = field(default_factory=dict)

    async def add(self, webhook: StoredWebhook, received_at: datetime) -> bool:
        is_new = webhook.event_id not in self.kept
        self.kept.setdefault(webhook.event_id, webhook)
        return is_new


def payment_of(name: str, amount: str = "125.40", currency: str = "USD", reference: str | None = None) -> Payment:
    return Payment(
        payment_id=payment_id_of(f"inv_{name}", 1),
        invoice_id=f"inv_{name}",
        tenant_id="acme",
        attempt=1,
        provider="paypal",
        amount=Money(Decimal(amount), currency),
        created_at=datetime.now(UTC),
        provider_reference=reference,
    )


def refund_of(payment: Payment, amount: str, key: str = "1") -> Refund:
    return Refund(
        refund_id=refund_id_of(payment.payment_id, key),
        payment_id=payment.payment_id,
        invoice_id=payment.invoice_id,
        tenant_id=payment.tenant_id,
        provider="paypal",
        amount=Money(Decimal(amount), payment.amount.currency),
        reason="asked for",
        requested_by="test",
        created_at=datetime.now(UTC),
    )


@pytest.fixture
async def settings(migrated: Any, paypal: PayPalStandIn, authority: Authority, tmp_path: Path) -> Settings:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority.pem)
    return load_settings(
        home=migrated.home,
        paypal_client_id=paypal.client_id,
        paypal_client_secret=paypal.client_secret,
        paypal_api_base=paypal.url,
        paypal_webhook_ids=WEBHOOK_ID,
        paypal_cert_prefixes=paypal.cert_prefix,
        paypal_ca_file=ca_file,
        payment_return_url=RETURN_URL,
    )


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[Pool]:
    async with create_pool(settings, max_size=8) as pool:
        yield pool


class World:
    """Everything around PayPal's lane: books, payers who get links, a door for webhooks, and a clock to move."""

    def __init__(self, paypal: PayPalStandIn, provider: PayPalProvider, pool: Pool, settings: Settings) -> None:
        self.paypal, self.provider, self.pool = paypal, provider, pool
        self.store, self.captures = PostgresPayments(pool), PostgresCaptures(pool)
        self.clock = AheadClock()
        self.books = Books(pool, provider)  # type: ignore[arg-type]  its tenants get their method from us
        self.links: dict[str, str] = {}
        self.mails = self.reminders = 0
        # Webhooks are judged by the real time, in which the stand-in signs them.
        self._keys = PayPalCertificates(
            settings.paypal_cert_prefixes, load_roots(settings.paypal_ca_file), SystemClock()
        )
        app = web.Application()
        app.router.add_post("/webhooks/paypal", self._take)
        self._door = LoopbackServer(app)
        self.away = False

    async def start(self) -> None:
        await self._door.start()
        # The tests of this folder share the books, but each has a PayPal and a clock of its own.
        async with self.pool.connection() as connection:
            await connection.execute("DELETE FROM provider_sweeps WHERE provider = 'paypal'")
            await connection.execute(
                "UPDATE payments SET status = 'canceled', next_check_at = NULL"
                " WHERE provider = 'paypal' AND status NOT IN ('succeeded', 'failed', 'canceled')"
            )
        self.set_webhooks(url=f"{self._door.url}/webhooks/paypal")

    async def stop(self) -> None:
        await self._door.stop()
        await self._keys.close()

    def set_webhooks(self, **values: Any) -> None:
        self.paypal.webhooks.settings = self.paypal.webhooks.settings.changed(values)

    async def _take(self, request: web.Request) -> web.Response:
        if self.away:
            return web.Response(status=503)
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            await receive_paypal_webhook(
                await request.read(), headers, webhook_ids=[WEBHOOK_ID], keys=self._keys, judge=self.provider,
                inbox=self.store, clock=SystemClock(),
            )  # fmt: skip
        except InvalidSignatureError:
            return web.Response(status=400)
        return web.Response()

    async def send_action_link(
        self, payer: Payer, payment: Payment, action: PayerAction, *, is_reminder: bool = False
    ) -> None:
        """Be the mail server (`PayerNotice`)."""
        self.mails += 1
        self.reminders += is_reminder
        self.links[payment.payment_id] = action.url

    async def add_invoice(self, amount: str = "125.40", currency: str = "USD") -> InvoiceFinalized:
        tenant = await self.books.add_tenant(None)
        await set_payment_method(tenant, "approval", store=self.store, registrar=self.provider, clock=SystemClock())
        return await self.books.add_invoice(tenant, amount, currency)

    async def charge(self, invoice: InvoiceFinalized) -> Payment | None:
        return await charge_invoice(invoice, store=self.store, providers={"paypal": self.provider}, clock=self.clock)

    async def tell(self) -> int:
        return await tell_payers(
            store=self.store, payers=self.store, provider=self.provider, notice=self,
            time_to_act=timedelta(hours=3), clock=self.clock,
        )  # fmt: skip

    async def remind(self) -> int:
        return await remind_payers(
            store=self.store, payers=self.store, provider=self.provider, notice=self, clock=self.clock
        )

    async def give_up(self) -> int:
        return await give_up_waiting(store=self.store, provider=self.provider, clock=self.clock)

    async def capture(self) -> int:
        return await capture_approved_orders(
            store=self.store, captures=self.captures, capturer=self.provider, clock=self.clock
        )

    async def janitor(self) -> int:
        return await close_pending_payments(store=self.store, providers={"paypal": self.provider}, clock=self.clock)

    async def sweep(self) -> int:
        return await sweep_provider_events(
            source=self.provider, inbox=self.store, store=self.store, history=timedelta(days=30), clock=self.clock
        )

    async def apply(self) -> None:
        await self.paypal.settle()
        while await apply_next_webhook(store=self.store, readers={"paypal": PayPalWebhookReader()}, clock=self.clock):
            pass

    async def approve(self, payment_id: str, instrument: str = "good") -> None:
        """Follow the link as its payer."""
        await self.paypal.approve(self.links[payment_id].rpartition("token=")[2], instrument)

    async def status(self, invoice: InvoiceFinalized) -> list[str]:
        return [row["status"] for row in await self.books.payments_of(invoice)]


@dataclass
class AheadClock:
    """The machine's clock, ahead by as much as the test says."""

    ahead: timedelta = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
async def world(
    paypal: PayPalStandIn, provider: PayPalProvider, pool: Pool, settings: Settings
) -> AsyncIterator[World]:
    world = World(paypal, provider, pool, settings)
    await world.start()
    yield world
    await world.stop()
