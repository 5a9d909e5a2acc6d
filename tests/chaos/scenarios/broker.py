"""A broker that is restarted, killed, or away for a while."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from tests.chaos.row import Row
from tests.chaos.scenarios.registry import row
from tests.chaos.world import STREAM


@row("F7", "broker restarted and killed: what was confirmed is all there")
async def broker_restarts(row: Row) -> None:
    await row.api()
    kafka = row.world.engines["kafka"]
    traffic = row.traffic(corrections=0.02, twins=0.005)
    through_api = row.traffic(traffic.tenants, arrays=0, unkeyed=0)
    answers: Counter[int] = Counter()
    row.tolerated.add(1)  # a worker that starts while no broker is there says so and ends
    for end in [kafka.stop, kafka.kill] * row.dose(1, 3):
        async with row.load(row.dose(1_000, 20_000), traffic=traffic):
            await asyncio.sleep(0.4)
            events = [through_api.event(through_api.rng.choice(traffic.tenants)) for _ in range(60)]

            async def restart(end: Callable[[], None] = end) -> None:
                await asyncio.to_thread(end)
                row.fault()
                await asyncio.to_thread(kafka.start)

            answered, _ = await asyncio.gather(row.post(events), restart())
            answers += answered
    row.healed()
    await row.settle()
    row.note(f"the API answered {_told(answers)}; a 503 carries Retry-After and its event was sent again")


@row("F8", "broker down: the API refuses, workers wait or are started again")
async def broker_down(row: Row) -> None:
    await row.api()
    kafka = row.world.engines["kafka"]
    traffic = row.traffic(corrections=0.02)
    await row.send(traffic.records(300))
    await asyncio.to_thread(kafka.stop)
    row.fault()
    row.tolerated.add(1)
    before = len(row.log)
    events = [traffic.event(traffic.rng.choice(traffic.tenants)) for _ in range(40)]
    posting = asyncio.create_task(row.post(events, patience_s=row.dose(60, 180)))
    await asyncio.sleep(row.dose(7, 60))
    row.must(len(row.log) == before, "the API accepted an event while no broker was there")
    await asyncio.to_thread(kafka.start)
    row.healed()
    answers = await posting
    row.must(answers[503] > 0 and set(answers) <= {202, 503}, f"the API answered {_told(answers)}")
    await row.send(traffic.records(300))
    await row.settle()
    for name in STREAM:
        row.must(bool(row.fleet.running(name)), f"no {name} worker is running")
    row.note(f"the API answered {_told(answers)}")


def _told(answers: Counter[int]) -> str:
    return ", ".join(f"{code or 'nothing'} {times} times" for code, times in sorted(answers.items()))
