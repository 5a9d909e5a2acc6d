"""kill -9 at chosen points: before and after every effect a worker has outside of itself."""

from __future__ import annotations

import asyncio
import time

from tests.chaos import observed
from tests.chaos.row import Row
from tests.chaos.scenarios.registry import row

# Where each worker is killed once its effect is (or is about to be) outside, but its progress is not.
AFTER_THE_EFFECT = {
    "meter": [("transaction", "after"), ("transaction", "before")],
    "quota": [("offset", "before"), ("redis", "after")],
    "warehouse": [("offset", "before"), ("insert usage_rollups", "after")],
}
# One sink has the entry, the other has not: both orders, and between the tables of one sink.
BETWEEN_THE_SINKS = {
    "quota": [("redis", "before"), ("offset", "after")],
    "warehouse": [("insert usage_rollups", "before"), ("insert usage_events", "before"), ("offset", "after")],
}


@row("F2", "kill -9 between a sink's answer and the commit of the offset")
async def kill_after_effects(row: Row) -> None:
    await _die_at(row, AFTER_THE_EFFECT, row.dose(1, 20))


@row("F3", "kill -9 between Redis and ClickHouse, both orders")
async def kill_between_sinks(row: Row) -> None:
    await _die_at(row, BETWEEN_THE_SINKS, row.dose(1, 20))


async def _die_at(row: Row, points: dict[str, list[tuple[str, str]]], rounds: int) -> None:
    traffic = row.traffic(corrections=0.02, twins=0.005)
    for number in range(rounds):
        # On a slow machine the rounds take longer than the oracle's doubt about when a window was closed.
        traffic.base = observed.now()
        doomed = []
        for name, places in points.items():
            at, when = places[number % len(places)]
            # The first pipeline to Redis only asks; some later one writes.
            hit = traffic.rng.randint(2, 6) if at == "redis" else 1
            row.fleet.discard(name)
            doomed.append(row.fleet.start(name, plan={"die": {"at": at, "when": when, "hit": hit}}))
        deadline = time.monotonic() + 150
        while time.monotonic() < deadline and any(not one.logged("chaos.died") for one in doomed):
            await row.send(traffic.records(60))
            await asyncio.sleep(0.2)
        for one in doomed:
            row.must(bool(one.logged("chaos.died")), f"{one.name} never came to {one.plan['die']}")
            row.fault()
    row.healed()
    await row.settle()
