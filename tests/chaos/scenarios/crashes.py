"""Workers that die, and workers that are asked to end."""

from __future__ import annotations

import asyncio

from tests.chaos import observed
from tests.chaos.fleet import Worker
from tests.chaos.row import Row
from tests.chaos.scenarios.registry import row
from tests.chaos.world import PARTITIONS, STREAM


@row("F1", "kill -9 of workers mid-batch")
async def kill_workers(row: Row) -> None:
    traffic = row.traffic(row.new_tenants(9), poison=0.01, late=0.05, twins=0.005, corrections=0.02)
    async with row.load(row.dose(4_000, 100_000), traffic=traffic):
        for _ in range(row.dose(2, 10)):
            meter = row.fleet.the("meter")

            async def counting(meter: Worker = meter) -> bool:
                return meter.logged("partition.taken_over") >= PARTITIONS

            # Not before it counts: one that dies while it starts has nothing in hand.
            await row.wait_for(counting, "the meter worker to take over")
            await asyncio.sleep(traffic.rng.random() * row.dose(0.8, 2.0))
            meter.kill()
            row.fault()
    row.fleet.kill("quota")
    row.fleet.kill("warehouse")
    row.fault(2)
    row.healed()
    await row.settle()


# What Faust says when a worker's consumer begins, which is after it has begun to listen to signals.
_READS = "[^--BatchConsumer]: Starting..."


@row("F4", "SIGTERM: exit 0 within 10 s, nothing delivered again, group left")
async def terminate_workers(row: Row) -> None:
    traffic = row.traffic(unkeyed=0, duplicates=0)
    store = observed.Store(row.world.urls.clickhouse)
    await row.send(traffic.records(200))
    await row.caught_up()
    before, counted = _progress(store), row.expected().events
    slowest = 0.0
    for _ in range(row.dose(1, 10)):
        async with row.load(row.dose(1_500, 5_000), traffic=traffic):
            await asyncio.sleep(0.5)
            leaving = [row.fleet.the(name) for name in STREAM]

            async def all_work(leaving: list[Worker] = leaving) -> bool:
                # Before that Python is still reading the program, and nothing is there that could end in order; and who
                # is still joining is no member that could leave: the broker waits for it until its session is over.
                begun = all(worker.logged(_READS) for worker in leaving)
                groups = [observed.STAGES[name][0] for name in STREAM]
                return begun and all([await observed.is_settled(row.world.urls.kafka, group) for group in groups])

            await row.wait_for(all_work, "all workers to have begun")
            for worker, (code, seconds) in zip(
                leaving,
                await asyncio.gather(*(asyncio.to_thread(row.fleet.terminate, worker) for worker in leaving)),
                strict=True,
            ):
                row.fault()
                slowest = max(slowest, seconds)
                row.must(code == 0, f"{worker.name} ended with {code} after {seconds:.1f} s")
            for name in STREAM:
                left = await observed.members(row.world.urls.kafka, observed.STAGES[name][0])
                row.must(left == 0, f"{name} did not leave its group")
            for name in STREAM:
                row.fleet.start(name)
    row.healed()
    await row.settle()
    again = _progress(store) - before - (row.verdict.events - counted)
    store.close()
    row.note(f"slowest exit {slowest:.1f} s")
    row.must(again == 0, f"{again} events were delivered to ClickHouse again")


def _progress(store: observed.Store) -> int:
    [(told,)] = store.rows(
        "SELECT sum(events + duplicates + rejected) FROM pipeline_progress WHERE stage = 'warehouse'"
    )
    return int(told)
