"""What a meter would have counted before it was there, cut into records. Owns their form on `usage.events`.

The form is that of `meterbook.meter.backfill` in `core.corrections`; the meter worker counts each record once, by its
id, and with the last one knows the meter from the partition's beginning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from core.corrections import ANY_AGE, OWN_SOURCE
from core.errors import BrokenInvariantError
from core.meters import Meter, Registry
from core.period import minute_start
from core.quantity import format_scaled
from core.usage_event import LATEST_US, METER_BACKFILL, CloudEvent, Rejection, UsageEvent, judge_event

MEASURES_PER_PART = 300
# What a record has beside its measures is far smaller.
_ENVELOPE_BYTES = 600
_encode = msgspec.json.encode


class RawEvent(msgspec.Struct, gc=False):
    """An accepted event as the warehouse keeps it, with its place on the source partition."""

    tenant: str
    source: str
    id: str
    type: str
    customer: str
    time: str
    data: dict[str, Any]
    offset: int
    position: int


@dataclass(frozen=True, slots=True)
class Part:
    """A record to be put on the partition: its tenant (the key) and its bytes."""

    tenant: str
    value: bytes
    measures: int


@dataclass
class Measured:
    """What became of the events: how many feed the meter, and how many it would have refused, by code."""

    events: int = 0
    refused: Counter[str] = field(default_factory=Counter)


def measure(events: Iterable[RawEvent], meter: Meter, measured: Measured) -> Iterator[tuple[str, list[Any]]]:
    """Yield (tenant, measure) for events ordered by tenant; an additive meter's add up to one per minute.

    An event that this meter could not have read is noted in `measured`: it was accepted for the sake of others.
    """
    minutes: dict[tuple[tuple[str, ...], int], list[int]] = {}
    tenant = ""
    for raw in events:
        if raw.tenant != tenant:
            yield from _minutes_of(tenant, minutes)
            tenant = raw.tenant
            minutes.clear()
        event = _judge(raw, meter)
        if isinstance(event, Rejection):
            measured.refused[event.code] += 1
            continue
        measured.events += bool(event.measures or event.samples)
        for _, dimensions, quantity in event.measures:
            cell = minutes.setdefault((dimensions, minute_start(event.time_us // 1_000_000)), [0, 0])
            cell[0] += quantity
            cell[1] += 1
        for _, dimensions, value in event.samples:
            text = value if meter.aggregation == "unique" else format_scaled(int(value))
            yield tenant, [list(dimensions), event.time_us, text, raw.offset, raw.position]
    yield from _minutes_of(tenant, minutes)


def cut_parts(
    measures: Iterable[tuple[str, list[Any]]], meter_id: str, partition: int, before: int, *, time: str, max_bytes: int
) -> Iterator[Part]:
    """Yield the records that hold the measures, in order, the last one marked; none if there are no measures.

    Each is one tenant's, has at most `MEASURES_PER_PART` measures and at most `max_bytes` bytes.
    """
    number, waiting = 0, None
    for tenant, chunk in _chunks(measures, max_bytes - _ENVELOPE_BYTES - len(meter_id.encode())):
        if waiting is not None:
            yield _part(*waiting, meter_id, partition, before, number, time=time, is_last=False)
            number += 1
        waiting = (tenant, chunk)
    if waiting is not None:
        yield _part(*waiting, meter_id, partition, before, number, time=time, is_last=True)


def _judge(raw: RawEvent, meter: Meter) -> UsageEvent | Rejection:
    subject = f"{raw.tenant}/{raw.customer}" if raw.customer else raw.tenant
    event = CloudEvent("1.0", raw.id, raw.source, raw.type, subject, raw.time, raw.data)
    judged = judge_event(event, Registry.of([raw.tenant], [meter]), ANY_AGE, LATEST_US)
    if not isinstance(judged, UsageEvent | Rejection):
        raise BrokenInvariantError(f"{raw.type} was stored as an accepted event")
    return judged


def _minutes_of(tenant: str, minutes: dict[tuple[tuple[str, ...], int], list[int]]) -> Iterator[tuple[str, list[Any]]]:
    for (dimensions, start), (quantity, events) in sorted(minutes.items()):
        yield tenant, [list(dimensions), start * 1_000_000, format_scaled(quantity), events, 0]


def _chunks(measures: Iterable[tuple[str, list[Any]]], max_bytes: int) -> Iterator[tuple[str, list[Any]]]:
    tenant, chunk, size = "", list[Any](), 0
    for owner, one in measures:
        length = len(_encode(one)) + 1
        if chunk and (owner != tenant or len(chunk) == MEASURES_PER_PART or size + length > max_bytes):
            yield tenant, chunk
            chunk, size = [], 0
        tenant = owner
        chunk.append(one)
        size += length
    if chunk:
        yield tenant, chunk


def _part(
    tenant: str,
    measures: list[Any],
    meter_id: str,
    partition: int,
    before: int,
    number: int,
    *,
    time: str,
    is_last: bool,
) -> Part:
    event_id = f"backfill-{meter_id}-{partition}-{number}"
    data = {"meter": meter_id, "before": before, "last": is_last, "measures": measures}
    event = CloudEvent("1.0", event_id, OWN_SOURCE, METER_BACKFILL, tenant, time, data)
    return Part(tenant, _encode(event), len(measures))
