"""Running costs onto `usage.rated`, and which months the journal says have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from core.event_time import to_datetime
from core.journal import decode_entry
from core.messages import RunningCost, encode_message
from core.period import Period, format_instant
from core.topics import USAGE_RATED
from rating.domain.price import plain
from rating.ports import CostRow

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Touched:
    """What one journal record changed: days of UTC by tenant, or longer; `source_next` follows its last source record.

    Days, because whose billing period they lie in says the tenant's own calendar.
    """

    spans: frozenset[tuple[str, Period]]
    source_next: int


def read_touched(value: bytes) -> Touched:
    """Read which (tenant, span) pairs a journal record touched."""
    entry = decode_entry(value)
    spans = {(row.tenant, _day_of(datetime.fromtimestamp(row.start, UTC))) for row in entry.windows}
    received = datetime.fromtimestamp(entry.received_ms / 1_000, UTC)
    for row in entry.samples:
        day = _day_of(to_datetime(row.time_us))
        # A level holds on: what changed it in the past changed every period since.
        holds_on = entry.aggregations[row.meter] == "time_weighted" and day.end <= received
        spans.add((row.tenant, Period(day.start, _day_of(received).end) if holds_on else day))
    return Touched(frozenset(spans), entry.last + 1)


def _day_of(instant: datetime) -> Period:
    start = instant.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return Period(start, start + _DAY)


def partition_of(tenant_id: str, partitions: int) -> int:
    """Return the journal's partition that a tenant lives on: Kafka's default partitioner's choice."""
    return int((murmur2(tenant_id.encode()) & 0x7FFFFFFF) % partitions)


async def publish_costs(producer: AIOKafkaProducer, rows: Sequence[CostRow]) -> None:
    """Publish running costs, keyed by tenant, and wait until the broker has them."""
    sent = [
        await producer.send(USAGE_RATED.name, value=encode_message(_message(row)), key=row.tenant_id.encode())
        for row in rows
    ]
    await asyncio.gather(*sent)


def _message(row: CostRow) -> RunningCost:
    return RunningCost(
        tenant_id=row.tenant_id,
        plan_id=row.plan_id,
        charge_id=row.charge_id,
        meter=row.meter_id,
        period=row.period,
        quantity=plain(row.quantity),
        amount=f"{row.amount:f}",
        currency=row.currency,
        version=row.version,
        rated_at=format_instant(row.rated_at),
        subscription_id=row.subscription_id,
        holding=row.holding,
    )
