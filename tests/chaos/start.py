"""Makes a world with meters, warm partitions and one worker of each kind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from tests.chaos import observed
from tests.chaos.traffic import ADDITIVE, RUN, SAMPLED, Traffic
from tests.chaos.world import PARTITIONS, STREAM, World

# A short run notices a dead worker after two seconds instead of six.
SMOKE_PLAN: dict[str, Any] = {"session_s": 2.0}


def create_world(
    plan: dict[str, Any], *, plant: str | None = None, folder: Path | None = None, batch_events: int = 500
) -> World:
    """Start everything; `plan` and `plant` say how all workers are tampered with.

    `batch_events` bounds a transaction of the meter worker: small enough that there are many to be broken.
    """
    # A broker that is away is what these runs are about: the client need not say so on each try.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    world = World.create(folder)
    try:
        world.add_meters((*ADDITIVE, *SAMPLED))
        world.fleet.environment["METERBOOK_MICRO_BATCH_EVENTS"] = str(batch_events)
        world.fleet.plan = {**plan, **({"plant": plant} if plant else {})}
        for name in STREAM:
            world.fleet.start(name)
        asyncio.run(_warm(world))
    except BaseException:
        with contextlib.suppress(Exception):
            world.close()
        raise
    return world


async def _warm(world: World) -> None:
    """Give every partition an event of now, so that what is late has one answer from the first event on."""
    world.add_tenants(["warm"])
    traffic = Traffic(1, ["warm"], run="warm")
    producer = AIOKafkaProducer(bootstrap_servers=world.urls.kafka)
    await producer.start()
    try:
        # A tenant lives on one partition only; the others get theirs from tenants found by trying names.
        for partition, tenant in enumerate(_one_tenant_per_partition()):
            if tenant != "warm":
                world.add_tenants([tenant])
            record = traffic.single(traffic.event(tenant, kind=RUN, at=traffic.base))
            found = await producer.send_and_wait("usage.events", value=record.value, key=record.key)
            assert found.partition == partition
    finally:
        await producer.stop()
    async with asyncio.timeout(120):
        while any((await observed.unread(world.urls.kafka, ["meter"])).values()):
            await asyncio.sleep(0.2)


def _one_tenant_per_partition() -> list[str]:
    from aiokafka.partitioner import murmur2

    found: dict[int, str] = {}
    number = 0
    while len(found) < PARTITIONS:
        name = f"warm-{number}"
        found.setdefault((murmur2(name.encode()) & 0x7FFFFFFF) % PARTITIONS, name)
        number += 1
    return [found[partition] for partition in range(PARTITIONS)]
