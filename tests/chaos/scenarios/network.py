"""A network that holds everything back, resets connections, or leaves them half open."""

from __future__ import annotations

import asyncio

from tests.chaos.proxy import Behaviour
from tests.chaos.row import Row
from tests.chaos.scenarios.registry import row


@row("F15", "network stalled, reset mid-request and half open, to each dependency")
async def network(row: Row) -> None:
    proxies = row.world.proxies
    row.tolerated.add(1)
    row.clickhouse_was_away = True
    traffic = row.traffic(corrections=0.02)
    took: list[tuple[float, str]] = []
    groups = row.dose([list(proxies)], [*([name] for name in proxies), list(proxies)])
    for names in groups:
        async with row.load(row.dose(1_500, 20_000), traffic=traffic):
            await asyncio.sleep(0.3)
            _set(row, names, "stall")
            await asyncio.sleep(row.dose(3, 30))
            _set(row, names, "pass")
            for _ in range(row.dose(2, 10)):
                await asyncio.sleep(0.3)
                for name in names:
                    proxies[name].reset()
                row.fault(len(names))
            # Time to connect again: it is connections in use that are to be left half open.
            await asyncio.sleep(row.dose(1.5, 5))
            # It takes Kafka's clients three quarters of a minute to give silent connections up: not in the smoke.
            _set(row, [name for name in names if row.full or name in ("redis", "postgres")], "half_open")
            await asyncio.sleep(row.dose(1, 15))
            _set(row, names, "pass")
        row.healed()
        row.verdict.recovery_s = 0.0
        await row.settle()
        took.append((row.verdict.recovery_s, " and ".join(names)))
    row.verdict.recovery_s = max(took)[0]
    row.note("everything right after " + ", ".join(f"{seconds:.1f} s ({names})" for seconds, names in took))


def _set(row: Row, names: list[str], behaviour: Behaviour) -> None:
    for name in names:
        row.world.proxies[name].set(behaviour)
    if behaviour != "pass":
        row.fault(len(names))
