"""A ClickHouse that restarts, refuses, hangs, fails, or leaves it open whether it has stored the rows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.chaos.proxy import clickhouse_refusal
from tests.chaos.row import Row
from tests.chaos.scenarios.registry import row

TOO_MANY_PARTS = clickhouse_refusal(252, "TOO_MANY_PARTS", "Too many parts (3000 with average size of 1.00 KiB)")
MEMORY_LIMIT = clickhouse_refusal(241, "MEMORY_LIMIT_EXCEEDED", "Memory limit (total) exceeded")
BROKEN = clickhouse_refusal(1000, "POCO_EXCEPTION", "Poco::Exception. Code: 1000")


@row("F11", "ClickHouse restarted, refusing, hanging, failing, cut off before its answer")
async def clickhouse_away(row: Row) -> None:
    proxy = row.world.proxies["clickhouse"]
    seconds = row.dose(2, 30)
    cuts = row.dose(3, 20)

    async def restart() -> None:
        await asyncio.to_thread(row.world.engines["clickhouse"].kill)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(row.world.engines["clickhouse"].start)

    async def refuse() -> None:
        proxy.set("refuse")
        await asyncio.sleep(seconds)
        proxy.set("pass")

    async def hang() -> None:
        proxy.set("stall")
        await asyncio.sleep(seconds)
        proxy.set("pass")

    async def fail() -> None:
        proxy.set("answer", answer=BROKEN)
        await asyncio.sleep(seconds)
        proxy.set("pass")

    async def cut() -> None:
        before = proxy.injected
        proxy.set("cut_answer", times=cuts)

        async def all_cut() -> bool:
            return proxy.injected - before >= cuts

        await row.wait_for(all_cut, f"{cuts} answers to be cut off", 120)
        row.fault(cuts - 1)
        proxy.set("pass")

    await _under_load(row, [restart, refuse, hang, fail, cut])


@row("F12", "ClickHouse with too many parts, or out of memory")
async def clickhouse_full(row: Row) -> None:
    proxy = row.world.proxies["clickhouse"]

    def refused(answer: bytes) -> Callable[[], Awaitable[None]]:
        async def refuse() -> None:
            before = proxy.injected
            proxy.set("answer", answer=answer)
            await asyncio.sleep(row.dose(2, 30))
            row.must(proxy.injected > before, "nothing was refused")
            proxy.set("pass")

        return refuse

    await _under_load(row, [refused(TOO_MANY_PARTS), refused(MEMORY_LIMIT)])


async def _under_load(row: Row, faults: list[Callable[[], Awaitable[None]]]) -> None:
    traffic = row.traffic(corrections=0.02, twins=0.005)
    row.clickhouse_was_away = True
    await row.send(traffic.records(200))
    await row.caught_up()
    worker = row.fleet.the("warehouse")
    before = worker.rss_mb
    highest = before
    for fault in faults:
        async with row.load(row.dose(600, 20_000), traffic=traffic):
            await asyncio.sleep(0.2)
            await fault()
            row.fault()
            highest = max(highest, worker.rss_mb)
        row.healed()
        if row.full:
            await row.settle()
    await row.settle()
    row.must(worker.is_running, "the warehouse agent ended, where it should have waited")
    row.must(highest - before <= 200, f"the warehouse agent grew from {before:.0f} to {highest:.0f} MB")
    row.note(f"the warehouse agent grew from {before:.0f} to {highest:.0f} MB")
