"""The billing consumers of this stage: requests become invoices, settlements pay them, their lines become facts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from core.clock import Clock, SystemClock
from core.errors import Fault, InvalidInputError, UnavailableError
from core.messages import (
    InvoiceFinalized,
    InvoiceVoided,
    InvoicingRequest,
    PaymentDisputed,
    PaymentRefunded,
    PaymentSettled,
    decode_message,
)
from core.topics import (
    INVOICE_FINALIZED,
    INVOICE_VOIDED,
    INVOICING_REQUESTS,
    PAYMENT_DISPUTED,
    PAYMENT_REFUNDED,
    PAYMENT_SETTLED,
    Topic,
)
from invoicing.adapters.clickhouse import ClickHouseUsage
from invoicing.adapters.kafka import REQUESTS_GROUP
from invoicing.adapters.postgres_books import PostgresBooks
from invoicing.adapters.postgres_issued import PostgresDrafts
from invoicing.adapters.postgres_register import PostgresRegister
from invoicing.adapters.postgres_settlements import PostgresSettlements
from invoicing.adapters.postgres_together import PostgresBooksTogether
from invoicing.finalize_drafts import finalize_drafts
from invoicing.invoice_period import invoice_period
from invoicing.invoice_together import invoice_together
from invoicing.load_terms import load_terms
from invoicing.record_money_back import record_dispute, record_refund
from invoicing.settle_invoice import settle_invoice
from invoicing.settlement_ports import Settlements
from runtime.postgres import create_pool
from runtime.settings import Settings
from runtime.topic_consumer import Handler, TopicConsumer

SETTLEMENTS_GROUP = "meterbook-settlements"
FACTS_GROUP = "meterbook-invoiced-facts"
_DRAFTS_SECONDS = 60.0
log = structlog.get_logger()


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Turn `invoicing.requests` into invoices until `stop` is set; start more of these to scale."""
    terms = load_terms(settings)
    usage, clock = ClickHouseUsage(settings), SystemClock()
    async with create_pool(settings, max_size=2) as pool:
        books = PostgresBooks(pool)

        async def handle(raw: bytes | None) -> None:
            request = decode_message(raw, InvoicingRequest)
            await invoice_period(request, books=books, usage=usage, terms=terms, clock=clock)

        async def together(values: Sequence[bytes | None]) -> list[int]:
            first, left = first_of_tenants(values)
            done = await invoice_together(
                list(first.values()), books=PostgresBooksTogether(pool), usage=usage, terms=terms, clock=clock
            )
            return left + [place for place, request in first.items() if request.tenant_id in done.alone]

        try:
            await TopicConsumer(settings, INVOICING_REQUESTS, REQUESTS_GROUP, handle, together=together).run(stop)
        finally:
            await usage.close()


def first_of_tenants(values: Sequence[bytes | None]) -> tuple[dict[int, InvoicingRequest], list[int]]:
    """Return each tenant's first request by its place, and the places of the others and of what is no request."""
    first: dict[int, InvoicingRequest] = {}
    left, tenants = [], set()
    for place, value in enumerate(values):
        try:
            request = decode_message(value, InvoicingRequest)
        except InvalidInputError:
            left.append(place)
            continue
        if request.tenant_id in tenants:
            left.append(place)
        else:
            tenants.add(request.tenant_id)
            first[place] = request
    return first, left


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
    """Copy the lines of documents to ClickHouse until `stop` is set, those of void ones as nothing.

    Rows replace each other, so twice is once.
    """
    facts = ClickHouseUsage(settings)
    async with create_pool(settings, max_size=2) as pool:
        register = PostgresRegister(pool)

        async def copy(invoice_id: str) -> None:
            found = await register.facts(invoice_id)
            if not found:
                raise InvalidInputError(
                    [Fault("unknown_invoice", f"no lines of an invoice {invoice_id!r}", "invoice_id")]
                )
            await facts.put(found)

        async def finalized(raw: bytes | None) -> None:
            await copy(decode_message(raw, InvoiceFinalized).invoice_id)

        async def voided(raw: bytes | None) -> None:
            await copy(decode_message(raw, InvoiceVoided).invoice_id)

        try:
            async with asyncio.TaskGroup() as tasks:
                for topic, handle in ((INVOICE_FINALIZED, finalized), (INVOICE_VOIDED, voided)):
                    tasks.create_task(TopicConsumer(settings, topic, FACTS_GROUP, handle).run(stop))
        finally:
            await facts.close()


async def run_drafts(settings: Settings, stop: asyncio.Event) -> None:
    """Finalize drafts whose grace is over, every minute, until `stop` is set; several may run."""
    terms = load_terms(settings)
    usage, clock = ClickHouseUsage(settings), SystemClock()
    async with create_pool(settings, max_size=2) as pool:
        drafts, books = PostgresDrafts(pool), PostgresBooks(pool)
        try:
            while not stop.is_set():
                try:
                    await finalize_drafts(drafts=drafts, books=books, usage=usage, terms=terms, clock=clock)
                except (psycopg.OperationalError, PoolTimeout, UnavailableError, OSError) as error:
                    # Nothing is lost by waiting: a draft stays what it is until it is final.
                    log.warning("drafts.waiting", error=str(error), retry_in_seconds=_DRAFTS_SECONDS)
                await _sleep_unless(stop, _DRAFTS_SECONDS)
        finally:
            await usage.close()


async def _sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
