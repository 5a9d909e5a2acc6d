"""The books in memory and in PostgreSQL, and usage in memory and in ClickHouse, behave alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from catalogues.commands import apply_files
from catalogues.load_catalogue import shipped_files
from core.period import Period
from invoicing.adapters.clickhouse import ClickHouseUsage
from invoicing.adapters.postgres_books import PostgresBooks
from invoicing.domain.invoice import Draft, Invoice
from invoicing.domain.lines import Billed, Line, item_key
from invoicing.domain.usage_evidence import HourOfUsage
from invoicing.ports import Account, Books, UsageReader
from rating.domain.digest import digest_of
from runtime.clickhouse import INSERT_SETTINGS, connect_clickhouse
from runtime.postgres import create_pool
from runtime.settings import Settings
from subscriptions.commands import add_tenant
from subscriptions.domain.tenant import Tenant
from tests.invoicing.memory import MemoryUsage
from tests.invoicing.scene import Scene, at
from tests.rating.plans import METERS, OCTOBER

KINDS = ["memory", pytest.param("real", marks=pytest.mark.integration)]


@dataclass
class BooksUnderTest:
    books: Books
    tenant_id: str
    subscription_id: str
    series: str = field(default_factory=lambda: f"T{uuid4().hex[:8]}")


@pytest.fixture(params=KINDS)
def engines(request: pytest.FixtureRequest) -> Settings | None:
    """The real engines, or None for memory; not async, because starting them runs a loop of its own."""
    return request.getfixturevalue("settings") if request.param == "real" else None


async def open_books(settings: Settings | None) -> BooksUnderTest:
    tenant_id = f"books-{uuid4().hex[:10]}"
    if settings is None:
        scene = Scene()
        scene.on("lite", tenant_id, started="2026-10-05")
        return BooksUnderTest(scene.books, tenant_id, f"sub_{tenant_id}")
    await apply_files(settings, shipped_files())
    tenant = Tenant(tenant_id, tenant_id.title(), "billing@example.com", "DE", "USD", "1 Road\nTown")
    subscription, _ = await add_tenant(settings, tenant, "lite", overrides={}, started_at=at("2026-10-05"))
    pool = create_pool(settings)
    await pool.open()
    return BooksUnderTest(PostgresBooks(pool), tenant_id, subscription.subscription_id)


@pytest.fixture
async def under_test(engines: Settings | None) -> AsyncIterator[BooksUnderTest]:
    opened = await open_books(engines)
    yield opened
    if isinstance(opened.books, PostgresBooks):
        await opened.books._pool.close()


def line(under: BooksUnderTest, charge: str = "cpu", **changes: Any) -> Line:
    given = Line(
        item_key=item_key(under.subscription_id, charge, "", (("class", "hot"),), OCTOBER, "lite@1"),
        charge_id=charge,
        kind="usage",
        description="CPU",
        meter_id="cpu",
        dimensions=(("class", "hot"),),
        quantity=Decimal("12.345678901234"),
        unit="vCPU-hour",
        unit_amount=Decimal("0.05"),
        per=1000,
        exact_amount=Decimal("0.6172839450617"),
        amount=Decimal("0.62"),
        price_digest="d" * 64,
        evidence={"per": 1000, "hours": [["2026-10-01T00", "12.345678901234", 3]]},
        period=OCTOBER,
        settles=OCTOBER.start,
    )
    return replace(given, **changes)


def invoice(under: BooksUnderTest, number: int, *lines: Line, sequence: int = 1) -> Invoice:
    draft = Draft(under.subscription_id, OCTOBER, sequence, "USD", lines)
    snapshot = {"number": number, "total": "0.62", "name": "Ünï 🚀"}
    return Invoice(
        draft=draft,
        tenant_id=under.tenant_id,
        number=f"{under.series}-{number:06}",
        tax=Decimal(0),
        issued_at=at("2026-11-03"),
        due_at=at("2026-11-18"),
        snapshot=snapshot,
        snapshot_sha256=digest_of(snapshot),
        engine_version="1",
    )


async def billed_in_october(account: Account, under: BooksUnderTest) -> dict[str, Billed]:
    return await account.billed(under.subscription_id, settling=[OCTOBER.start], item_keys=[])


async def test_an_account_knows_its_tenant_contracts_and_meters(under_test: BooksUnderTest) -> None:
    async with under_test.books.open_account(under_test.tenant_id) as account:
        assert account is not None
        assert (account.buyer.country, account.buyer.currency, account.buyer.parked_reason) == ("DE", "USD", None)
        (subscribed,) = await account.subscriptions(OCTOBER.end)
        (phase,) = subscribed.timeline().phases
        assert (phase.held.plan_id, phase.start, phase.end) == ("lite", at("2026-10-05"), None)
        plan = subscribed.plan_of(METERS)("lite", phase.held.plan_version, {})
        assert plan.document["charges"][0]["flat_amount"] == "99"
        assert await account.subscriptions(at("2026-10-01")) == []
        assert await account.subscriptions(at("2026-10-05")) == []
        assert (await account.meters())["cpu"] == METERS["cpu"]


async def test_an_unknown_tenant_has_no_account(under_test: BooksUnderTest) -> None:
    async with under_test.books.open_account("nobody-at-all") as account:
        assert account is None


async def test_what_was_billed_is_read_back_exactly(under_test: BooksUnderTest) -> None:
    async with under_test.books.open_account(under_test.tenant_id) as account:
        assert account is not None
        assert await billed_in_october(account, under_test) == {}
        assert await account.next_sequence(under_test.subscription_id, OCTOBER) == 1
        await account.add(invoice(under_test, 1, line(under_test)))
    async with under_test.books.open_account(under_test.tenant_id) as account:
        assert account is not None
        (billed,) = (await billed_in_october(account, under_test)).values()
        assert billed.line == line(under_test)
        assert billed.number == f"{under_test.series}-000001"
        assert await account.next_sequence(under_test.subscription_id, OCTOBER) == 2


async def test_differences_add_up_by_item(under_test: BooksUnderTest) -> None:
    first = invoice(under_test, 1, line(under_test), line(under_test, "memory"))
    late = replace(
        line(under_test),
        quantity=Decimal("1.5"),
        exact_amount=Decimal("0.075"),
        amount=Decimal("0.08"),
        corrects_invoice=first.draft.invoice_id,
    )
    async with under_test.books.open_account(under_test.tenant_id) as account:
        assert account is not None
        await account.add(first)
        await account.add(invoice(under_test, 2, late, sequence=2))
        billed = await billed_in_october(account, under_test)
        assert sorted(item.line.charge_id for item in billed.values()) == ["cpu", "memory"]
        cpu = billed[line(under_test).item_key]
        assert (cpu.line.quantity, cpu.line.amount) == (Decimal("13.845678901234"), Decimal("0.70"))
        assert cpu.invoice_id == first.draft.invoice_id
        assert await account.next_sequence(under_test.subscription_id, OCTOBER) == 3


async def _bill_and_fail(under_test: BooksUnderTest) -> None:
    async with under_test.books.open_account(under_test.tenant_id) as account:
        assert account is not None
        assert await account.take_number(under_test.series) == 2
        await account.add(invoice(under_test, 2, line(under_test)))
        raise RuntimeError("the power went out")


async def test_numbers_are_taken_only_by_what_commits(under_test: BooksUnderTest) -> None:
    async with under_test.books.open_account(under_test.tenant_id) as account:
        assert account is not None
        assert await account.take_number(under_test.series) == 1
    with pytest.raises(RuntimeError, match="power"):
        await _bill_and_fail(under_test)
    async with under_test.books.open_account(under_test.tenant_id) as account:
        assert account is not None
        assert await billed_in_october(account, under_test) == {}
        assert await account.take_number(under_test.series) == 2


async def test_a_parked_account_says_why(under_test: BooksUnderTest) -> None:
    async with under_test.books.open_account(under_test.tenant_id) as account:
        assert account is not None
        await account.park("sums disagree", at("2026-11-03"))
    async with under_test.books.open_account(under_test.tenant_id) as account:
        assert account is not None
        assert account.buyer.parked_reason == "sums disagree"


@dataclass
class UsageUnderTest:
    reader: UsageReader
    put: Callable[..., Awaitable[None]]


@asynccontextmanager
async def open_usage(settings: Settings | None) -> AsyncIterator[UsageUnderTest]:
    if settings is None:
        memory = MemoryUsage()

        async def remember(tenant: str, meter: str, dims: dict[str, str], start: datetime, qty: str, **_: int) -> None:
            memory.add(tenant, meter, qty, start.replace(minute=0), **dims)

        yield UsageUnderTest(memory, remember)
        return
    reader, client = ClickHouseUsage(settings), connect_clickhouse(settings)
    columns = [
        "tenant", "meter", "dimensions", "window_start", "source_partition", "segment", "quantity", "events", "version",
    ]  # fmt: skip

    async def insert(
        tenant: str, meter: str, dims: dict[str, str], start: datetime, qty: str, *, segment: int = 0, version: int = 1
    ) -> None:
        row = [tenant, meter, dims, start, 0, segment, Decimal(qty), 1, version]
        client.insert("usage_rollups", [row], column_names=columns, settings=INSERT_SETTINGS)

    yield UsageUnderTest(reader, insert)
    await reader.close()
    client.close()


async def test_usage_is_read_by_hour_within_the_window(engines: Settings | None) -> None:
    tenant = f"usage-{uuid4().hex[:10]}"
    async with open_usage(engines) as usage:
        await usage.put(tenant, "gpu", {"gpu": "t4"}, at("2026-10-01T00:00"), "1.5")
        await usage.put(tenant, "gpu", {"gpu": "t4"}, at("2026-10-31T23:59"), "2.000000000001")
        await usage.put(tenant, "gpu", {"gpu": ""}, at("2026-10-31T23:58"), "4")
        await usage.put(tenant, "gpu", {"gpu": "t4"}, at("2026-11-01T00:00"), "8")
        await usage.put(tenant, "gpu", {"gpu": "t4"}, at("2026-09-30T23:59"), "16")
        await usage.put("someone-else", "gpu", {"gpu": "t4"}, at("2026-10-01T00:00"), "32")
        found = await usage.reader.usage(tenant, OCTOBER, meters={}, month=OCTOBER)
    assert found.hours == (
        HourOfUsage("gpu", (), at("2026-10-31T23:00"), Decimal(4), 1),
        HourOfUsage("gpu", (("gpu", "t4"),), at("2026-10-01T00:00"), Decimal("1.5"), 1),
        HourOfUsage("gpu", (("gpu", "t4"),), at("2026-10-31T23:00"), Decimal("2.000000000001"), 1),
    )


@pytest.mark.integration
async def test_only_the_newest_version_of_a_rollup_counts(settings: Settings) -> None:
    tenant = f"usage-{uuid4().hex[:10]}"
    async with open_usage(settings) as usage:
        start = at("2026-10-03T10:15")
        await usage.put(tenant, "cpu", {}, start, "1", version=1)
        await usage.put(tenant, "cpu", {}, start, "3", version=7)
        await usage.put(tenant, "cpu", {}, start, "2", version=4)
        await usage.put(tenant, "cpu", {}, start, "10", segment=99)
        found = await usage.reader.usage(tenant, OCTOBER, meters={}, month=OCTOBER)
    assert [(row.quantity, row.events) for row in found.hours] == [(Decimal(13), 2)]


@pytest.mark.integration
async def test_a_window_on_minutes_cuts_the_hour(settings: Settings) -> None:
    tenant = f"usage-{uuid4().hex[:10]}"
    async with open_usage(settings) as usage:
        await usage.put(tenant, "cpu", {}, at("2026-10-03T10:14"), "1")
        await usage.put(tenant, "cpu", {}, at("2026-10-03T10:15"), "2")
        found = await usage.reader.usage(tenant, Period(at("2026-10-03T10:15"), OCTOBER.end), meters={}, month=OCTOBER)
    assert [(row.hour, row.quantity) for row in found.hours] == [(at("2026-10-03T10:00"), Decimal(2))]
