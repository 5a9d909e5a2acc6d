"""What no producer should send: poison among good records, and records of any size."""

from __future__ import annotations

import asyncio
import json
import random
import time

import httpx2
from aiokafka.errors import MessageSizeTooLargeError

from tests.chaos import observed
from tests.chaos.row import Row
from tests.chaos.scenarios.registry import row
from tests.chaos.traffic import POISON, Record, dumps


@row("F21", "poison among good events: every one a dead letter with its reason, and replayable")
async def poison(row: Row) -> None:
    traffic = row.traffic(poison=row.dose(0.05, 0.01))
    good = [traffic.event(traffic.tenants[0], kind="chaos.completion") for _ in POISON]
    every = [make(event) for make, event in zip(POISON, good, strict=True)]
    await row.send([Record(traffic.tenants[0].encode(), value, (), code) for value, code in every])
    row.fault(len(every))
    # Refused because nobody knows the tenant; once it is known, the very bytes are sent again and count.
    young = f"f21-{row.seed}-young"
    orphans = [traffic.event(young) for _ in range(20)]
    refused = await row.send([Record(young.encode(), dumps(event), (), "unknown_tenant") for event in orphans])
    async with row.load(row.dose(1_000, 50_000), traffic=traffic):
        pass
    row.healed()
    await row.settle()
    row.world.add_tenants([young])
    row.tenants.append(young)
    letters, _ = await observed.dead_letters(row.world.urls.kafka)
    bodies = [letters[one.partition, one.offset, -1].body for one in refused]
    await row.send([Record(young.encode(), body, (json.loads(body or b""),)) for body in bodies])
    await row.settle()


@row("F22", "oversize: events, arrays, attributes, compressed bombs")
async def oversize(row: Row) -> None:
    base = await row.api()
    traffic = row.traffic()
    tenant = traffic.tenants[0]
    key = tenant.encode()

    def padded(size: int) -> Record:
        event = traffic.event(tenant, kind="chaos.run")
        event["data"]["note"] = ""
        event["data"]["note"] = "x" * (size - len(dumps(event)))
        value = dumps(event)
        assert len(value) == size
        return Record(key, value, (event,)) if size <= 65_536 else Record(key, value, (), "too_large")

    many = traffic.event(tenant, kind="chaos.run")
    many["data"] |= {f"a{number}": number for number in range(100_000)}
    small = [traffic.event(tenant, kind="chaos.run") for _ in range(10_001)]
    records = [padded(size) for size in (65_535, 65_536, 65_537, 1_048_575, 1_048_576, 1_048_577)]
    records.append(Record(key, dumps(many), (), "too_large"))
    await row.send(records)
    array = b"[" + b",".join(b"1" for _ in small) + b"]"
    await row.send([Record(key, array, (), "too_many_events")])
    await row.send([Record(key, b"[" + b" " * 30_000_000 + b"]", (), "too_large")], compression="gzip")
    row.fault(len(records) + 2)
    began = time.monotonic()
    try:
        # By a producer of its own: one that had a record refused cannot go on.
        await row.send([Record(key, random.Random(row.seed).randbytes(3_000_000))], compression="gzip")
    except MessageSizeTooLargeError:
        row.note(f"the broker refused a record over the topic's limit after {time.monotonic() - began:.2f} s")
    else:
        row.must(False, "a record over the topic's limit was taken")
    await _post_oversize(row, base, [1_048_575, 1_048_576, 1_048_577, 10_485_761])
    await row.send(traffic.records(100))
    row.healed()
    await row.settle()


async def _post_oversize(row: Row, base: str, sizes: list[int]) -> None:
    headers = {"content-type": "application/cloudevents+json"}
    async with httpx2.AsyncClient(timeout=15) as client:
        for path in ("/api/v1/usage", "/api/v1/usage/batch"):
            kind = headers if path.endswith("usage") else {"content-type": "application/cloudevents-batch+json"}
            for size in sizes:
                response = await client.post(base + path, content=b"[" + b" " * (size - 2) + b"]", headers=kind)
                # A batch of a megabyte is allowed; this one holds nothing.
                allowed = (413,) if path.endswith("usage") or size > 10_000_000 else (400, 413)
                told = f"{path} answered {size} bytes with {response.status_code}"
                row.must(response.status_code in allowed, told)
                await asyncio.sleep(0)
