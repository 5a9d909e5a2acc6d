"""Sends the demo's usage: producers on Kafka (single events and batches) and a client of the HTTP API."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import httpx2
from aiokafka import AIOKafkaProducer

from core.topics import USAGE_EVENTS
from runtime.demo.usage import DemoEvent, Usage

BATCH_EVENTS = 50
API_BATCH_EVENTS = 100
_SLICE_SECONDS = 0.05
_PRODUCERS = 2
_API_CALLERS = 8


@dataclass
class FeedPlan:
    """What goes which way, duplicates and disorder included. Records are (tenant, events that make one record)."""

    kafka_records: list[tuple[str, list[DemoEvent]]]
    api_single: list[DemoEvent]
    api_batches: list[list[DemoEvent]]
    duplicates: int

    @property
    def events_sent(self) -> int:
        """How many events go out, duplicates included."""
        return (
            sum(len(events) for _, events in self.kafka_records)
            + len(self.api_single)
            + sum(len(batch) for batch in self.api_batches)
        )


@dataclass
class FeedProgress:
    """How far the feeding is."""

    sent: int = 0
    by_api: int = 0
    finished: bool = False


def plan_feed(usage: Usage, *, seed: int, duplicates_percent: int, api_events: int) -> FeedPlan:
    """Deal out the events: some to the API, the rest to Kafka, every third in batches; shuffled within a minute.

    `duplicates_percent` of the events go out twice, the twin anywhere later, whichever way.
    """
    rng = random.Random(seed)  # noqa: S311 - a reproducible demo, not a secret
    jitter = timedelta(seconds=60)
    moved = sorted(usage.events, key=lambda event: event.occurred_at + rng.random() * jitter)
    twins = rng.sample(moved, len(moved) * duplicates_percent // 100)
    by_api = set(rng.sample(range(len(moved)), min(api_events, len(moved) // 2)))
    to_api = [event for index, event in enumerate(moved) if index in by_api]
    to_kafka = [event for index, event in enumerate(moved) if index not in by_api]
    for twin in twins:
        to_kafka.insert(rng.randrange(len(to_kafka) // 2, len(to_kafka)), twin)
    half = len(to_api) // 5
    return FeedPlan(
        kafka_records=_into_records(to_kafka, rng),
        api_single=to_api[:half],
        api_batches=[to_api[i : i + API_BATCH_EVENTS] for i in range(half, len(to_api), API_BATCH_EVENTS)],
        duplicates=len(twins),
    )


def _into_records(events: Sequence[DemoEvent], rng: random.Random) -> list[tuple[str, list[DemoEvent]]]:
    records: list[tuple[str, list[DemoEvent]]] = []
    gathered: dict[str, list[DemoEvent]] = defaultdict(list)
    for event in events:
        if rng.random() < 1 / 3:
            gathered[event.tenant].append(event)
            if len(gathered[event.tenant]) == BATCH_EVENTS:
                records.append((event.tenant, gathered.pop(event.tenant)))
        else:
            records.append((event.tenant, [event]))
    records += list(gathered.items())
    return records


async def feed_kafka(
    bootstrap: str,
    records: Sequence[tuple[str, list[DemoEvent]]],
    poison: Sequence[tuple[str, bytes | None]],
    progress: FeedProgress,
    *,
    events_per_second: int,
) -> None:
    """Send the records by several producers, paced so that a person can watch; poison is spread among them."""
    every = max(1, len(records) // (len(poison) + 1))
    bad = {(index + 1) * every: body for index, (_, body) in enumerate(poison)}
    shares = [range(start, len(records), _PRODUCERS) for start in range(_PRODUCERS)]
    await asyncio.gather(
        *(_produce(bootstrap, records, share, bad, progress, events_per_second / _PRODUCERS) for share in shares)
    )


async def _produce(
    bootstrap: str,
    records: Sequence[tuple[str, list[DemoEvent]]],
    share: range,
    bad: dict[int, bytes | None],
    progress: FeedProgress,
    events_per_second: float,
) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        enable_idempotence=True,
        linger_ms=10,
        max_batch_size=256_000,
        compression_type="lz4",
    )
    await producer.start()
    loop = asyncio.get_running_loop()
    began, sent = loop.time(), 0
    try:
        for index in share:
            tenant, events = records[index]
            bodies = [event.body() for event in events]
            value = bodies[0] if len(bodies) == 1 else b"[" + b",".join(bodies) + b"]"
            await producer.send(USAGE_EVENTS.name, value, key=tenant.encode())
            if index in bad:
                await producer.send(USAGE_EVENTS.name, bad[index], key=tenant.encode())
            sent += len(events)
            progress.sent += len(events)
            ahead = sent / events_per_second - (loop.time() - began)
            if ahead > _SLICE_SECONDS:
                await asyncio.sleep(ahead)
    finally:
        await producer.stop()


async def feed_api(base_url: str, plan: FeedPlan, progress: FeedProgress) -> None:
    """Post single events and batches; each must be answered 202, which means that Kafka has them."""
    async with httpx2.AsyncClient(base_url=base_url, timeout=30) as client:
        singles = iter(plan.api_single)

        async def post_singles() -> None:
            for event in singles:
                answer = await client.post(
                    "/api/v1/usage",
                    content=event.body(),
                    headers={"content-type": "application/cloudevents+json"},
                )
                _must_be_accepted(answer)
                progress.sent += 1
                progress.by_api += 1

        await asyncio.gather(*(post_singles() for _ in range(_API_CALLERS)))
        for batch in plan.api_batches:
            answer = await client.post(
                "/api/v1/usage/batch",
                content=b"[" + b",".join(event.body() for event in batch) + b"]",
                headers={"content-type": "application/cloudevents-batch+json"},
            )
            _must_be_accepted(answer)
            progress.sent += len(batch)
            progress.by_api += len(batch)


def _must_be_accepted(answer: httpx2.Response) -> None:
    if answer.status_code != 202:
        raise RuntimeError(f"the API answered {answer.status_code}: {answer.text[:500]}")
