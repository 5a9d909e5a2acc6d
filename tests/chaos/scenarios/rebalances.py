"""Partitions that move: workers join, leave, die, and freeze past their session."""

from __future__ import annotations

import asyncio
import signal

from tests import on_topics
from tests.chaos import observed
from tests.chaos.fleet import Worker
from tests.chaos.row import Row
from tests.chaos.scenarios.registry import row
from tests.chaos.world import STREAM


@row("F5", "rebalance 2, 3, 1, 2 meter workers, then kill one of two")
async def rebalance(row: Row) -> None:
    async with row.load(row.dose(8_000, 100_000), traffic=row.traffic(corrections=0.02)):
        for wanted in (2, 3, 1, 2):
            while len(running := row.fleet.running("meter")) < wanted:
                row.fleet.start("meter")
            for worker in running[: len(running) - wanted]:
                code, seconds = await asyncio.to_thread(row.fleet.terminate, worker)
                row.must(code == 0, f"a leaving worker ended with {code} after {seconds:.1f} s")
            row.fault()

            async def all_joined(wanted: int = wanted) -> bool:
                return await observed.members(row.world.urls.kafka, "meterbook-meter") == wanted

            await row.wait_for(all_joined, f"{wanted} workers to share the partitions")
            await _every_partition_moves(row)
            await asyncio.sleep(row.dose(0.1, 3))
        row.fleet.kill("meter")
        row.fault()
        await _every_partition_moves(row)
    row.healed()
    await row.settle()


@row("F6", "workers frozen past their session and thawed: what they still hold changes nothing")
async def zombies(row: Row) -> None:
    traffic = row.traffic(corrections=0.02, twins=0.005)
    for number in range(row.dose(1, 3)):
        frozen: list[Worker] = []
        # Where the next thing it does on thawing is to count what waits, or to end a transaction that is sent.
        row.fleet.discard("meter")
        moment = ("after", "before", "after")[number]
        freezing = row.fleet.start("meter", plan={"freeze": {"at": "transaction", "when": moment, "hit": 5}})
        async with row.load(row.dose(1_500, 20_000), traffic=traffic):

            async def froze(freezing: Worker = freezing) -> bool:
                return freezing.logged("chaos.froze") > 0

            await row.wait_for(froze, "the meter worker to freeze within a transaction")
            for name in STREAM:
                worker = row.fleet.the(name)
                worker.send(signal.SIGSTOP)
                worker.is_wanted = False  # for the group it is as good as dead
                frozen.append(worker)
                row.fleet.start(name)
                row.fault()
            for worker in frozen:
                successor = row.fleet.the(worker.name)
                sign = {"meter": "partition.taken_over", "quota": "quotas.filled"}.get(worker.name, "worker.starting")

                async def taken_over(successor: Worker = successor, sign: str = sign) -> bool:
                    return successor.logged(sign) > 0

                await row.wait_for(taken_over, f"the successor of {worker.name} to take over")
        await row.caught_up()
        for worker in frozen:
            worker.send(signal.SIGCONT)
        await row.send(traffic.records(300))
        row.healed()
        await row.settle()
        for worker in frozen:
            # It noticed and joined again, or found itself fenced and ended in doubt; in neither case did it write.
            row.must(
                worker.process.poll() in (None, 70), f"{worker.name} ended with {worker.process.poll()} on thawing"
            )
            if worker.is_running:
                worker.kill()


@row("F33", "fetched batches dropped on their way to the partition's lane, as around a rebalance")
async def drops(row: Row) -> None:
    traffic = row.traffic(corrections=0.02, duplicates=0.05)
    for name in STREAM:
        row.fleet.discard(name)
        row.fleet.start(name, plan={"drop_every": 3})
        row.fault()
    for _ in range(row.dose(8, 40)):
        async with row.load(row.dose(150, 1_000), traffic=traffic):
            pass
        # The last batches of a burst have nothing behind them that would show the hole.
        await asyncio.sleep(0.3)
    await row.settle()
    for name in STREAM:
        went_back = row.fleet.the(name).logged("reading.went_back")
        row.must(went_back > 0, f"nothing that {name} fetched was dropped")
        row.fleet.discard(name)
        row.fleet.start(name)
    row.healed()
    await row.settle()


async def _every_partition_moves(row: Row) -> None:
    """Wait until each partition was counted further than now: each has an owner again."""
    before = await on_topics.ends(row.world.urls.kafka, "usage.journal")
    tenants = [name for name in row.world.almanacs if name.startswith("warm")]
    nudges = row.traffic(tenants, duplicates=0, arrays=0, unkeyed=0)
    sent = await row.send([nudges.single(nudges.event(tenant)) for tenant in tenants])
    row.log = [one for one in row.log if one not in sent]

    async def moved() -> bool:
        now = await on_topics.ends(row.world.urls.kafka, "usage.journal")
        return all(now[partition] > before[partition] for partition in before)

    await row.wait_for(moved, "every partition to have an owner")
