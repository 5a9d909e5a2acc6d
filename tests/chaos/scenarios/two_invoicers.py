"""Two schedulers and two invoicing workers at once, one of them killed: each invoice exactly once."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import psycopg

from catalogues.commands import apply_files
from catalogues.load_catalogue import CatalogueFile
from subscriptions.commands import add_tenant
from subscriptions.domain.tenant import Tenant
from tests.chaos import observed
from tests.chaos.fleet import ROOT
from tests.chaos.oracle import Almanac
from tests.chaos.row import Row
from tests.chaos.scenarios.registry import row
from tests.chaos.traffic import RUN

PLAN = """
plans:
  chaos:
    name: Chaos
    currency: EUR
    charges:
      - {id: base, name: Base fee, model: flat, recurring: {interval: month}, flat_amount: "10"}
      - {id: runs, name: Runs, meter: chaos_runs, model: per_unit, unit_amount: "0.125"}
"""
BASE, PRICE = Decimal(10), Decimal("0.125")


@row("F28", "two invoice runs and two invoicing workers at once: each invoice once, no gap")
async def two_invoicers(row: Row) -> None:
    world = row.world
    await apply_files(world.settings, [CatalogueFile("chaos.yaml", PLAN.encode())])
    first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    month_start = (first - timedelta(days=1)).replace(day=1)
    period = f"{month_start:%Y-%m}"
    tenants = [f"f28-{row.seed}-{number}" for number in range(row.dose(12, 200))]
    for tenant in tenants:
        record = Tenant(tenant, tenant, "billing@example.com", "DE", "EUR")
        await add_tenant(world.settings, record, "chaos", overrides={}, started_at=month_start - timedelta(days=40))
        world.almanacs[tenant] = Almanac()
    row.tenants += tenants
    traffic = row.traffic(tenants)
    middle = first - timedelta(days=12)
    await row.send(
        [
            traffic.single(
                traffic.event(tenant, kind=RUN, at=middle + timedelta(seconds=traffic.rng.random() * 86_400))
            )
            for tenant in tenants
            for _ in range(traffic.rng.randrange(1, 40))
        ]
    )
    await row.caught_up()
    workers = [row.fleet.start(name, "worker", "invoicing") for name in ("invoicing", "invoicing")]
    runs = [asyncio.to_thread(_run, row, period) for _ in range(2)]
    running = asyncio.gather(*runs)
    await asyncio.sleep(row.dose(1.5, 3.0))
    workers[0].kill()
    row.fault(3)
    told = await running
    row.healed()

    async def all_invoiced() -> bool:
        return len(await asyncio.to_thread(_invoices, row, period)) >= len(tenants)

    await row.wait_for(all_invoiced, "every invoice", 120)
    told.append(await asyncio.to_thread(_run, row, period))  # once more: nothing is left to bill
    await row.wait_for(lambda: _all_read(row), "every request to be handled", 60)
    for worker in row.fleet.running("invoicing"):
        code, seconds = await asyncio.to_thread(row.fleet.terminate, worker)
        row.must(code == 0, f"an invoicing worker ended with {code} after {seconds:.1f} s")
    await row.settle()
    found = await asyncio.to_thread(_invoices, row, period)
    _judge(row, found, tenants, period)
    row.must(all(len(one["requested"]) == len(tenants) for one in told), "a run did not ask for every tenant")
    row.note(f"{len(found)} invoices, numbers {found[0][1]} to {found[-1][1]}" if found else "no invoices")


def _judge(row: Row, found: list[Any], tenants: list[str], period: str) -> None:
    runs = row.expected().periods
    wanted = {}
    for tenant in tenants:
        used = runs[tenant, "chaos_runs", period][0]
        wanted[tenant] = BASE + (used * PRICE).quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)
    by_tenant: dict[str, list[Decimal]] = {tenant: [] for tenant in tenants}
    for tenant, _, subtotal in found:
        by_tenant.setdefault(tenant, []).append(subtotal)
    row.verdict.lost += sum(1 for totals in by_tenant.values() if not totals)
    row.verdict.doubled += sum(len(totals) - 1 for totals in by_tenant.values() if len(totals) > 1)
    wrong = {t: (wanted.get(t), totals) for t, totals in by_tenant.items() if totals != [wanted.get(t)]}
    row.must(not wrong, f"invoices that are not as worked out by hand: {dict(list(wrong.items())[:3])}")
    numbers = [int(number.rpartition("-")[2]) for _, number, _ in found]
    row.must(numbers == list(range(1, len(found) + 1)), f"invoice numbers have gaps or repeat: {numbers}")


def _run(row: Row, period: str) -> Any:
    """Run `meterbook invoice run` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "runtime", "invoice", "run", "--period", period, "--wait", "60", "--json"],
        env={**_plain_environment(), **row.fleet.environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def _plain_environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("METERBOOK_")}
    return {**own, "PYTHONPATH": str(Path(ROOT))}


def _invoices(row: Row, period: str) -> list[Any]:
    with psycopg.connect(row.world.urls.postgres) as connection:
        return connection.execute(
            "SELECT tenant_id, number, subtotal FROM invoices WHERE to_char(period_start, 'YYYY-MM') = %s"
            " AND number IS NOT NULL ORDER BY length(number), number",
            (period,),
        ).fetchall()


async def _all_read(row: Row) -> bool:
    left = await observed.unread(row.world.urls.kafka, ["invoicing"])
    return left["invoicing"] == 0
