"""Load that is anything but even: one tenant with most of it, very many tenants, very many distinct values."""

from __future__ import annotations

import asyncio

from tests.chaos.row import Row
from tests.chaos.scenarios.registry import row


@row("F30", "a hot tenant of 80 %, thousands of tenants, very many distinct users")
async def skew(row: Row) -> None:
    tenants = await asyncio.to_thread(row.new_tenants, row.dose(1_000, 10_000))
    traffic = row.traffic(tenants, hot=0.8, users=1_000_000)
    before = {name: row.fleet.the(name).rss_mb for name in ("meter", "quota", "warehouse")}
    async with row.load(row.dose(4_000, 200_000), traffic=traffic):
        pass
    row.fault()
    row.healed()
    await row.settle()
    grown = {name: row.fleet.the(name).rss_mb - rss for name, rss in before.items()}
    row.note("memory grew by " + ", ".join(f"{mb:.0f} MB ({name})" for name, mb in grown.items()))
    for name, mb in grown.items():
        row.must(mb < row.dose(300, 1_000), f"{name} grew by {mb:.0f} MB")
