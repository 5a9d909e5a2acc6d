"""Explaining and simulating on the real engines: usage as the stream writes it, invoices, and what came after."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import typer
from typer.testing import CliRunner

from catalogues.commands import apply_files
from catalogues.load_catalogue import CatalogueFile, load_catalogue, shipped_files
from core.clock import ManualClock
from core.messages import InvoicingRequest
from core.meters import Registry
from invoicing.adapters.clickhouse import ClickHouseUsage
from invoicing.adapters.postgres_books import PostgresBooks
from invoicing.domain.explanation import Explanation, Outcome
from invoicing.domain.invoice import Invoice
from invoicing.domain.stored_invoice import read_reference
from invoicing.explain_command import explain, run_explain
from invoicing.invoice_period import invoice_period
from rating.adapters.postgres_history import PostgresHistory
from rating.domain.other_prices import OtherPrices
from rating.domain.price_comparison import Totals
from rating.simulate_command import create_command
from rating.simulate_everyone import Task, csv_header, simulate_everyone
from rating.simulate_prices import Question
from runtime.clickhouse import INSERT_SETTINGS, connect_clickhouse
from runtime.postgres import create_pool
from runtime.processes.price_book import read_price_book
from runtime.settings import Settings
from streams.domain.warehouse_rows import COLUMNS, event_rows, journal_rows, source_range
from subscriptions.commands import add_tenant
from subscriptions.domain.tenant import Tenant
from tests.invoicing.explaining import failed
from tests.invoicing.scene import TERMS, at
from tests.rating.plans import SHIPPED
from tests.streams.in_memory import Record, count, log_of, partition_in_memory

pytestmark = pytest.mark.integration
PLANS = """
catalogue: explained
meters:
  disk: {unit: GB-month, event_type: disk.level, aggregation: time_weighted, weight_per: month, value_property: gb,
         dimensions: [class]}
  peak: {unit: u, event_type: probe, aggregation: max, value_property: v, dimensions: [site]}
  low: {unit: u, event_type: probe, aggregation: min, value_property: v, dimensions: [site]}
  last: {unit: u, event_type: probe, aggregation: latest, value_property: v, dimensions: [site]}
  mean: {unit: u, event_type: probe, aggregation: average, value_property: v, dimensions: [site]}
  held: {unit: u, event_type: probe, aggregation: time_weighted, weight_per: hour, value_property: v,
         dimensions: [site]}
  kinds: {unit: u, event_type: probe, aggregation: unique, value_property: v, dimensions: [site]}
plans:
  probed:
    name: Probed
    currency: USD
    charges:
      - {id: peak, name: Peak, model: per_unit, meter: peak, unit_amount: "0.01"}
      - {id: low, name: Low, model: per_unit, meter: low, unit_amount: "0.01"}
      - {id: last, name: Last, model: per_unit, meter: last, unit_amount: "0.01"}
      - {id: mean, name: Mean, model: matrix, meter: mean, dimension: site, unit_amount: "0.01"}
      - {id: held, name: Held, model: per_unit, meter: held, unit_amount: "0.0001"}
      - {id: kinds, name: Kinds, model: per_unit, meter: kinds, unit_amount: "0.01"}
      - {id: own, name: Own, model: dynamic, meter: network_egress, amount_property: price}
      - {id: night, name: Night, model: scheduled, meter: cpu, unit_amount: "0.05",
         windows: [{from: "22:00", to: "06:00", unit_amount: "0.02"}]}
  measured:
    name: Measured
    currency: USD
    charges:
      - {id: base, name: Base, model: flat, flat_amount: "31"}
      - {id: cpu, name: CPU, model: per_unit, meter: cpu, unit_amount: "0.05"}
      - {id: disk, name: Disk, model: matrix, meter: disk, dimension: class, unit_amounts: {hot: "0.15"},
         unit_amount: "0.10"}
      - {id: users, name: Users, model: per_unit, meter: active_users, unit_amount: "2"}
      - {id: requests, name: Requests, model: graduated, meter: api_requests,
         tiers: [{up_to: "10", unit_amount: "0.5"}, {up_to: inf, unit_amount: "0.25"}]}
  dearer:
    name: Dearer
    currency: USD
    charges:
      - {id: base, name: Base, model: flat, flat_amount: "40.01"}
      - {id: cpu, name: CPU, model: per_unit, meter: cpu, unit_amount: "0.0725"}
      - {id: floor, name: Floor, model: minimum, minimum_amount: "55"}
"""


METERS = {
    meter.meter_id: meter
    for meter in load_catalogue([CatalogueFile("explained.yaml", PLANS.encode())], SHIPPED.meters).meters
}
METERS |= {meter.meter_id: meter for meter in SHIPPED.meters}


class Warehouse:
    """Events as the stream judges them, and as its warehouse agent writes them."""

    def __init__(self, settings: Settings) -> None:
        self.client = connect_clickhouse(settings)
        self.state, self.log = partition_in_memory(), list[Record]()
        self.tenants: set[str] = set()

    def send(self, received: str, *values: bytes) -> None:
        """Let records arrive in one micro-batch."""
        stamp = int(at(received).timestamp() * 1_000)
        records = [Record(len(self.log) + n, stamp, None, value) for n, value in enumerate(values)]
        self.log += records
        registry = Registry.of(self.tenants, METERS.values())
        batch = count(self.state, records, registry, log_of(self.log))
        covered = source_range(0, batch.entry)
        assert not covered.refused, batch.entry.refused
        self._insert("usage_events", [row for record in records for row in event_rows(covered, record)])
        for table, rows in journal_rows(0, records[0].offset, batch.entry).items():
            self._insert(table, rows)

    def _insert(self, table: str, rows: list[list[Any]]) -> None:
        if rows:
            self.client.insert(table, rows, column_names=COLUMNS[table], settings=INSERT_SETTINGS)


def event(tenant: str, event_id: str, meter_id: str, value: Any, time: str, **dimensions: str) -> bytes:
    meter = METERS[meter_id]
    data = {**dimensions, **({meter.value_property: value} if meter.value_property else {})}
    return cloud_event(tenant, event_id, meter.event_type, data, time)


def void(tenant: str, event_id: str, target: str, time: str) -> bytes:
    data = {"corrects": {"source": "node", "id": target}, "reason": "twice"}
    return cloud_event(tenant, event_id, "meterbook.usage.void", data, time)


def cloud_event(tenant: str, event_id: str, kind: str, data: dict[str, Any], time: str) -> bytes:
    body = {"specversion": "1.0", "id": event_id, "source": "node", "type": kind, "subject": tenant, "time": f"{time}Z"}
    return json.dumps({**body, "data": data}).encode()


class Desk:
    """Tenants, their usage, their invoices, and the questions asked about them."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.warehouse = settings, Warehouse(settings)
        self.rollups = ClickHouseUsage(settings)

    async def subscribe(self, plan: str, started: str = "2026-09-01") -> str:
        tenant_id = f"{plan}-{uuid4().hex[:10]}"
        tenant = Tenant(tenant_id, "Acme", "billing@example.com", "DE", "USD")
        await add_tenant(self.settings, tenant, plan, overrides={}, started_at=at(started))
        self.warehouse.tenants.add(tenant_id)
        return tenant_id

    async def bill(self, tenant_id: str, now: str) -> list[Invoice]:
        request = InvoicingRequest(
            tenant_id=tenant_id, period="2026-10", run_id="run", requested_at="2026-11-03T00:00:00Z"
        )
        async with create_pool(self.settings, max_size=2) as pool:
            return await invoice_period(
                request, books=PostgresBooks(pool), usage=self.rollups, terms=TERMS, clock=ManualClock(at(now))
            )

    async def explain(self, line: str, *, whole: bool = False, events: Path | None = None) -> list[Explanation]:
        reference = read_reference(line, whole=whole)
        return [one.explanation for one in await run_explain(self.settings, reference, events)]

    async def simulate(
        self, other: OtherPrices, tenants: list[str], processes: int = 1, chunk: int = 2
    ) -> tuple[dict[str, dict[str, str]], Totals]:
        async with create_pool(self.settings, max_size=1) as pool:
            history = PostgresHistory(pool)
            documents, meters = await history.plans(), await history.meters()
        question = Question(date(2026, 10, 1), date(2026, 10, 1), datetime.now(UTC), other)
        written = [csv_header()]
        totals = await simulate_everyone(
            Task(self.settings, question, documents, meters),
            only=tenants,
            processes=processes,
            write=written.append,
            chunk=chunk,
        )
        return {row["tenant"]: row for row in csv.DictReader(io.StringIO("".join(written)))}, totals


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    await apply_files(settings, shipped_files())
    await apply_files(settings, [CatalogueFile("explained.yaml", PLANS.encode())])
    desk = Desk(settings)
    yield desk
    desk.warehouse.client.close()
    await desk.rollups.close()


@contextmanager
def somebodys_hand(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's own connection, past all guards."""
    with psycopg.connect(settings.postgres, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        yield connection


def use_october(desk: Desk, tenant: str) -> None:
    """Let October's usage of every kind of meter come in."""
    desk.warehouse.send(
        "2026-10-10T10:20",
        event(tenant, "c1", "cpu", "100.5", "2026-10-10T10:15:00"),
        event(tenant, "c2", "cpu", 40, "2026-10-10T09:15:00"),
        event(tenant, "r1", "api_requests", 25, "2026-10-09T23:59:59.999999", endpoint="/a", method="GET"),
        event(tenant, "u1", "active_users", "ann", "2026-10-10T10:00:00"),
        event(tenant, "u2", "active_users", "ben", "2026-10-10T10:00:01"),
        event(tenant, "u3", "active_users", "ann", "2026-10-10T10:00:02"),
    )
    desk.warehouse.send(
        "2026-10-16T00:30",
        event(tenant, "s1", "disk", "62", "2026-10-16T00:00:00", **{"class": "hot"}),
        void(tenant, "x1", "c2", "2026-10-16T00:10:00"),
    )


async def test_a_line_is_explained_before_and_after_what_happens_to_it(desk: Desk, tmp_path: Path) -> None:
    tenant = await desk.subscribe("measured")
    use_october(desk, tenant)
    (invoice,) = await desk.bill(tenant, "2026-11-03")
    # 31 + 100.5 × 0.05 (5.025) + 62 × 16/31 × 0.15 + 2 × 2 + 10 × 0.5 + 15 × 0.25
    assert invoice.total == Decimal("53.58")
    found = await desk.explain(invoice.number, whole=True)
    assert [(one.line.charge_id, one.outcome, failed(one)) for one in found] == [
        (one.line.charge_id, Outcome.EQUAL, []) for one in found
    ]
    assert {one.line.charge_id for one in found} == {"base", "cpu", "disk", "users", "requests"}
    for one in found:
        assert one.then == one.now
        assert one.now.bills_like(one.rollups)
        assert not one.line.meter_id or one.then.usage_digest == one.now.usage_digest
    cpu = next(one for one in found if one.line.charge_id == "cpu")
    name = f"{invoice.number}/{cpu.position}"

    desk.warehouse.send("2026-11-05T12:00", event(tenant, "c3", "cpu", 3, "2026-10-31T23:58:00"))
    (late,) = await desk.explain(name, events=tmp_path / "events.csv")
    assert (late.outcome, failed(late), late.owed) == (Outcome.DIFFERS, ["nothing_since"], Decimal("0.15"))
    assert (late.changes.late, [one.event.event_id for one in late.changes.first]) == (1, ["c3"])
    rows = list(csv.DictReader((tmp_path / "events.csv").open()))
    assert {(row["id"], row["state"], row["quantity"]) for row in rows} == {
        ("c1", "billed", "100.5"), ("c3", "late", "3"),
    }  # fmt: skip
    (second,) = await desk.bill(tenant, "2026-11-06")
    assert second.total == Decimal("0.15")  # 103.5 × 0.05 = 5.175, half up 5.18, less 5.03
    (again,) = await desk.explain(name)
    assert (again.outcome, again.later_invoices) == (Outcome.EQUAL, (second.number,))
    desk.warehouse.send("2026-11-07T12:00", void(tenant, "x2", "c1", "2026-11-07T11:00:00"))
    (less,) = await desk.explain(name)
    assert (failed(less), less.changes.taken_out, less.owed) == (["nothing_since"], 1, Decimal("-5.03"))

    users = next(one for one in found if one.line.charge_id == "users")
    name = f"{invoice.number}/{users.position}"
    with somebodys_hand(desk.settings) as connection:
        where = (invoice.draft.invoice_id, users.position)
        connection.execute("UPDATE invoice_lines SET amount = 40 WHERE invoice_id = %s AND position = %s", where)
        (tampered,) = await desk.explain(name)
        assert failed(tampered) == [
            "line_as_printed", "lines_add_up", "rounded_once", "taxes_add_up", "billed_as_derived", "nothing_since",
        ]  # fmt: skip
        connection.execute("UPDATE invoice_lines SET amount = 4 WHERE invoice_id = %s AND position = %s", where)
        was = "plan_id = 'measured' AND version = 1"
        connection.execute(
            f"UPDATE plan_versions SET document = jsonb_set(document, '{{charges,3,unit_amount}}', '\"3\"') WHERE {was}"
        )
        (altered,) = await desk.explain(name)
        assert failed(altered) == ["plan_intact", "billed_as_derived", "nothing_since"]
        assert altered.owed == Decimal(2)  # 2 × 3 - 2 × 2
        connection.execute(
            f"UPDATE plan_versions SET document = jsonb_set(document, '{{charges,3,unit_amount}}', '\"2\"') WHERE {was}"
        )
    assert (await desk.explain(name))[0].outcome is Outcome.EQUAL


async def test_every_kind_of_meter_gives_the_digest_noted_on_the_line(desk: Desk) -> None:
    tenant, dice = await desk.subscribe("probed"), random.Random(8)
    for day in (1, 11, 21):
        values = []
        for number in range(60):
            time = f"2026-10-{day + number % 10:02}T{dice.randrange(24):02}:{dice.randrange(60):02}:07.25"
            site, value = dice.choice(("eu", "us", "")), str(Decimal(dice.randrange(10**9)).scaleb(-5))
            body = {"v": value, **({"site": site} if site else {})}
            values.append(cloud_event(tenant, f"p{day}-{number}", "probe", body, time))
            values.append(event(tenant, f"c{day}-{number}", "cpu", value, time))
            values.append(event(tenant, f"n{day}-{number}", "network_egress", 1, time, price=f"0.{number:02}5"))
        desk.warehouse.send(f"2026-10-{day + 10:02}T00:00", *values)
    (invoice,) = await desk.bill(tenant, "2026-11-03")
    found = await desk.explain(invoice.number, whole=True)
    assert {one.line.charge_id for one in found} == {
        "peak", "low", "last", "mean", "held", "kinds", "night", "own",
    }  # fmt: skip
    for one in found:
        assert (one.line.charge_id, failed(one)) == (one.line.charge_id, [])
        assert one.billed.usage_digest == one.then.usage_digest == one.now.usage_digest == one.rollups.usage_digest
        assert one.then.steps == one.rollups.steps


async def test_ones_own_plan_is_no_change_and_a_dearer_one_is_its_invoices(desk: Desk, tmp_path: Path) -> None:
    tenants = [await desk.subscribe("measured", started) for started in ("2026-09-01", "2026-10-11", "2026-10-20")]
    twins = [await desk.subscribe("dearer", started) for started in ("2026-09-01", "2026-10-11", "2026-10-20")]
    for number, tenant in enumerate([*tenants, *twins]):
        cpu = str(Decimal("333.37") * (number % 3 + 1))
        desk.warehouse.send("2026-10-25T10:00", event(tenant, f"c{number}", "cpu", cpu, "2026-10-25T09:15:00"))
    use_october(desk, tenants[0])
    same, totals = await desk.simulate(OtherPrices(plan=("measured", 1)), tenants)
    assert {row["difference"] for row in same.values()} == {"0.00"}
    assert totals.by_currency["USD"].unchanged == 3
    (invoice,) = await desk.bill(tenants[1], "2026-11-03")
    dearer, totals = await desk.simulate(OtherPrices(plan=("dearer", 1)), tenants)
    assert (dearer[tenants[1]]["billed"], dearer[tenants[1]]["present"]) == (f"{invoice.total:f}",) * 2
    for tenant, twin in zip(tenants, twins, strict=True):
        if tenant != tenants[0]:
            (twins_own,) = await desk.bill(twin, "2026-11-03")
            assert Decimal(dearer[tenant]["new"]) == twins_own.total
    assert {key[0] for key in totals.unpriced} == {"disk", "active_users", "api_requests"}
    assert await desk.simulate(OtherPrices(plan=("dearer", 1)), tenants, processes=2, chunk=1) == (dearer, totals)


@pytest.fixture
def command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setenv("METERBOOK_HOME", str(settings.home))
    app = typer.Typer()
    app.command(name="explain")(explain)
    app.command(name="simulate")(create_command(read_price_book))
    return app


async def test_at_the_terminal(desk: Desk, command: typer.Typer, tmp_path: Path) -> None:
    tenant = await desk.subscribe("measured")
    desk.warehouse.send("2026-10-25T10:00", event(tenant, "c1", "cpu", "100.5", "2026-10-25T09:15:00"))
    (invoice,) = await desk.bill(tenant, "2026-11-03")
    results = await run_commands(command, tmp_path, tenant, invoice.number)
    assert [result.exit_code for result in results] == [0, 0, 0, 2, 2, 0, 0, 2, 2, 2, 2]
    assert "EQUAL" in results[0].output
    assert json.loads(results[1].stdout)["outcome"] == "equal"
    assert "every line of" in results[2].output
    assert "refused: LINE:" in results[3].output
    assert "not_found" in results[4].output
    assert (
        json.loads(results[5].stdout)["currencies"]["USD"]["difference"] == "18.97"
    )  # 40.01 + 7.29 topped up to 55, less 31 + 5.03
    assert results[6].output.count("would pay more") == 1
    for result, code in zip(
        results[7:], ("unknown_plan", "unknown_tenant", "period_not_over", "unknown_meter"), strict=True
    ):
        assert code in result.output


async def run_commands(command: typer.Typer, folder: Path, tenant: str, number: str) -> list[Any]:
    book = folder / "book.yaml"
    book.write_text(
        "catalogue: book\nplans:\n  dear:\n    name: D\n    currency: USD\n    charges:\n"
        "      - {id: x, name: X, model: per_unit, meter: nonsense, unit_amount: '1'}\n"
    )
    period = ["--period", "2026-10", "--tenant", tenant]
    calls = [
        ["explain", f"{number}/2"],
        ["explain", f"{number}/2", "--json"],
        ["explain", number, "--all"],
        ["explain", number],
        ["explain", "MB-1999-000001/1"],
        ["simulate", "--plan", "dearer", "--json", *period],
        ["simulate", "--set", "cpu.unit_amount=0.06", "--csv", str(folder / "rows.csv"), *period],
        ["simulate", "--plan", "nonsense", *period],
        ["simulate", "--plan", "dearer", "--period", "2026-10", "--tenant", "nobody"],
        ["simulate", "--plan", "dearer", "--period", "2099-01"],
        ["simulate", "--price-book", str(book), *period],
    ]
    import asyncio

    runner = CliRunner()
    return [await asyncio.to_thread(runner.invoke, command, call) for call in calls]
