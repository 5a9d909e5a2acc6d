"""How long a live quota read takes, in the library and at the API; and a hold, and a lane's start. `-m` to run.

Prints percentiles in milliseconds, and processor time of the calling process per call, which other work on the machine
disturbs less. The library's reads are one after another, as a caller feels them; the API's too,
over a kept connection to a server process of its own. Valkey and PostgreSQL are the embedded ones.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import uvloop

from core.calendar import UTC_MONTHS
from core.clock import SystemClock
from core.journal import FORMAT, JournalEntry, PeriodRow
from core.quantity import UNIT
from quotas.desk import QuotaDesk, open_quota_desk
from quotas.domain.reservation import HoldRequest
from quotas.domain.span import resolve_span
from runtime.kafka_topics import create_topics
from runtime.migrations import migrate
from runtime.postgres import create_pool
from runtime.redis import connect_redis
from runtime.registry import RegistryCache
from runtime.settings import Settings, load_settings
from runtime.stack import down, up
from streams.adapters.quota_book import QuotaBook
from streams.adapters.redis_quotas import RedisQuotas
from streams.domain.quota_totals import QuotaTotals, Total

TENANTS, METERS = 200, 5
SPANS = ("current_month", "current_year", "rolling:24h", "rolling:7d", "rolling:744h")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--reads", type=int, default=3_000)
    arguments.add_argument("--entries", type=int, default=20_000, help="journal entries of the lane's start")
    given = arguments.parse_args()
    home = Path(tempfile.mkdtemp(prefix="quota-reads-"))
    stack = up(home, progress=lambda line: None)
    try:
        settings = load_settings(home=stack.home, registry_refresh_seconds=60)
        migrate(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(create_topics(settings))
            runner.run(_fill(settings))
            runner.run(_library(settings, given.reads))
            runner.run(_api(settings, given.reads))
        _start_of_a_lane(given.entries, home)
    finally:
        down(home)
        shutil.rmtree(home, ignore_errors=True)


async def _fill(settings: Settings) -> None:
    now = datetime.now(UTC)
    with psycopg.connect(settings.postgres) as connection:
        for number in range(TENANTS):
            connection.execute(
                "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
                " VALUES (%s, 'n', 'e', 'DE', 'EUR', now())",
                (f"t{number}",),
            )
        for meter in range(METERS):
            connection.execute(
                "INSERT INTO meters (meter_id, unit, event_type, aggregation, value_property, created_at)"
                " VALUES (%s, 'call', 'e', 'sum', 'n', now())",
                (f"m{meter}",),
            )
        connection.execute(
            "INSERT INTO quota_limits SELECT tenant_id, meter_id, 1000000, true, 'call' FROM tenants, meters"
        )
    redis = connect_redis(settings.redis, timeout_s=10, connect_timeout_s=3)
    months = [f"{now.year}-{month:02}" for month in range(1, 13)]
    hours = [(now - timedelta(hours=number)).strftime("%Y-%m-%dT%H") for number in range(746)]
    for partition in range(settings.usage_partitions):
        writer = RedisQuotas(redis, partition)
        token = await writer.begin_filling()
        if partition == 0:
            for number in range(TENANTS):
                periods = months + (hours if number < 4 else hours[:30])
                await writer.write(
                    Total(f"t{number}", f"m{meter}", period, 0, UNIT + meter, 1, 1, 1)
                    for meter in range(METERS)
                    for period in periods
                )
        await writer.mark_progress(1, int(now.timestamp() * 1_000))
        await writer.mark_filled(token)
        await writer.mark_filled(token, hours=True)
    await redis.aclose()


async def _library(settings: Settings, reads: int) -> None:
    async with create_pool(settings) as pool, open_quota_desk(settings, pool) as desk:
        loaded = await RegistryCache(pool, SystemClock(), refresh_seconds=60).refresh()
        registry = loaded.registry
        meter = registry.by_id["m0"]
        for text in SPANS:
            span = resolve_span(text, UTC_MONTHS, datetime.now(UTC))

            async def read(number: int, span=span) -> None:  # type: ignore[no-untyped-def]
                [reading] = await desk.usage(f"t{number % 4}", [meter], span, UTC_MONTHS)
                assert reading.quantity
                assert not reading.is_stale

            await _measure(f"library: {text}", read, reads if "744" not in text else reads // 10)
        span = resolve_span("current_month", UTC_MONTHS, datetime.now(UTC))

        async def read_all(number: int) -> None:
            await desk.usage(f"t{number % TENANTS}", list(registry.meters), span, UTC_MONTHS)

        await _measure(f"library: current_month, {METERS} meters", read_all, reads)
        await _holds(desk, registry, reads)


async def _holds(desk: QuotaDesk, registry: object, reads: int) -> None:
    async def hold(number: int) -> None:
        request = HoldRequest(f"t{number % TENANTS}", "m1", Decimal(1), 30, f"{os.getpid()}-{number}")
        held = await desk.hold(request, registry)  # type: ignore[arg-type]
        await desk.release(held.reservation.reservation_id, tenant=request.tenant_id)

    await _measure("library: hold and release (4 PostgreSQL, 3 Redis)", hold, reads // 3)


async def _api(settings: Settings, reads: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ, "METERBOOK_HOME": str(settings.home), "METERBOOK_API_PORT": str(port),
        "METERBOOK_LOG_LEVEL": "ERROR",
    }  # fmt: skip
    server = subprocess.Popen([sys.executable, "-m", "runtime", "api"], env=environment)
    try:
        reader, writer = await _connect(port)
        for name, url in (
            ("usage/current, one meter", "/api/v1/usage/current?meter=m0&tenant_id=t{}"),
            ("usage/current, all meters", "/api/v1/usage/current?tenant_id=t{}"),
            ("usage/current, rolling:24h", "/api/v1/usage/current?meter=m0&period=rolling:24h&tenant_id=t{}"),
            ("entitlements", "/api/v1/entitlements/t{}/m0"),
        ):

            async def ask(number: int, url: str = url) -> None:
                # By hand: an HTTP client written in Python takes longer than the answer.
                writer.write(f"GET {url.format(number % 4)} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), head
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)

            await _measure(f"API: {name}", ask, reads)
        writer.close()
    finally:
        server.terminate()
        server.wait()


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    for _ in range(300):
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
    raise AssertionError("the API did not start")


async def _measure(name: str, call: Callable[[int], Awaitable[None]], times: int) -> None:
    for number in range(50):
        await call(1_000_000 + number)
    took = []
    cpu = time.process_time()
    for number in range(times):
        began = time.perf_counter()
        await call(number)
        took.append((time.perf_counter() - began) * 1_000)
    own_ms = (time.process_time() - cpu) / times * 1_000
    took.sort()
    p50, p99, p999 = (took[min(len(took) - 1, int(len(took) * share))] for share in (0.5, 0.99, 0.999))
    print(
        f"{name:<52} p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  p99.9 {p999:6.2f} ms  processor {own_ms:5.2f} ms  ({times})",
        flush=True,
    )


def _start_of_a_lane(entries: int, home: Path) -> None:
    """Replay journal entries into a book, and open the book again."""
    book = QuotaBook(home / "bench.sqlite")
    totals = QuotaTotals(book)
    month, hour = "2026-10", "2026-10-31T07"
    made = [
        JournalEntry(
            FORMAT, -1, 0, 0, "w", 1, 1 + offset, 1, 0, 0, b"", b"", b"", [],
            [
                PeriodRow(f"t{(offset + n) % 5_000}", "m", period, 0, str(offset * UNIT), 1)
                for n in range(20)
                for period in (month, hour)
            ],
            [], [], [], [], {}, {"m": "sum"}, {}, 0,
        )
        for offset in range(entries)
    ]  # fmt: skip
    began = time.perf_counter()
    for offset, entry in enumerate(made):
        totals.apply(offset, entry)
        if offset % 1_000 == 999:
            book.put(totals.take_changed())
            book.commit(offset, 1, b"")
    replayed = time.perf_counter() - began
    book.close()
    began = time.perf_counter()
    again = QuotaBook(home / "bench.sqlite")
    QuotaTotals(again, again.announced())
    opened = time.perf_counter() - began
    again.close()
    print(f"{'quota lane: replay':<52} {entries / replayed:,.0f} entries/s of 40 period rows each")
    print(f"{'quota lane: start from its book (10,000 totals)':<52} {opened * 1_000:.0f} ms")


if __name__ == "__main__":
    main()
