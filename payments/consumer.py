"""Worker of payments: charges finalized invoices, and gives webhooks their effect."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from core.clock import Clock, SystemClock
from core.messages import InvoiceFinalized, decode_message
from core.topics import INVOICE_FINALIZED
from payments.adapters.paypal_order import PayPalWebhookReader
from payments.adapters.postgres_store import PostgresPayments
from payments.adapters.stripe_events import StripeWebhookReader
from payments.charge_invoice import charge_invoice
from payments.inbox_worker import InboxWorker
from payments.open_providers import open_providers
from payments.ports import PaymentProvider, PaymentStore, WebhookReader
from runtime.postgres import create_pool
from runtime.settings import Settings
from runtime.topic_consumer import Handler, TopicConsumer

GROUP = "payments"


def create_handler(store: PaymentStore, providers: Mapping[str, PaymentProvider], clock: Clock) -> Handler:
    """Return the handler of `invoice.finalized` records."""

    async def handle(raw: bytes | None) -> None:
        invoice = decode_message(raw, InvoiceFinalized)
        await charge_invoice(invoice, store=store, providers=providers, clock=clock)

    return handle


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Charge finalized invoices until `stop` is set."""
    async with open_providers(settings) as providers, create_pool(settings) as pool:
        handler = create_handler(PostgresPayments(pool), providers.charging, SystemClock())
        await TopicConsumer(settings, INVOICE_FINALIZED, GROUP, handler).run(stop)


async def run_inbox(settings: Settings, stop: asyncio.Event) -> None:
    """Give stored webhooks their effect until `stop` is set; several may run at once."""
    async with create_pool(settings, max_size=2) as pool:
        readers: dict[str, WebhookReader] = {"stripe": StripeWebhookReader(), "paypal": PayPalWebhookReader()}
        worker = InboxWorker(PostgresPayments(pool), readers, SystemClock())
        await worker.run(stop)
