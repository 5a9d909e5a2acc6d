"""The same event again, another event under the same name, and the same name at another tenant."""

from __future__ import annotations

import time

from tests.chaos.row import Row
from tests.chaos.scenarios.registry import row
from tests.chaos.traffic import Traffic


@row("F19", "duplicates 0, 5, 50, 99 %; same id with another body; same id at another tenant")
async def duplicates(row: Row) -> None:
    rates: dict[str, float] = {}
    for share in (0.0, 0.05, 0.5, 0.99):
        traffic = row.traffic(duplicates=share * 0.98, twins=share * 0.02)
        records = traffic.records(row.dose(600, 50_000))
        began = time.monotonic()
        await row.send(records)
        if row.full:
            await row.caught_up("meter")
            rates[f"{share:.0%}"] = sum(len(record.events) for record in records) / (time.monotonic() - began)
        row.fault()
    # One stream of names, at two tenants that do not know of each other.
    for tenant in row.new_tenants(2):
        same = Traffic(row.seed, [tenant], base=traffic.base, run="same-names")
        await row.send([same.single(same.event(tenant)) for _ in range(100)])
    row.healed()
    await row.settle()
    if rates:
        row.note("events a second: " + ", ".join(f"{rate:,.0f} at {share}" for share, rate in rates.items()))


@row("F20", "20 % out of order, some far beyond the allowed lateness: counted, and listed as late")
async def lateness(row: Row) -> None:
    traffic = row.traffic(disorder=0.2, late=row.dose(0.05, 0.01), corrections=0.02)
    async with row.load(row.dose(1_500, 100_000), traffic=traffic):
        pass
    row.fault()
    row.healed()
    late = row.expected().late
    row.must(bool(late), "no event was late")
    await row.settle()
    row.note(f"{sum(abs(count) for _, count in late.values())} changes of closed windows were listed as late")
