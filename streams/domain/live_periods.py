"""Which live periods an instant belongs to, by each tenant's calendar; kept, because events cluster in few instants."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from core.calendar import SLOT_SECONDS, UTC_MONTHS, Calendar
from core.event_time import to_datetime, to_microseconds
from core.meters import Registry

_KEPT = 100_000


class LivePeriods:
    """Names and bounds of live periods under one registry (`streams.ports.PeriodsOf`)."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._calendars: Mapping[str, Calendar] = registry.calendars
        self._names: dict[tuple[Calendar, int], tuple[str, ...]] = {}
        self._bounds: dict[tuple[Calendar, str], tuple[int, int]] = {}

    def names(self, tenant: str, time_us: int) -> tuple[str, ...]:
        """Return the names of the live periods that hold an instant, in microseconds since 1970 UTC."""
        return self.names_of_slot(tenant, time_us // (SLOT_SECONDS * 1_000_000))

    def names_of_slot(self, tenant: str, slot: int) -> tuple[str, ...]:
        """Return the names of the live periods that hold a quarter hour, counted since 1970 UTC."""
        calendar = self._calendars.get(tenant, UTC_MONTHS)
        names = self._names.get((calendar, slot))
        if names is None:
            if len(self._names) >= _KEPT:
                self._names.clear()
            names = calendar.live_names(datetime.fromtimestamp(slot * SLOT_SECONDS, UTC))
            self._names[calendar, slot] = names
        return names

    def year_name(self, tenant: str, time_us: int) -> str:
        """Return the name of the tenant's calendar year that holds an instant."""
        return self._calendars.get(tenant, UTC_MONTHS).year_name(to_datetime(time_us))

    def bounds(self, tenant: str, name: str) -> tuple[int, int]:
        """Return a live period's half-open bounds in microseconds since 1970 UTC."""
        calendar = self._calendars.get(tenant, UTC_MONTHS)
        bounds = self._bounds.get((calendar, name))
        if bounds is None:
            if len(self._bounds) >= _KEPT:
                self._bounds.clear()
            period = calendar.period(name)
            bounds = to_microseconds(period.start), to_microseconds(period.end)
            self._bounds[calendar, name] = bounds
        return bounds

    def aggregation(self, meter: str) -> str:
        """Return how a meter aggregates."""
        return self._registry.by_id[meter].aggregation
