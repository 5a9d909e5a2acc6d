"""The billing consumers of this stage: requests become invoices, settlements pay them, their lines become facts."""

from __future__ import annotations

import asyncio

from core.clock import SystemClock
from core.errors import Fault, InvalidInputError
from core.messages import InvoiceFinalized, InvoicingRequest, PaymentSettled, decode_message
from core.topics import INVOICE_FINALIZED, INVOICING_REQUESTS, PAYMENT_SETTLED
from invoicing.adapters.clickhouse import ClickHouseUsage
from invoicing.adapters.postgres_books import PostgresBooks
from invoicing.adapters.postgres_register import PostgresRegister
from invoicing.adapters.seller_file import load_seller
from invoicing.invoice_period import Terms, invoice_period
from invoicing.mark_invoice_paid import mark_invoice_paid
from runtime.postgres import create_pool
from runtime.settings import Settings
from runtime.topic_consumer import TopicConsumer

REQUESTS_GROUP = "meterbook-invoicing"
SETTLEMENTS_GROUP = "meterbook-settlements"
FACTS_GROUP = "meterbook-invoiced-facts"


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Turn `invoicing.requests` into invoices until `stop` is set; start more of these to scale."""
    terms = Terms(load_seller(settings), settings.invoice_due_days)
    usage, clock = ClickHouseUsage(settings), SystemClock()
    async with create_pool(settings, max_size=2) as pool:
        books = PostgresBooks(pool)

        async def handle(raw: bytes | None) -> None:
            request = decode_message(raw, InvoicingRequest)
            await invoice_period(request, books=books, usage=usage, terms=terms, clock=clock)

        try:
            await TopicConsumer(settings, INVOICING_REQUESTS, REQUESTS_GROUP, handle).run(stop)
        finally:
            await usage.close()


async def run_settlements(settings: Settings, stop: asyncio.Event) -> None:
    """Mark invoices paid from `payment.settled` until `stop` is set."""
    async with create_pool(settings, max_size=2) as pool:
        register = PostgresRegister(pool)

        async def handle(raw: bytes | None) -> None:
            await mark_invoice_paid(decode_message(raw, PaymentSettled), settlements=register)

        await TopicConsumer(settings, PAYMENT_SETTLED, SETTLEMENTS_GROUP, handle).run(stop)


async def run_invoiced_facts(settings: Settings, stop: asyncio.Event) -> None:
    """Copy the lines of finalized invoices to ClickHouse until `stop` is set; rows replace, so twice is once."""
    facts = ClickHouseUsage(settings)
    async with create_pool(settings, max_size=2) as pool:
        register = PostgresRegister(pool)

        async def handle(raw: bytes | None) -> None:
            announced = decode_message(raw, InvoiceFinalized)
            found = await register.facts(announced.invoice_id)
            if not found:
                reason = f"no lines of an invoice {announced.invoice_id!r}"
                raise InvalidInputError([Fault("unknown_invoice", reason, "invoice_id")])
            await facts.put(found)

        try:
            await TopicConsumer(settings, INVOICE_FINALIZED, FACTS_GROUP, handle).run(stop)
        finally:
            await facts.close()
