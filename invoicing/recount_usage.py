"""Usage counted again from single events: a reader of usage as of an instant, beside the one over the rollups."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime

from core.meters import Meter
from core.period import Period
from invoicing.domain.count_events import EventCount
from invoicing.domain.explanation import EventBehind, EventState
from invoicing.domain.lines import Line
from invoicing.domain.stored_event import Activations, MeterReader, StoredEvent
from invoicing.domain.usage_evidence import UsageEvidence
from invoicing.explain_ports import EventStore


class Recount:
    """Counts each window once, as known at an instant and as known now; `then` and `now` are the readers over both."""

    def __init__(self, store: EventStore, known_at: datetime) -> None:
        self._store, self._known_at = store, known_at
        self._counted: dict[tuple[str, Period, Period], tuple[UsageEvidence, UsageEvidence]] = {}
        self._activations: Activations | None = None
        self.windows: list[Period] = []
        self.then, self.now = RecountedUsage(self, 0), RecountedUsage(self, 1)

    async def count(
        self, tenant_id: str, window: Period, meters: Mapping[str, Meter], month: Period
    ) -> tuple[UsageEvidence, UsageEvidence]:
        """Return the evidence of a window as known then and as known now."""
        key = (tenant_id, window, month)
        if key not in self._counted:
            then, now = EventCount(window, meters, month), EventCount(window, meters, month)
            reader = await self._reader(tenant_id, meters)
            async for page in self._store.events(tenant_id, window, _carried(meters)):
                await asyncio.to_thread(self._add, page, reader, then, now)
            self._counted[key] = then.evidence(), now.evidence()
            if window not in self.windows:
                self.windows.append(window)
        return self._counted[key]

    async def events_behind(
        self, tenant_id: str, line: Line, windows: Sequence[Period], meters: Mapping[str, Meter]
    ) -> AsyncIterator[EventBehind]:
        """Yield the events behind a line, those that were billed and those that changed it since; none for a fee."""
        meter = meters.get(line.meter_id or "")
        if meter is None:
            return
        reader = await self._reader(tenant_id, {meter.meter_id: meter})
        for window in windows:
            async for page in self._store.events(tenant_id, window, _carried({meter.meter_id: meter})):
                for event in page:
                    state = self._state(event)
                    for reading in reader.read(event) if state else ():
                        if reading.agrees_with(line.dimensions):
                            assert state is not None
                            yield EventBehind(event, reading, state)

    def _add(self, page: Sequence[StoredEvent], reader: MeterReader, then: EventCount, now: EventCount) -> None:
        for event in page:
            stood, stands = event.stood_at(self._known_at), event.stood_at(None)
            if not (stood or stands):
                continue
            for reading in reader.read(event):
                if stood:
                    then.add(event, reading)
                if stands:
                    now.add(event, reading)

    def _state(self, event: StoredEvent) -> EventState | None:
        stood, stands = event.stood_at(self._known_at), event.stood_at(None)
        if stood:
            return EventState.BILLED if stands else EventState.TAKEN_OUT
        return EventState.LATE if stands else None

    async def _reader(self, tenant_id: str, meters: Mapping[str, Meter]) -> MeterReader:
        if self._activations is None:
            self._activations = await self._store.activations()
        return MeterReader(tenant_id, meters, self._activations)


class RecountedUsage:
    """A `UsageReader` over a recount."""

    def __init__(self, recount: Recount, side: int) -> None:
        self._recount, self._side = recount, side

    async def usage(
        self, tenant_id: str, window: Period, *, meters: Mapping[str, Meter], month: Period
    ) -> UsageEvidence:
        """Return the usage of a window on whole minutes."""
        return (await self._recount.count(tenant_id, window, meters, month))[self._side]


def _carried(meters: Mapping[str, Meter]) -> frozenset[str]:
    """Return the event types whose levels reach from before a window into it."""
    return frozenset(meter.event_type for meter in meters.values() if meter.aggregation == "time_weighted")
