"""A meter added while the real workers run, filled while one of them is killed: it ends up as if always there."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from aiokafka import AIOKafkaProducer

from core.calendar import Calendar
from core.meters import Meter
from core.period import Period
from core.topics import USAGE_EVENTS
from metering.adapters.clickhouse_raw_events import ClickHouseRawEvents
from metering.adapters.clickhouse_usage import ClickHouseUsageStore
from metering.domain.usage_query import UsageQuery
from metering.meter_commands import fill_meter
from metering.query_usage import query_usage
from runtime.clickhouse import connect_clickhouse
from runtime.settings import Settings
from tests.metering.usage_oracle import Event, Question, answer
from tests.streams.worker_process import WorkerProcess

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(280)]
START = (datetime.now(UTC) - timedelta(days=2)).replace(minute=0, second=0, microsecond=0)
END = START + timedelta(days=1)
QUICK = {"METERBOOK_MICRO_BATCH_MS": "50", "METERBOOK_REGISTRY_REFRESH_SECONDS": "1"}


class Scene:
    """Tenants on several partitions, their producer, and what they have used."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.settings, self.dice, self.name = settings, random.Random(seed), uuid4().hex[:8]
        self.kind = f"kind-{self.name}"
        self.tenants = [f"fill-{self.name}-{number}" for number in range(6)]
        self.used: dict[tuple[str, str], Event] = {}
        self.client = connect_clickhouse(settings)
        self.raw = ClickHouseRawEvents(self.client)
        self.sent = 0

    def meter(self, aggregation: Any) -> Meter:
        weight: Any = "hour" if aggregation == "time_weighted" else None
        return Meter(f"{aggregation}-{self.name}", "u", self.kind, aggregation, "v", ("model",), (), weight)

    def add_meter(self, meter: Meter) -> None:
        with psycopg.connect(self.settings.postgres, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO meters (meter_id, unit, event_type, aggregation, value_property, dimensions, weight_per,"
                " created_at) VALUES (%s, 'u', %s, %s, 'v', '{model}', %s, now())",
                (meter.meter_id, meter.event_type, meter.aggregation, meter.weight_per),
            )

    def add_tenants(self) -> None:
        with psycopg.connect(self.settings.postgres, autocommit=True) as connection:
            for tenant in self.tenants:
                connection.execute(
                    "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
                    " VALUES (%s, 'F', 'f@example.com', 'DE', 'EUR', now())",
                    (tenant,),
                )

    async def use(self, producer: AIOKafkaProducer, count: int) -> None:
        for _ in range(count):
            tenant, event_id = self.tenants[self.sent % len(self.tenants)], f"e{self.sent}"
            at = START + timedelta(seconds=self.dice.randrange(86_400))
            value, model = self.dice.randrange(10**6), self.dice.choice("ab")
            self.used[tenant, event_id] = Event(at, (("model", model),), Decimal(value), str(value), self.sent)
            await self._send(producer, tenant, event_id, self.kind, {"v": value, "model": model}, at)
        await producer.flush()

    async def void(self, producer: AIOKafkaProducer, target: tuple[str, str]) -> None:
        del self.used[target]
        body = {"corrects": {"source": "s", "id": target[1]}}
        await self._send(producer, target[0], f"v{self.sent}", "meterbook.usage.void", body, datetime.now(UTC))
        await producer.flush()

    async def _send(
        self, producer: AIOKafkaProducer, tenant: str, event_id: str, kind: str, data: dict[str, Any], at: datetime
    ) -> None:
        event = {
            "specversion": "1.0", "id": event_id, "source": "s", "type": kind, "subject": tenant,
            "time": at.isoformat(), "data": data,
        }  # fmt: skip
        self.sent += 1
        await producer.send(USAGE_EVENTS.name, json.dumps(event).encode(), key=tenant.encode())

    def stored(self) -> int:
        query = "SELECT count() FROM usage_events FINAL WHERE tenant IN {tenants:Array(String)}"
        return int(self.client.query(query, parameters={"tenants": self.tenants}).result_rows[0][0])

    async def found(self, meter: Meter, tenant: str) -> list[Any]:
        store = ClickHouseUsageStore(self.settings)
        query = UsageQuery(tenant, meter, "hour", Period(START, END), Calendar(), ("model",), limit=10_000)
        page = await query_usage(query, store=store, now=END)
        await store.close()
        return [(row.window.start, row.window.end, row.group, row.quantity, row.events) for row in page.rows]

    def expected(self, meter: Meter, tenant: str) -> list[Any]:
        question = Question(meter.aggregation, "hour", START, END, group_by=("model",), now=END)
        return answer(question, [event for (owner, _), event in self.used.items() if owner == tenant])


async def wait_for(holds: Callable[[], bool], what: str, workers: list[WorkerProcess]) -> None:
    for _ in range(900):
        if await asyncio.to_thread(holds):
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"waited in vain for {what}\n" + "\n\n".join(worker.tail() for worker in workers))


@pytest.fixture
def workers(settings: Settings, tmp_path: Any) -> Iterator[list[WorkerProcess]]:
    running: list[WorkerProcess] = []
    yield running
    for worker in running:
        worker.discard()


async def test_a_meter_added_while_usage_flows_is_filled_exactly_once(
    settings: Settings, workers: list[WorkerProcess], tmp_path: Any
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    scene = Scene(settings, seed)
    scene.add_tenants()
    scene.add_meter(scene.meter("max"))
    for name in ("meter", "warehouse"):
        workers.append(WorkerProcess(name, settings.home, tmp_path, **QUICK))
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap)
    await producer.start()
    try:
        await scene.use(producer, 120)
        await wait_for(lambda: scene.stored() == scene.sent, "the first events", workers)
        new = [scene.meter(aggregation) for aggregation in ("sum", "unique", "time_weighted")]
        for meter in new:
            scene.add_meter(meter)

        def counted_everywhere() -> bool:
            return all(None not in scene.raw.activations(meter).values() for meter in new)

        for _ in range(200):
            await scene.use(producer, 6)
            if await asyncio.to_thread(counted_everywhere):
                break
        await scene.void(producer, next(iter(scene.used)))
        await wait_for(lambda: scene.stored() == scene.sent, "usage with the new meters", workers)
        for number, meter in enumerate(new):
            if number == 1:
                workers[0].kill()
                workers[0] = WorkerProcess("meter", settings.home, tmp_path, **QUICK)
            filled = await fill_meter(settings, meter.meter_id, wait_seconds=60)
            assert sum(share.events for share in filled) >= 119
            assert len({share.partition for share in filled}) > 1
        for meter in new:
            assert await fill_meter(settings, meter.meter_id, wait_seconds=60) == []
        await scene.void(producer, next(iter(scene.used)))
        await scene.use(producer, 6)
        await wait_for(lambda: scene.stored() == scene.sent, "what came last", workers)
    finally:
        await producer.stop()

    async def differences() -> list[str]:
        return [
            f"{meter.meter_id} of {tenant}"
            for meter in new
            for tenant in scene.tenants
            if await scene.found(meter, tenant) != scene.expected(meter, tenant)
        ]

    for _ in range(100):  # a record's events are inserted a moment before its rollups and samples
        if not await differences():
            break
        await asyncio.sleep(0.1)
    assert await differences() == []
