"""A network that holds everything back, resets connections, or leaves them half open."""

from __future__ import annotations

import asyncio

from tests.chaos.row import Row
from tests.chaos.scenarios.registry import row


@row("F15", "network stalled, reset mid-request and half open, to each dependency")
async def network(row: Row) -> None:
    proxies = row.world.proxies
    row.tolerated.add(1)
    traffic = row.traffic(corrections=0.02)
    groups = row.dose([list(proxies)], [*([name] for name in proxies), list(proxies)])
    for names in groups:
        async with row.load(row.dose(1_500, 10_000), traffic=traffic):
            await asyncio.sleep(0.3)
            for name in names:
                proxies[name].set("stall")
            row.fault(len(names))
            await asyncio.sleep(row.dose(3, 30))
            for name in names:
                proxies[name].set("pass")
            for _ in range(row.dose(2, 10)):
                await asyncio.sleep(0.3)
                for name in names:
                    proxies[name].reset()
                row.fault(len(names))
            for name in names:
                proxies[name].set("half_open")
            row.fault(len(names))
            await asyncio.sleep(row.dose(2, 15))
            for name in names:
                proxies[name].set("pass")
        row.healed()
        await row.settle()
        row.note(f"{' and '.join(names)}: everything right after {row.verdict.recovery_s:.1f} s at most")
