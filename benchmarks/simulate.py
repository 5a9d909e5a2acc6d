"""How fast `meterbook simulate` is, and its memory: `python -m benchmarks.simulate`; 1 million: `--tenants 250000`.

Tenants, subscriptions (three plans of the shipped tiers, begun on different days) and rollups are made by statements
inside the engines; what is measured is the product's own way from there: subscriptions from PostgreSQL, usage from
ClickHouse in chunks of tenants, both sides rated, a CSV row per tenant-month. Each tenant-month has 6 meters with
`--rollups` rows each: real history has more rows, which makes ClickHouse's share larger and the rest no slower.
The engines share the machine. `cpu` is processor time of the simulating processes alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shutil
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg

from catalogues.commands import apply_files
from catalogues.load_catalogue import shipped_files
from rating.adapters.postgres_history import PostgresHistory
from rating.domain.other_prices import OtherPrices
from rating.simulate_everyone import Task, csv_header, simulate_everyone
from rating.simulate_prices import Question
from runtime.clickhouse import connect_clickhouse
from runtime.migrations import migrate
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings
from runtime.stack import down, up

_FIRST = date(2026, 1, 1)
_PEOPLE = """
INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)
SELECT 't' || lpad(n::text, 8, '0'), 'T', 'b@example.invalid', 'US', 'USD', '2025-01-01'
FROM generate_series(1, %(n)s) n
"""
_SUBSCRIPTIONS = """
INSERT INTO subscriptions (subscription_id, tenant_id, plan_id, plan_version, started_at, recorded_at)
SELECT 'sub_' || n, 't' || lpad(n::text, 8, '0'), (ARRAY['shared', 'lite', 'enterprise'])[1 + n %% 3], 1,
       timestamptz '2025-01-01' + make_interval(days => n %% 300), '2025-01-01' FROM generate_series(1, %(n)s) n
"""
# 6 meters by (tenant, month, rollup): quantities and minutes by a hash, so that every run makes the same.
_ROLLUPS = """
INSERT INTO usage_rollups
WITH ['agent_executions', 'api_requests', 'cpu', 'memory', 'llm_input_tokens', 'llm_output_tokens'] AS meters,
     [40000, 3000000, 500, 900, 2000000, 1000000] AS sizes,
     number % 6 AS kind, intDiv(number, 6) % {rollups:UInt64} AS rollup,
     intDiv(number, 6 * {rollups:UInt64}) AS tenant_month, cityHash64(number) AS hash
SELECT concat('t', leftPad(toString(1 + intDiv(tenant_month, {months:UInt64})), 8, '0')), meters[kind + 1],
       multiIf(kind = 4, map('model', 'gpt4'), kind = 5, map('model', 'claude'), map()),
       addMinutes(addMonths(toDateTime('2026-01-01 00:00:00', 'UTC'), tenant_month % {months:UInt64}), hash % 40000),
       0, rollup, toDecimal128(hash % sizes[kind + 1], 12) + toDecimal128('0.25', 12), 10, 1
FROM numbers({from:UInt64}, {count:UInt64})
"""
_AT_ONCE = 12_000_000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tenants", type=int, default=25_000)
    arguments.add_argument("--months", type=int, default=4)
    arguments.add_argument("--rollups", type=int, default=4, help="rows per meter and tenant-month")
    arguments.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    given = arguments.parse_args()
    home = Path(tempfile.mkdtemp(prefix="simulate-"))
    up(home, progress=lambda line: None, external={"kafka", "redis"})
    try:
        settings = load_settings(home=home)
        migrate(settings)
        began = time.monotonic()
        _fill(settings, given.tenants, given.months, given.rollups)
        months = given.tenants * given.months
        took = time.monotonic() - began
        print(f"{months:,} tenant-months, {6 * given.rollups * months:,} rollups, made in {took:.0f} s")
        print(
            f"{'processes':>9}{'seconds':>9}{'tenant-months/s':>17}{'cpu s':>8}{'MiB in all':>12}{'CSV MiB':>9}  load"
        )
        for processes in given.processes:
            _measure(settings, home, given.months, months, processes)
    finally:
        down(home)
        shutil.rmtree(home, ignore_errors=True)


def _fill(settings: Settings, tenants: int, months: int, rollups: int) -> None:
    asyncio.run(apply_files(settings, shipped_files()))
    with psycopg.connect(settings.postgres) as connection:
        for statement in (_PEOPLE, _SUBSCRIPTIONS, "ANALYZE tenants", "ANALYZE subscriptions"):
            connection.execute(statement, {"n": tenants} if "%(n)s" in statement else None)
    client = connect_clickhouse(settings)
    everything = 6 * rollups * tenants * months
    for start in range(0, everything, _AT_ONCE):
        some = {"from": start, "count": min(_AT_ONCE, everything - start), "rollups": rollups, "months": months}
        client.command(_ROLLUPS, parameters=some)
    client.close()


def _measure(settings: Settings, home: Path, months: int, expected: int, processes: int) -> None:
    load = os.getloadavg()[0]
    before, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    rows, size = asyncio.run(_simulate(settings, home, months, processes))
    seconds = time.monotonic() - began
    after, gone = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    assert rows == expected, f"{rows} of {expected} tenant-months came out"
    cpu = sum(one.ru_utime + one.ru_stime for one in (after, gone))
    cpu -= sum(one.ru_utime + one.ru_stime for one in (before, children))
    # Of ended processes only the largest is known; each has at most that.
    memory = after.ru_maxrss + (gone.ru_maxrss * processes if processes > 1 else 0)
    print(
        f"{processes:>9}{seconds:>9.1f}{rows / seconds:>17,.0f}{cpu:>8.0f}{memory / 1024:>12.0f}"
        f"{size / 1024**2:>9.1f}  {load:.1f}",
        flush=True,
    )


async def _simulate(settings: Settings, home: Path, months: int, processes: int) -> tuple[int, int]:
    async with create_pool(settings, max_size=1) as pool:
        history = PostgresHistory(pool)
        documents, meters = await history.plans(), await history.meters()
    last = date(_FIRST.year, months, 1)
    question = Question(_FIRST, last, datetime.now(UTC), OtherPrices(plan=("lite", 1)))
    path = home / f"rows-{processes}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_header())
        task = Task(settings, question, documents, meters)
        totals = await simulate_everyone(task, only=(), processes=processes, write=file.write)
    return sum(found.sums.periods for found in totals.by_currency.values()), path.stat().st_size


if __name__ == "__main__":
    main()
