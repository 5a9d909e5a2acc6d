"""The billing consumers of this stage: requests become invoices, settlements pay them, their lines become facts."""

from __future__ import annotations

import asyncio

from core.clock import Clock, SystemClock
from core.errors import Fault, InvalidInputError
from core.messages import (
    InvoiceFinalized,
    InvoicingRequest,
    PaymentDisputed,
    PaymentRefunded,
    PaymentSettled,
    decode_message,
)
from core.topics import (
    INVOICE_FINALIZED,
    INVOICING_REQUESTS,
    PAYMENT_DISPUTED,
    PAYMENT_REFUNDED,
    PAYMENT_SETTLED,
    Topic,
)
from invoicing.adapters.clickhouse import ClickHouseUsage
from invoicing.adapters.postgres_books import PostgresBooks
from invoicing.adapters.postgres_register import PostgresRegister
from invoicing.adapters.postgres_settlements import PostgresSettlements
from invoicing.invoice_period import invoice_period
from invoicing.load_terms import load_terms
from invoicing.record_money_back import record_dispute, record_refund
from invoicing.settle_invoice import settle_invoice
from invoicing.settlement_ports import Settlements
from runtime.postgres import create_pool
from runtime.settings import Settings
from runtime.topic_consumer import Handler, TopicConsumer

REQUESTS_GROUP = "meterbook-invoicing"
SETTLEMENTS_GROUP = "meterbook-settlements"
FACTS_GROUP = "meterbook-invoiced-facts"


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Turn `invoicing.requests` into invoices until `stop` is set; start more of these to scale."""
    terms = load_terms(settings)
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


def settlement_handlers(settlements: Settlements, clock: Clock) -> dict[Topic, Handler]:
    """Return who puts down, by topic, what becomes of invoices' money."""

    async def settled(raw: bytes | None) -> None:
        await settle_invoice(decode_message(raw, PaymentSettled), settlements=settlements, clock=clock)

    async def refunded(raw: bytes | None) -> None:
        await record_refund(decode_message(raw, PaymentRefunded), settlements=settlements, clock=clock)

    async def disputed(raw: bytes | None) -> None:
        await record_dispute(decode_message(raw, PaymentDisputed), settlements=settlements, clock=clock)

    return {PAYMENT_SETTLED: settled, PAYMENT_REFUNDED: refunded, PAYMENT_DISPUTED: disputed}


async def run_settlements(settings: Settings, stop: asyncio.Event) -> None:
    """Settle invoices from `payment.settled`, and record refunds and disputes, until `stop` is set."""
    async with create_pool(settings, max_size=3) as pool, asyncio.TaskGroup() as tasks:
        handlers = settlement_handlers(PostgresSettlements(pool), SystemClock())
        for topic, handle in handlers.items():
            tasks.create_task(TopicConsumer(settings, topic, SETTLEMENTS_GROUP, handle).run(stop))


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
