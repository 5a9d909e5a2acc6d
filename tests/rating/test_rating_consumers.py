"""Rating consumers on the real engines: work splits, nothing doubles, and the final invoice agrees to the cent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from catalogues.commands import apply_files
from catalogues.load_catalogue import shipped_files
from core.clock import ManualClock
from core.journal import FORMAT, JournalEntry, WindowRow, encode_entry
from core.messages import InvoicingRequest
from core.period import Period
from core.topics import USAGE_JOURNAL
from invoicing.adapters.clickhouse import ClickHouseUsage
from invoicing.adapters.postgres_books import PostgresBooks
from invoicing.invoice_period import invoice_period
from rating import consumer
from rating.adapters.clickhouse import ClickHouseRating
from rating.adapters.kafka import partition_of
from rating.adapters.redis_costs import EPOCH_KEY, RedisCosts, cost_key
from rating.domain.running_cost import CostPart
from rating.ports import CostRow
from rating.running_cost_desk import open_running_costs
from runtime.clickhouse import INSERT_SETTINGS, connect_clickhouse
from runtime.postgres import create_pool
from runtime.redis import connect_redis
from runtime.settings import Settings
from runtime.topic_consumer import create_producer
from subscriptions.adapters.postgres import PostgresSubscriptionStore
from subscriptions.change_plan import change_plan
from subscriptions.commands import add_tenant
from subscriptions.domain.tenant import Tenant
from subscriptions.record_changes import Asked
from tests.invoicing.scene import TERMS
from tests.rating.plans import OCTOBER

pytestmark = pytest.mark.integration
_ROLLUP = [
    "tenant", "meter", "dimensions", "window_start", "source_partition", "segment", "quantity", "events", "version",
]  # fmt: skip
_PROGRESS = [
    "at", "stage", "source_partition", "next_offset", "end_offset", "events", "duplicates", "rejected", "freshness_ms",
]  # fmt: skip


class Usage:
    """Usage as the stream leaves it: rollups and progress in ClickHouse, and a journal that tells of it."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._client = settings, connect_clickhouse(settings)
        self._offset = 0

    def count(self, tenant: str, meter: str, quantity: str, when: datetime, version: int = 1) -> None:
        partition = partition_of(tenant, self._settings.usage_partitions)
        row = [tenant, meter, {}, when, partition, 0, Decimal(quantity), 1, version]
        self._client.insert("usage_rollups", [row], column_names=_ROLLUP, settings=INSERT_SETTINGS)

    async def tell(self, tenants: Iterable[str], when: datetime) -> None:
        """Put a journal record for each tenant's partition; the warehouse has stored it all."""
        self._offset += 10
        now, partitions = datetime.now(UTC), range(self._settings.usage_partitions)
        rows = [[now, "warehouse", partition, self._offset + 1, 0, 0, 0, 0, 0] for partition in partitions]
        self._client.insert("pipeline_progress", rows, column_names=_PROGRESS, settings=INSERT_SETTINGS)
        producer = create_producer(self._settings)
        await producer.start()
        for tenant in tenants:
            window = WindowRow(tenant, "cpu", (), int(when.timestamp()), 0, "1", 1)
            entry = JournalEntry(
                FORMAT, self._offset - 10, self._offset - 9, self._offset, "w", 0, int(now.timestamp() * 1_000), 1, 0,
                0, b"", b"", b"", [window], [], [], [], [], [], {"cpu": ()}, {"cpu": "sum"}, {}, 0,
            )  # fmt: skip
            partition = partition_of(tenant, self._settings.usage_partitions)
            await producer.send_and_wait(USAGE_JOURNAL.name, value=encode_entry(entry), partition=partition)
        await producer.stop()

    def running(self, tenant: str) -> dict[tuple[str, str], Decimal]:
        found = self._client.query(
            "SELECT charge, meter, sum(amount) FROM rated_usage FINAL WHERE tenant = {tenant:String}"
            " AND state = 'running' GROUP BY charge, meter HAVING sum(amount) != 0 OR sum(quantity) != 0",
            parameters={"tenant": tenant},
        )
        return {(charge, meter): amount for charge, meter, amount in found.result_rows}


@asynccontextmanager
async def consumers(settings: Settings, count: int) -> AsyncIterator[None]:
    stop = asyncio.Event()
    tasks = [asyncio.create_task(consumer.run(settings, stop), name=f"rating-{number}") for number in range(count)]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def until(what: str, check: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(120):
        if await check():
            return
        await asyncio.sleep(0.5)
    raise AssertionError(f"never happened: {what}")


async def tenants_on(settings: Settings, count: int, plan: str = "shared") -> dict[str, str]:
    """Return new tenants by id with their subscriptions, spread over all partitions."""
    found: dict[str, str] = {}
    while len(found) < count:
        tenant_id = f"rated-{uuid4().hex[:10]}"
        if partition_of(tenant_id, settings.usage_partitions) != len(found) % settings.usage_partitions:
            continue
        tenant = Tenant(tenant_id, "Rated", "billing@example.com", "DE", "USD")
        subscription, _ = await add_tenant(settings, tenant, plan, overrides={}, started_at=OCTOBER.start)
        found[tenant_id] = subscription.subscription_id
    return found


async def test_two_consumers_share_the_work_and_the_invoice_agrees(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rated: list[tuple[str, frozenset[str]]] = []
    real = consumer.rate_open_periods

    async def watched(touched: set[tuple[str, Period]], **given: Any) -> int:
        spans = set(touched)
        rows = await real(spans, **given)
        task = asyncio.current_task()
        assert task is not None
        if spans:
            rated.append((task.get_name(), frozenset(tenant for tenant, _ in spans)))
        return rows

    monkeypatch.setattr(consumer, "rate_open_periods", watched)
    await apply_files(settings, shipped_files())
    tenants = await tenants_on(settings, 2 * settings.usage_partitions, "lite")
    usage, when = Usage(settings), OCTOBER.start + timedelta(days=9)
    for tenant in tenants:
        usage.count(tenant, "cpu", "100.5", when)
        usage.count(tenant, "agent_executions", "120000", when)
    expected = {("base", ""): Decimal(99), ("cpu", "cpu"): Decimal("5.03"), ("agent_executions",) * 2: Decimal(10)}
    async with consumers(settings, 2):

        async def both_rate() -> bool:
            await usage.tell(tenants, when)
            await asyncio.sleep(1)
            return len({name for name, _ in rated}) == 2

        await until("both consumers rate", both_rate)
        rated.clear()
        await usage.tell(tenants, when)

        async def all_rated() -> bool:
            return {tenant for _, some in rated for tenant in some} == set(tenants)

        await until("every tenant is rated", all_rated)
        by_worker: dict[str, set[str]] = {}
        for name, some in rated:
            by_worker.setdefault(name, set()).update(some)
        one, other = by_worker.values()
        assert one.isdisjoint(other), "a tenant is rated by one of them"
        assert all(usage.running(tenant) == expected for tenant in tenants)

        # A tenant moves to another plan: no usage tells of it, and what is owed no longer goes.
        moved, subscription_id = next(iter(tenants.items()))
        async with create_pool(settings, max_size=1) as pool, pool.connection() as connection:
            await change_plan(
                subscription_id, "shared", asked=Asked("test", allow_backdated=True),
                store=PostgresSubscriptionStore(connection), clock=ManualClock(datetime.now(UTC)),
                when=OCTOBER.start,
            )  # fmt: skip

        # 100.5 × 0.05; 120,000 - 10,000 included = 110,000 × 0.001
        after = {("cpu", "cpu"): Decimal("5.03"), ("agent_executions",) * 2: Decimal(110)}

        async def followed() -> bool:
            return usage.running(moved) == after

        await until("the running cost follows the plan", followed)
    await agree(settings, usage, tenants)


async def agree(settings: Settings, usage: Usage, tenants: Iterable[str]) -> None:
    """Hold that October's invoices are the running costs, charge by charge."""
    reader = ClickHouseUsage(settings)
    async with create_pool(settings, max_size=1) as pool:
        for tenant in tenants:
            request = InvoicingRequest(tenant_id=tenant, period="2026-10", run_id="r", requested_at="")
            clock = ManualClock(datetime(2026, 11, 21, tzinfo=UTC))
            (invoice,) = await invoice_period(
                request, books=PostgresBooks(pool), usage=reader, terms=TERMS, clock=clock
            )
            billed: dict[tuple[str, str], Decimal] = {}
            for line in invoice.draft.lines:
                key = (line.charge_id, line.meter_id or "")
                billed[key] = billed.get(key, Decimal(0)) + line.amount
            assert billed == usage.running(tenant)
    await reader.close()


class Behind:
    """Where running costs truly are; counts how often it was asked."""

    def __init__(self, **parts: CostPart) -> None:
        self.parts, self.asked = parts, 0

    async def costs(self, tenant_id: str, period: str) -> dict[str, CostPart]:
        self.asked += 1
        return self.parts


def row(tenant: str, amount: str, version: int, subscription: str = "sub_1") -> CostRow:
    now = datetime(2026, 10, 20, tzinfo=UTC)
    return CostRow(
        tenant,
        "2026-10",
        "lite",
        "cpu",
        "cpu",
        Decimal(1),
        Decimal(amount),
        "USD",
        now,
        version,
        subscription,
        "lite@1",
    )


async def test_redis_shows_the_newest_cost_and_heals_when_it_was_wiped(settings: Settings) -> None:
    tenant = f"cost-{uuid4().hex[:10]}"
    client = connect_redis(settings.redis, timeout_s=5, connect_timeout_s=5)
    writer, reader = RedisCosts(client), RedisCosts(client)
    store = ClickHouseRating(settings)

    async def put(*rows: CostRow) -> None:
        await store.put(rows)
        await writer.put(rows)

    await put(row(tenant, "1.00", 1), row(tenant, "5.00", 1, "sub_2"))
    behind = Behind(**dict(await store.costs(tenant, "2026-10")))
    # A hash that nobody has filled whole is not believed.
    assert (await reader.read(tenant, "2026-10", behind)).totals() == {"USD": Decimal("6.00")}
    assert (await reader.read(tenant, "2026-10", behind)).totals() == {"USD": Decimal("6.00")}
    assert behind.asked == 1, "the second was Redis' own"
    await put(row(tenant, "3.00", 3))
    await put(row(tenant, "2.00", 2))
    assert (await reader.read(tenant, "2026-10", behind)).totals() == {"USD": Decimal("8.00")}
    await put(row(tenant, "0", 4))
    document = (await reader.read(tenant, "2026-10", behind)).as_document()
    assert (document["totals"], [line["subscription_id"] for line in document["charges"]]) == (
        {"USD": "5.00"}, ["sub_1", "sub_2"],
    )  # fmt: skip
    assert behind.asked == 1
    await client.flushall()
    assert (await reader.read(tenant, "2026-10", store)).totals() == {"USD": Decimal("5.00")}
    assert (await client.hget(cost_key(tenant, "2026-10"), "w")) == "1"
    # A consumer that begins, or could not write for a while, starts another epoch: what it missed is read anew.
    await store.put([row(tenant, "9.00", 9)])
    await RedisCosts(client).put([row(f"{tenant}-x", "1.00", 1)])
    assert (await client.get(EPOCH_KEY)) == "1"
    async with open_running_costs(settings) as desk:
        assert (await desk.cost(tenant, "2026-10"))["totals"] == {"USD": "14.00"}
    await client.aclose()
    await store.close()


async def test_an_outage_of_redis_stops_neither_writing_nor_reading(settings: Settings) -> None:
    away = RedisCosts(connect_redis("redis://127.0.0.1:1", timeout_s=1, connect_timeout_s=1))
    await away.put([row("acme", "1.00", 1)])
    behind = Behind(sub_1=CostPart(7, ()))
    assert (await away.read("acme", "2026-10", behind)).as_document() == {
        "tenant_id": "acme", "period": "2026-10", "as_of": None, "totals": {}, "charges": [],
    }  # fmt: skip
    await away.close()
