"""Accepted events as the warehouse keeps them. Owns which stood at an instant, and what a meter reads off one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal

import msgspec

from core.corrections import ANY_AGE
from core.event_time import format_event_time
from core.meters import Meter, Registry
from core.period import minute_start
from core.quantity import unscale
from core.usage_event import LATEST_US, CloudEvent, UsageEvent, judge_event
from rating.domain.price import Dimensions

_decode = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode


@dataclass(frozen=True, slots=True)
class TakenOut:
    """The void or amend that took an event out, by its own name and received time."""

    kind: Literal["void", "amend"]
    source: str
    event_id: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An accepted event with its place on the source partition; `data` is the JSON text as it came."""

    tenant_id: str
    source: str
    event_id: str
    event_type: str
    customer: str
    time_us: int
    data: str
    received_at: datetime
    partition: int
    offset: int
    position: int
    taken_out: TakenOut | None = None

    def stood_at(self, known_at: datetime | None) -> bool:
        """Tell whether the event had been received by then and nothing had taken it out yet; None is the present."""
        if known_at is None:
            return self.taken_out is None
        if self.received_at > known_at:
            return False
        return self.taken_out is None or self.taken_out.received_at > known_at

    @property
    def minute(self) -> datetime:
        """The start of the minute window that the event belongs to."""
        return datetime.fromtimestamp(minute_start(self.time_us // 1_000_000), UTC)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one meter reads off one event: a quantity (`scaled` as in `core.quantity`), or a distinct value's text.

    `values` are the meter's dimensions in its own order, an empty value where the event does not name one.
    """

    meter: Meter
    values: Dimensions
    scaled: int
    text: str = ""

    @property
    def quantity(self) -> Decimal:
        """The quantity in the meter's unit."""
        return unscale(self.scaled)

    @property
    def dimensions(self) -> Dimensions:
        """The dimension values as rating knows them: named ones only, by name."""
        return _named(self.values)

    def agrees_with(self, dimensions: Dimensions) -> bool:
        """Tell whether a line with these dimension values bills this; none stands for everything of the meter."""
        mine = dict(self.values)
        return all(mine.get(name, "") == value for name, value in dimensions)


# The source offset from which a partition counts a meter, by meter and partition; one that is not named does not.
Activations = Mapping[tuple[str, int], int]


class MeterReader:
    """Reads events as the stream does, with the same function; meters added later heed where their counting begins."""

    def __init__(self, tenant_id: str, meters: Mapping[str, Meter], activations: Activations) -> None:
        self._meters, self._activations = meters, activations
        self._all = Registry.of([tenant_id], meters.values())
        self._alone = {name: Registry.of([tenant_id], [meter]) for name, meter in meters.items()}

    def read(self, event: StoredEvent) -> Iterator[Reading]:
        """Yield what each meter reads off the event; nothing for an event that no meter counts any more."""
        judged = _judge(event, self._all)
        if judged is not None:
            yield from self._readings(event, judged)
            return
        # A meter added later may refuse what was accepted for the sake of others: each for itself.
        for name, meter in self._meters.items():
            if meter.event_type == event.event_type:
                alone = _judge(event, self._alone[name])
                if alone is not None:
                    yield from self._readings(event, alone)

    def _readings(self, event: StoredEvent, judged: UsageEvent) -> Iterator[Reading]:
        for meter_id, values, quantity in judged.measures:
            if self._counts(meter_id, event):
                meter = self._meters[meter_id]
                yield Reading(meter, tuple(zip(meter.dimensions, values, strict=True)), quantity)
        for meter_id, values, value in judged.samples:
            if self._counts(meter_id, event):
                meter = self._meters[meter_id]
                named = tuple(zip(meter.dimensions, values, strict=True))
                is_text = meter.aggregation == "unique"
                yield Reading(meter, named, 0 if is_text else int(value), value if is_text else "")

    def _counts(self, meter_id: str, event: StoredEvent) -> bool:
        first = self._activations.get((meter_id, event.partition))
        return first is not None and event.offset >= first


@lru_cache(maxsize=10_000)
def _named(values: Dimensions) -> Dimensions:
    return tuple(sorted((name, value) for name, value in values if value))


def _judge(event: StoredEvent, registry: Registry) -> UsageEvent | None:
    subject = f"{event.tenant_id}/{event.customer}" if event.customer else event.tenant_id
    cloud_event = CloudEvent(
        "1.0",
        event.event_id,
        event.source,
        event.event_type,
        subject,
        format_event_time(event.time_us),
        _decode(event.data),
    )
    judged = judge_event(cloud_event, registry, ANY_AGE, LATEST_US)
    return judged if isinstance(judged, UsageEvent) else None
