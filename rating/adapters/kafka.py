"""Running costs onto `usage.rated`, and which months the journal says have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer

from core.event_time import to_datetime
from core.journal import decode_entry
from core.messages import RunningCost, encode_message
from core.period import Period, format_instant, month_of
from core.topics import USAGE_RATED
from rating.domain.price import plain
from rating.ports import CostRow


@dataclass(frozen=True, slots=True)
class Touched:
    """What one journal record changed: months by tenant; `source_next` is the source offset after its last record."""

    months: frozenset[tuple[str, Period]]
    source_next: int


def read_touched(value: bytes) -> Touched:
    """Read which (tenant, month) pairs a journal record touched."""
    entry = decode_entry(value)
    months = {(row.tenant, month_of(datetime.fromtimestamp(row.start, UTC))) for row in entry.windows}
    received = datetime.fromtimestamp(entry.received_ms / 1_000, UTC)
    for row in entry.samples:
        month = month_of(to_datetime(row.time_us))
        months.add((row.tenant, month))
        # A level holds on: what changed it in the past changed every month since.
        while entry.aggregations[row.meter] == "time_weighted" and month.end <= received:
            month = month_of(month.end)
            months.add((row.tenant, month))
    return Touched(frozenset(months), entry.last + 1)


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
    )
