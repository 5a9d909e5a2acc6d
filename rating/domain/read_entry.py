"""What a meter reads off one accepted event, for prices of single events: the same judgement the stream makes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from core.corrections import ANY_AGE
from core.event_time import format_event_time, to_datetime
from core.meters import Meter, Registry
from core.quantity import unscale
from core.usage_event import LATEST_US, CloudEvent, UsageEvent, judge_event
from rating.domain.fields import parse_amount
from rating.domain.price import UsageEntry


class EntryReader:
    """Reads a tenant's events for one additive meter; `amount_property` names what an event says it costs, or ""."""

    def __init__(self, tenant_id: str, meter: Meter, amount_property: str = "") -> None:
        self._tenant_id, self._amount_property = tenant_id, amount_property
        self._meter = meter
        self._registry = Registry.of([tenant_id], [meter])

    def read(self, time_us: int, data: Mapping[str, Any]) -> UsageEntry | None:
        """Return the event's usage; None for an event that does not feed the meter.

        An amount that cannot be read exactly is left out, so that the price says there is none.
        """
        event = CloudEvent(
            "1.0", "1", "/", self._meter.event_type, self._tenant_id, format_event_time(time_us), dict(data)
        )
        judged = judge_event(event, self._registry, ANY_AGE, LATEST_US)
        if not isinstance(judged, UsageEvent) or not judged.measures:
            return None
        (_, values, scaled), *_ = judged.measures
        named = zip(self._meter.dimensions, values, strict=True)
        dimensions = tuple(sorted((name, value) for name, value in named if value))
        return UsageEntry(_at(time_us), unscale(scaled), dimensions, 1, self._amount(data))

    def _amount(self, data: Mapping[str, Any]) -> Decimal | None:
        value = data.get(self._amount_property) if self._amount_property else None
        if value is None:
            return None
        # A JSON number was read as a Decimal; its digits are those that were sent.
        read = parse_amount(f"{value:f}" if isinstance(value, Decimal) else value)
        return read if isinstance(read, Decimal) else None


def _at(time_us: int) -> datetime:
    return to_datetime(time_us).astimezone(UTC)
