"""How fast invoices are made, without their PDFs, and what each step costs: `python -m benchmarks.invoicing`.

Tenants with a subscription of the shipped plan `lite` and a month of usage, `--hours` hours per meter (thirty: one a
day). What is measured is the consumer's own way from requests to committed invoices, in this
process; PostgreSQL and ClickHouse run beside it on the same machine. `alone` is a request by itself, as a person asks
for it and as a batch is taken up again that met trouble; `together` is how the consumer takes what lies on its topic.
`cpu ms` is processor time of this process per invoice: `per core` is what a core of it makes while it computes.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import uvloop

from catalogues.commands import apply_files
from catalogues.load_catalogue import shipped_files
from core.clock import ManualClock
from core.messages import InvoicingRequest
from invoicing.adapters.clickhouse import ClickHouseUsage
from invoicing.adapters.postgres_books import PostgresBooks
from invoicing.adapters.postgres_together import PostgresBooksTogether
from invoicing.invoice_period import invoice_period
from invoicing.invoice_together import invoice_together
from invoicing.load_terms import load_terms
from runtime.clickhouse import connect_clickhouse
from runtime.garbage import collect_seldom
from runtime.logs import configure_logs
from runtime.migrations import migrate
from runtime.postgres import create_pool
from runtime.processes.consumers import BATCHES
from runtime.settings import Settings, load_settings
from runtime.stack import down, up

_MONTH = "2026-09"
_NOW = datetime(2026, 10, 2, tzinfo=UTC)
_PEOPLE = """
INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)
SELECT 't' || lpad(n::text, 8, '0'), 'T', 'b@example.invalid', 'US', 'USD', '2025-01-01'
FROM generate_series(1, %(n)s) n
"""
_SUBSCRIPTIONS = """
INSERT INTO subscriptions (subscription_id, tenant_id, plan_id, plan_version, started_at, recorded_at)
SELECT 'sub_' || n, 't' || lpad(n::text, 8, '0'), 'lite', 1, '2026-09-01', '2026-09-01' FROM generate_series(1, %(n)s) n
"""
_ROLLUPS = """
INSERT INTO usage_rollups
WITH ['agent_executions', 'api_requests', 'cpu', 'memory', 'llm_input_tokens'] AS meters,
     [40000, 3000000, 500, 900, 2000000] AS sizes,
     number % {meters:UInt64} AS kind, intDiv(number, {meters:UInt64}) % {hours:UInt64} AS hour,
     intDiv(number, {meters:UInt64} * {hours:UInt64}) AS tenant
SELECT concat('t', leftPad(toString(1 + tenant), 8, '0')), meters[kind + 1],
       if(kind = 4, map('model', 'gpt4'), map()),
       addMinutes(toDateTime('2026-09-01 00:00:00', 'UTC'), intDiv(43200, {hours:UInt64}) * hour),
       0, hour, toDecimal128(1 + cityHash64(number) % sizes[kind + 1], 12), 10, 1
FROM numbers({count:UInt64})
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tenants", type=int, default=10_000)
    arguments.add_argument("--alone", type=int, default=500, help="invoices made one by one")
    arguments.add_argument("--at-once", type=int, default=100, help="tenants in a transaction")
    arguments.add_argument("--hours", type=int, default=30, help="hours of usage per meter")
    arguments.add_argument("--meters", type=int, default=3, choices=range(1, 6), help="meters with usage")
    arguments.add_argument("--profile", action="store_true", help="print where the time goes, by function")
    given = arguments.parse_args()
    home = Path(tempfile.mkdtemp(prefix="invoicing-"))
    up(home, progress=lambda line: None, external={"kafka", "redis"})
    try:
        settings = load_settings(home=home)
        configure_logs(settings, "invoicing")
        migrate(settings)
        collect_seldom(*BATCHES)
        _fill(settings, given.tenants, given.meters, given.hours)
        tenants = [f"t{n:08}" for n in range(1, given.tenants + 1)]
        print(f"{'way':<10}{'invoices':>9}{'lines':>7}{'/s':>7}{'cpu ms':>8}{'per core':>9}{'MiB':>6}  load")
        _measure(settings, "alone", tenants[: given.alone], given.profile, at_once=0)
        _measure(settings, "together", tenants[given.alone :], given.profile, at_once=given.at_once)
    finally:
        down(home)
        shutil.rmtree(home, ignore_errors=True)


def _fill(settings: Settings, tenants: int, meters: int, hours: int) -> None:
    asyncio.run(apply_files(settings, shipped_files()))
    with psycopg.connect(settings.postgres) as connection:
        for statement in (_PEOPLE, _SUBSCRIPTIONS, "ANALYZE tenants", "ANALYZE subscriptions"):
            connection.execute(statement, {"n": tenants} if "%(n)s" in statement else None)
    client = connect_clickhouse(settings)
    client.command(_ROLLUPS, parameters={"meters": meters, "hours": hours, "count": meters * hours * tenants})
    client.close()


def _measure(settings: Settings, way: str, tenants: Sequence[str], is_profiled: bool, *, at_once: int) -> None:
    load, before, began = os.getloadavg()[0], resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    profile = cProfile.Profile() if is_profiled else None
    if profile:
        profile.enable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        lines = runner.run(_invoice(settings, tenants, at_once))
    if profile:
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)
        pstats.Stats(profile).sort_stats("cumtime").print_stats(90)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    made = len(tenants)
    print(
        f"{way:<10}{made:>9,}{lines / made:>7.1f}{made / seconds:>7.0f}{cpu / made * 1000:>8.2f}{made / cpu:>9.0f}"
        f"{after.ru_maxrss / 1024:>6.0f}  {load:.1f}",
        flush=True,
    )


async def _invoice(settings: Settings, tenants: Sequence[str], at_once: int) -> int:
    clock, terms, usage = ManualClock(_NOW), load_terms(settings), ClickHouseUsage(settings)
    requests = [InvoicingRequest(tenant_id=one, period=_MONTH, run_id="run", requested_at="") for one in tenants]
    lines = 0
    async with create_pool(settings, max_size=2) as pool:
        books, together = PostgresBooks(pool), PostgresBooksTogether(pool)
        if at_once:
            for start in range(0, len(requests), at_once):
                some = requests[start : start + at_once]
                done = await invoice_together(some, books=together, usage=usage, terms=terms, clock=clock)
                assert not done.alone, f"{done.alone} were left out"
                lines += sum(len(one.draft.lines) for issued in done.invoices.values() for one in issued)
        else:
            for request in requests:
                made = await invoice_period(request, books=books, usage=usage, terms=terms, clock=clock)
                lines += sum(len(one.draft.lines) for one in made)
    await usage.close()
    return lines


if __name__ == "__main__":
    main()
