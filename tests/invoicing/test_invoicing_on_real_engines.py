"""The whole way on the real engines: request, invoice, outbox, PDF, facts, settlement; and again, nothing new."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from catalogues.commands import apply_files
from catalogues.load_catalogue import shipped_files
from core.clock import ManualClock
from core.dead_letter import DeadLetter
from core.messages import InvoicingRequest, PaymentSettled, encode_message
from core.topics import BILLING_REJECTED, INVOICING_REQUESTS, PAYMENT_SETTLED, USAGE_EVENTS
from invoicing import consumer, renderer
from invoicing.adapters.clickhouse import ClickHouseUsage
from invoicing.adapters.kafka import KafkaRequestsWaiting, KafkaUsageProgress
from invoicing.adapters.postgres_books import PostgresBooks
from invoicing.adapters.postgres_register import PostgresRegister
from invoicing.commands import request_invoices
from invoicing.follow_run import follow_run
from invoicing.invoice_period import invoice_period
from invoicing.ports import ListedInvoice
from invoicing.preview_invoice import Wish, preview_invoice
from ledger.adapters.postgres_audit import PostgresAudit
from ledger.check_ledger import check_ledger
from rating.adapters.postgres_credits import PostgresCreditLedger
from rating.domain.credit import CreditGrant, CreditKind
from runtime.clickhouse import INSERT_SETTINGS, connect_clickhouse
from runtime.postgres import create_pool
from runtime.processes.consumers import run_outbox
from runtime.settings import Settings
from runtime.topic_consumer import create_producer
from subscriptions.adapters.postgres import PostgresSubscriptionStore
from subscriptions.change_plan import change_plan
from subscriptions.commands import add_tenant
from subscriptions.domain.tenant import Tenant
from subscriptions.record_changes import Asked
from tests.invoicing.scene import TERMS, at

pytestmark = pytest.mark.integration
_ROLLUP = [
    "tenant", "meter", "dimensions", "window_start", "source_partition", "segment", "quantity", "events", "version",
]  # fmt: skip


def use(
    settings: Settings, tenant: str, meter: str, quantity: str, when: str, *, segment: int = 0, **dims: str
) -> None:
    client = connect_clickhouse(settings)
    row = [tenant, meter, dims, at(when), 0, segment, Decimal(quantity), 1, 1]
    client.insert("usage_rollups", [row], column_names=_ROLLUP, settings=INSERT_SETTINGS)
    client.close()


async def subscribe(settings: Settings, plan: str) -> str:
    tenant_id = f"{plan}-{uuid4().hex[:10]}"
    tenant = Tenant(tenant_id, "Zażółć Gęślą Jaźń GmbH & Co. KG", "billing@example.com", "PL", "USD")
    await add_tenant(settings, tenant, plan, overrides={}, started_at=at("2026-10-01"))
    return tenant_id


@asynccontextmanager
async def workers(settings: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    runs = (consumer.run, consumer.run_settlements, consumer.run_invoiced_facts, renderer.run, run_outbox)
    tasks = [asyncio.create_task(run(settings, stop)) for run in runs]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def invoices_of(settings: Settings, tenant_id: str) -> list[ListedInvoice]:
    async with create_pool(settings, max_size=1) as pool:
        return await PostgresRegister(pool).invoices(None, tenant_id)


async def until(what: str, check: Callable[[], Awaitable[Any]]) -> Any:
    for _ in range(600):
        if found := await check():
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"never happened: {what}")


async def facts_of(settings: Settings, tenant_id: str) -> list[tuple[Any, ...]]:
    client = connect_clickhouse(settings)
    try:
        found = client.query(
            "SELECT reference, charge, meter, quantity, amount FROM rated_usage FINAL"
            " WHERE tenant = {tenant:String} AND state = 'invoiced' ORDER BY reference, charge",
            parameters={"tenant": tenant_id},
        )
        return list(found.result_rows)
    finally:
        client.close()


async def test_from_request_to_paid_pdf_and_again_nothing_new(settings: Settings) -> None:
    await apply_files(settings, shipped_files())
    tenant_id = await subscribe(settings, "lite")
    use(settings, tenant_id, "agent_executions", "120000", "2026-10-07T10:15", agent_type="planner")
    use(settings, tenant_id, "cpu", "100.5", "2026-10-31T23:59")
    async with workers(settings):
        await request_invoices(settings, "2026-10", tenant_id, wait_seconds=None)

        async def documented() -> list[ListedInvoice]:
            found = await invoices_of(settings, tenant_id)
            return found if found and all(invoice.document for invoice in found) else []

        (invoice,) = await until("an invoice with its document", documented)
        assert invoice.total == Decimal("114.03")  # 99 + 20,000 × 0.0005 + 100.5 × 0.05 (5.025)
        assert invoice.status == "finalized"
        assert invoice.document is not None
        assert Path(invoice.document) == settings.documents.resolve() / tenant_id / f"{invoice.number}.pdf"
        with psycopg.connect(settings.postgres) as connection:
            row = connection.execute("SELECT sha256 FROM invoice_documents WHERE location = %s", (invoice.document,))
            recorded = row.fetchone()
        assert recorded == (hashlib.sha256(Path(invoice.document).read_bytes()).hexdigest(),)

        facts = await until("facts of the invoice", lambda: facts_of(settings, tenant_id))
        assert [(charge, f"{amount:.2f}") for _, charge, _, _, amount in facts] == [
            ("agent_executions", "10.00"),
            ("base", "99.00"),
            ("cpu", "5.03"),
        ]

        await send_settlement(settings, invoice, "114.03")
        paid = await until("paid", lambda: paid_of(settings, tenant_id))
        assert (paid.amount_paid, paid.paid_at) == (Decimal("114.03"), at("2026-11-04T10:00"))

        # Everything again: asked twice, settled twice.
        await request_invoices(settings, "2026-10", tenant_id, wait_seconds=None)
        await request_invoices(settings, "2026-10", tenant_id, wait_seconds=None)
        await send_settlement(settings, invoice, "114.03")
        use(settings, tenant_id, "cpu", "10", "2026-10-31T23:58")
        await request_invoices(settings, "2026-10", tenant_id, wait_seconds=None)

        async def second() -> list[ListedInvoice]:
            found = await documented()
            return found if len(found) > 1 else []

        first, late = await until("the late usage's invoice", second)
        assert first == paid, "what was finalized and paid did not change"
        async with create_pool(settings, max_size=1) as pool:
            faults = (await check_ledger(PostgresAudit(pool))).faults
        assert [fault for fault in faults if fault.startswith(tenant_id)] == [], "the ledger is what the books say"
        assert (late.sequence, late.total) == (2, Decimal("0.50"))  # 10 × 0.05


async def paid_of(settings: Settings, tenant_id: str) -> ListedInvoice | None:
    found = await invoices_of(settings, tenant_id)
    return next((invoice for invoice in found if invoice.status == "paid"), None)


async def send(settings: Settings, topic: str, key: str, value: bytes) -> None:
    producer = create_producer(settings)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value=value, key=key.encode())
    finally:
        await producer.stop()


async def send_settlement(settings: Settings, invoice: ListedInvoice, amount: str) -> None:
    with psycopg.connect(settings.postgres) as connection:
        connection.execute(
            "INSERT INTO payments (payment_id, invoice_id, tenant_id, attempt, provider, amount, currency, status,"
            " created_at, updated_at, settled_at)"
            " VALUES (%s, %s, %s, 1, 'stripe', %s, 'USD', 'succeeded', now(), now(), now()) ON CONFLICT DO NOTHING",
            (f"pay_{invoice.invoice_id}", invoice.invoice_id, invoice.tenant_id, amount),
        )
    message = PaymentSettled(
        payment_id=f"pay_{invoice.invoice_id}",
        invoice_id=invoice.invoice_id,
        tenant_id=invoice.tenant_id,
        provider="stripe",
        provider_reference="pi_1",
        currency="USD",
        amount=amount,
        settled_at="2026-11-04T10:00:00Z",
    )
    await send(settings, PAYMENT_SETTLED.name, invoice.tenant_id, encode_message(message))


async def test_poison_goes_to_the_dead_letters_and_the_next_request_is_served(settings: Settings) -> None:
    await apply_files(settings, shipped_files())
    tenant_id = await subscribe(settings, "airgapped")
    poison = [b"not json", b'{"tenant_id": "nobody", "period": "2026-10", "run_id": "r", "requested_at": ""}']
    reader = AIOKafkaConsumer(
        BILLING_REJECTED.name, bootstrap_servers=settings.kafka_bootstrap, auto_offset_reset="earliest"
    )
    await reader.start()
    try:
        async with workers(settings):
            for value in poison:
                await send(settings, INVOICING_REQUESTS.name, tenant_id, value)
            await request_invoices(settings, "2026-10", tenant_id, wait_seconds=None)
            (invoice,) = await until("the good neighbour", lambda: invoices_of(settings, tenant_id))
        assert invoice.total == Decimal("60000.00")  # licence 50,000 + support 10,000
        letters: list[DeadLetter] = []
        while {letter.body for letter in letters} < set(poison):
            fetched = await reader.getmany(timeout_ms=30_000)
            assert fetched, "the dead letters never came"
            found = [record for records in fetched.values() for record in records]
            letters += [DeadLetter.from_record(record.value, list(record.headers)) for record in found]
        codes = {letter.body: letter.code for letter in letters if letter.body in poison}
        assert [codes[value] for value in poison] == ["malformed_message", "unknown_tenant"]
    finally:
        await reader.stop()


async def test_a_run_can_be_followed_and_leaves_out_what_was_asked_for_later(settings: Settings) -> None:
    await apply_files(settings, shipped_files())
    tenants = [await subscribe(settings, "lite") for _ in range(3)]
    for tenant_id in tenants:
        await request_invoices(settings, "2026-10", tenant_id, wait_seconds=None)
    async with KafkaRequestsWaiting(settings) as requests:
        assert await requests.waiting() == 3
        await request_invoices(settings, "2026-10", tenants[0], wait_seconds=None)
        assert await requests.waiting() == 3
        async with workers(settings):
            assert await follow_run(requests, lambda handled, of: None, pause_seconds=0.1) == 3
    assert [len(await invoices_of(settings, tenant_id)) for tenant_id in tenants] == [1, 1, 1]
    async with workers(settings), KafkaRequestsWaiting(settings) as requests:
        await follow_run(requests, lambda handled, of: None, pause_seconds=0.1)


async def test_usage_is_settled_when_no_earlier_record_waits(settings: Settings) -> None:
    progress = KafkaUsageProgress(settings)
    assert await progress.settled(at("2000-01-01")), "nothing was received back then"
    # In transactions, as the meter worker forwards events: their markers take an offset but are no records.
    async with forwarding(settings) as producer:
        await producer.begin_transaction()
        sent = await producer.send_and_wait(USAGE_EVENTS.name, value=b"{}", partition=1)
        received = datetime.fromtimestamp(sent.timestamp / 1_000, UTC)
        await report_progress(settings, {1: sent.offset})
        assert not await progress.settled(received), "the transaction may be committed"
        assert await progress.settled(received - timedelta(seconds=1)), "whatever becomes of it came later"
        await producer.abort_transaction()
        await until("taken back", lambda: progress.settled(received))
        async with producer.transaction():
            sent = await producer.send_and_wait(USAGE_EVENTS.name, value=b"{}", partition=1)
        received = datetime.fromtimestamp(sent.timestamp / 1_000, UTC)
        assert not await progress.settled(received), "the record waits to be counted"
    await report_progress(settings, {1: sent.offset + 1})
    assert await progress.settled(received), "only a marker is left"


@asynccontextmanager
async def forwarding(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, transactional_id=uuid4().hex)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def report_progress(settings: Settings, offsets: dict[int, int]) -> None:
    """Report every partition as stored up to its end, but for those given."""
    reader = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap)
    await reader.start()
    partitions = [TopicPartition(USAGE_EVENTS.name, number) for number in range(settings.usage_partitions)]
    reader.assign(partitions)
    last = {tp.partition: end for tp, end in (await reader.end_offsets(partitions)).items()}
    await reader.stop()
    now = datetime.now(UTC) + timedelta(seconds=1)
    rows = [
        [now, "warehouse", partition, next_offset, last[partition], 0, 0, 0, 0]
        for partition, next_offset in (last | offsets).items()
    ]
    columns = [
        "at", "stage", "source_partition", "next_offset", "end_offset", "events", "duplicates", "rejected",
        "freshness_ms",
    ]  # fmt: skip
    client = connect_clickhouse(settings)
    client.insert("pipeline_progress", rows, column_names=columns, settings=INSERT_SETTINGS)
    client.close()


async def test_a_preview_from_the_stores_is_the_later_invoice(settings: Settings) -> None:
    await apply_files(settings, shipped_files())
    tenant_id = await subscribe(settings, "lite")
    use(settings, tenant_id, "cpu", "100.5", "2026-10-07T10:15")
    use(settings, tenant_id, "agent_executions", "30000", "2026-10-20T10:15")
    when, usage = at("2026-10-16T00:00"), ClickHouseUsage(settings)
    async with create_pool(settings, max_size=2) as pool:
        books = PostgresBooks(pool)
        grant = CreditGrant(
            f"cred_{tenant_id}", tenant_id, CreditKind.PAID, Decimal(20), "USD", at("2026-10-01"), at("2026-10-01")
        )
        async with pool.connection() as connection:
            await PostgresCreditLedger(connection).add_grant(grant)
        previewed = await preview_invoice(tenant_id, when, books=books, usage=usage, wish=Wish(plan_id="shared"))
        assert await invoices_of(settings, tenant_id) == []
        async with pool.connection() as connection:
            await change_plan(
                previewed.subscription_id, "shared", asked=Asked("test", allow_backdated=True), when=when,
                store=PostgresSubscriptionStore(connection), clock=ManualClock(at("2026-10-16T08:00")),
            )  # fmt: skip
        request = InvoicingRequest(tenant_id=tenant_id, period="2026-10", run_id="r", requested_at="")
        clock = ManualClock(at("2026-11-03"))
        (invoice,) = await invoice_period(request, books=books, usage=usage, terms=TERMS, clock=clock)
        assert await invoice_period(request, books=books, usage=usage, terms=TERMS, clock=clock) == []
        async with pool.connection() as connection:
            (credit,) = await PostgresCreditLedger(connection).credits(tenant_id)
    await usage.close()
    # 99 × 15/31 = 47.903...; 100.5 × 0.05 = 5.025; 30,000 - 10,000 = 20,000 × 0.001
    assert [str(line.amount) for line in invoice.draft.lines if line.amount] == ["47.90", "5.03", "20.00"]
    assert [line.item_key for line in previewed.lines] == [line.item_key for line in invoice.draft.lines]
    assert (previewed.total, previewed.amount_due) == (invoice.total, invoice.amount_due)
    assert (invoice.total, invoice.amount_due, credit.balance) == (Decimal("72.93"), Decimal("52.93"), Decimal(0))
    (listed,) = await invoices_of(settings, tenant_id)
    assert (listed.credits_applied, listed.month) == (Decimal(20), "2026-10")
