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
from msgspec import structs

from catalogues.commands import apply_files
from catalogues.load_catalogue import shipped_files
from core.meters import Meter
from core.period import Period
from invoicing.adapters.clickhouse import ClickHouseUsage
from invoicing.adapters.postgres_books import PostgresBooks
from invoicing.domain.invoice import Draft, Invoice
from invoicing.domain.lines import Billed, Line, item_key
from invoicing.domain.tax.treatment import UNTAXED
from invoicing.domain.usage_evidence import HourOfUsage, UsageEvidence
from invoicing.ports import Account, Books, UsageReader
from rating.domain.credit import CreditGrant, CreditKind, dues_of
from rating.domain.fine_usage import FineUsage
from rating.domain.price import Grain
from rating.draw_credits import draw_credits, total_drawn
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
        treatment=UNTAXED,
    )
    return structs.replace(given, **changes)


def invoice(under: BooksUnderTest, number: int, *lines: Line, sequence: int = 1) -> Invoice:
    draft = Draft(under.subscription_id, OCTOBER, sequence, "USD", lines)
    snapshot = {"number": number, "total": "0.62", "name": "Ünï 🚀"}
    return Invoice(
        draft=draft,
        tenant_id=under.tenant_id,
        number=f"{under.series}-{number:06}",
        issued_at=at("2026-11-03"),
        due_at=at("2026-11-18"),
        snapshot=snapshot,
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
    late = structs.replace(
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


def hours_of(found: UsageEvidence) -> list[HourOfUsage]:
    return [HourOfUsage(one.meter_id, one.dimensions, *hour) for one in found.usage for hour in one.hours]


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
    assert hours_of(found) == [
        HourOfUsage("gpu", (), at("2026-10-31T23:00"), Decimal(4), 1),
        HourOfUsage("gpu", (("gpu", "t4"),), at("2026-10-01T00:00"), Decimal("1.5"), 1),
        HourOfUsage("gpu", (("gpu", "t4"),), at("2026-10-31T23:00"), Decimal("2.000000000001"), 1),
    ]


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
    assert [(row.quantity, row.events) for row in hours_of(found)] == [(Decimal(13), 2)]


@pytest.mark.integration
async def test_a_window_on_minutes_cuts_the_hour(settings: Settings) -> None:
    tenant = f"usage-{uuid4().hex[:10]}"
    async with open_usage(settings) as usage:
        await usage.put(tenant, "cpu", {}, at("2026-10-03T10:14"), "1")
        await usage.put(tenant, "cpu", {}, at("2026-10-03T10:15"), "2")
        found = await usage.reader.usage(tenant, Period(at("2026-10-03T10:15"), OCTOBER.end), meters={}, month=OCTOBER)
    assert [(row.hour, row.quantity) for row in hours_of(found)] == [(at("2026-10-03T10:00"), Decimal(2))]


async def test_items_are_found_by_key_and_by_the_period_they_settle(under_test: BooksUnderTest) -> None:
    november = Period(OCTOBER.end, at("2026-12-01"))
    ahead = line(under_test, "base", period=november, settles=november.start)
    async with under_test.books.open_account(under_test.tenant_id) as account:
        assert account is not None
        await account.subscriptions(OCTOBER.end)
        await account.add(invoice(under_test, 1, line(under_test), ahead))
        assert await account.invoiced(under_test.subscription_id) == {OCTOBER.start: at("2026-11-03")}
        found = await account.billed(under_test.subscription_id, settling=[november.start], item_keys=[])
        assert [item.line for item in found.values()] == [ahead]
        both = await account.billed(
            under_test.subscription_id, settling=[november.start], item_keys=[line(under_test).item_key, "no such"]
        )
        assert sorted(item.line.charge_id for item in both.values()) == ["base", "cpu"]
        assert await account.billed(under_test.subscription_id, settling=[at("2026-09-01")], item_keys=[]) == {}
    async with under_test.books.view_account(under_test.tenant_id) as account:
        assert account is not None
        assert (await account.newest_version("lite") or 0) >= 1
        assert await account.newest_version("no-such-plan") is None
        await account.park("only looked", at("2026-11-04"))
    async with under_test.books.open_account(under_test.tenant_id) as account:
        assert account is not None
        assert account.buyer.parked_reason is None, "what is done while viewing is taken back"


async def test_credits_are_drawn_with_the_invoice_or_not_at_all(under_test: BooksUnderTest) -> None:
    grant = CreditGrant(
        f"cred_{under_test.tenant_id}", under_test.tenant_id, CreditKind.PAID, Decimal("0.50"), "USD",
        at("2026-10-01"), at("2026-10-01"),
    )  # fmt: skip
    billed = invoice(under_test, 1, line(under_test))
    dues = dues_of([one.as_amount() for one in billed.draft.lines], "USD")

    async def draw(account: Account) -> Decimal:
        draws = await draw_credits(
            under_test.tenant_id, billed.draft.invoice_id, dues, "USD", ledger=account.ledger, at=at("2026-11-03")
        )
        applied = total_drawn(draws)
        await account.add(replace(billed, credits_applied=applied))
        return applied

    async def draw_and_fail() -> None:
        async with under_test.books.open_account(under_test.tenant_id) as account:
            assert account is not None
            assert await draw(account) == Decimal("0.50")
            raise RuntimeError("the power went out")

    async with under_test.books.open_account(under_test.tenant_id) as account:
        assert account is not None
        assert await account.ledger.add_grant(grant)
    with pytest.raises(RuntimeError, match="power"):
        await draw_and_fail()
    async with under_test.books.open_account(under_test.tenant_id) as account:
        assert account is not None
        assert await draw(account) == Decimal("0.50")
        (credit,) = await account.ledger.credits(under_test.tenant_id)
        assert credit.balance == 0


@pytest.mark.integration
async def test_windows_with_a_gap_leave_out_what_lies_in_it(settings: Settings) -> None:
    tenant = f"usage-{uuid4().hex[:10]}"
    windows = (Period(OCTOBER.start, at("2026-10-11")), Period(at("2026-10-21"), OCTOBER.end))
    meters = {"users": Meter("users", "user", "login", "unique", "user", ("team",))}
    async with open_usage(settings) as usage:
        for day, quantity in ((10, "1"), (11, "2"), (20, "4"), (21, "8")):
            await usage.put(tenant, "cpu", {}, at(f"2026-10-{day}T00:00"), quantity)
        client = connect_clickhouse(settings)
        columns = [
            "tenant", "meter", "dimensions", "time", "source_partition", "source_offset", "source_index", "quantity",
            "text", "removed", "version",
        ]  # fmt: skip
        rows = [
            [tenant, "users", {"team": "a"}, at(when), 0, offset, 0, Decimal(0), user, 0, 1]
            for offset, (when, user) in enumerate(
                [("2026-10-05", "ann"), ("2026-10-15", "bob"), ("2026-10-25", "ann"), ("2026-10-26", "eve")]
            )
        ]
        client.insert("usage_samples", rows, column_names=columns, settings=INSERT_SETTINGS)
        client.close()
        found = await usage.reader.usage(tenant, windows, meters=meters, month=OCTOBER)
        slots = await usage.reader.fine_usage(
            tenant, windows, [FineUsage(Grain.SLOT, "cpu")], meters={"cpu": METERS["cpu"]}
        )
    assert [row.quantity for row in hours_of(found)] == [1, 8]
    whole = next(total for total in found.measured if not total.dimensions)
    assert whole.quantity == 2, "ann of both windows is one, bob lies in the gap"
    assert [(entry.at, entry.quantity) for entry in slots[FineUsage(Grain.SLOT, "cpu")]] == [
        (at("2026-10-10"), Decimal(1)),
        (at("2026-10-21"), Decimal(8)),
    ]


@pytest.mark.integration
async def test_single_events_are_those_that_stand(settings: Settings) -> None:
    """Taken out by a void, before the meter counted, of another type or outside of the window: none of them."""
    tenant = f"usage-{uuid4().hex[:10]}"
    fares = Meter(f"fares-{tenant}", "ride", f"ride-{tenant}", "sum", "rides", ("city",))
    client = connect_clickhouse(settings)
    events = [
        ("e1", "2026-10-05T10:00:07", '{"rides": 1, "city": "ulm", "price": 12.50}', 10),
        ("e2", "2026-10-05T10:00:08", '{"rides": "2", "price": "7.125"}', 11),
        ("voided", "2026-10-05T10:01:00", '{"rides": 4, "price": "1"}', 12),
        ("early", "2026-10-05T10:02:00", '{"rides": 8, "price": "1"}', 4),
        ("november", "2026-11-01T00:00:00", '{"rides": 16, "price": "1"}', 13),
        ("odd", "2026-10-06T00:00:00", '{"rides": 32, "price": "much"}', 14),
    ]
    columns = [
        "tenant", "source", "id", "type", "customer", "time", "data", "received_at", "source_partition",
        "source_offset", "source_index", "version",
    ]  # fmt: skip
    rows = [
        [tenant, "app", name, fares.event_type, "", at(when), data, at("2026-10-07"), 0, offset, 0, 1]
        for name, when, data, offset in events
    ]
    client.insert("usage_events", rows, column_names=columns, settings=INSERT_SETTINGS)
    correction = [tenant, "app", "voided", "void", "desk", "c1", "", at("2026-10-05"), at("2026-10-05"),
                  at("2026-10-07"), 0, 15, 0, 1]  # fmt: skip
    names = [
        "tenant", "target_source", "target_id", "kind", "source", "id", "reason", "range_start", "range_end",
        "received_at", "source_partition", "source_offset", "source_index", "version",
    ]  # fmt: skip
    client.insert("usage_corrections", [correction], column_names=names, settings=INSERT_SETTINGS)
    activation = ["meter", "source_partition", "first_offset", "version"]
    client.insert("meter_activations", [[fares.meter_id, 0, 5, 1]], column_names=activation, settings=INSERT_SETTINGS)
    client.close()
    wanted = FineUsage(Grain.EVENT, fares.meter_id, "price")
    async with open_usage(settings) as usage:
        found = (await usage.reader.fine_usage(tenant, OCTOBER, [wanted], meters={fares.meter_id: fares}))[wanted]
    assert [(entry.quantity, entry.dimensions, entry.amount) for entry in found] == [
        (Decimal(1), (("city", "ulm"),), Decimal("12.50")),
        (Decimal(2), (), Decimal("7.125")),
        (Decimal(32), (), None),
    ]
