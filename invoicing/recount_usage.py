"""Usage counted again from single events: a reader of usage as of an instant, beside the one over the rollups."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from core.meters import Meter
from core.period import Period
from invoicing.domain.count_entries import EntryCount
from invoicing.domain.count_events import EventCount
from invoicing.domain.explanation import EventBehind, EventState
from invoicing.domain.lines import Line
from invoicing.domain.stored_event import Activations, MeterReader, Reading, StoredEvent
from invoicing.domain.usage_evidence import UsageEvidence
from invoicing.explain_ports import EventStore
from rating.domain.fine_usage import Entries, FineUsage
from rating.domain.windows import Windows, holds_instant, hull_of


class _Count(Protocol):
    def add(self, event: StoredEvent, reading: Reading) -> bool: ...


class Recount:
    """Counts each window once, as known at an instant and as known now; `then` and `now` are the readers over both."""

    def __init__(self, store: EventStore, known_at: datetime) -> None:
        self._store, self._known_at = store, known_at
        self._counted: dict[tuple[str, Windows, Period], tuple[UsageEvidence, UsageEvidence]] = {}
        self._fine: dict[tuple[str, Windows, frozenset[FineUsage]], tuple[Entries, Entries]] = {}
        self._activations: Activations | None = None
        self.windows: list[Windows] = []
        self.then, self.now = RecountedUsage(self, 0), RecountedUsage(self, 1)

    async def count(
        self, tenant_id: str, windows: Windows, meters: Mapping[str, Meter], month: Period
    ) -> tuple[UsageEvidence, UsageEvidence]:
        """Return the evidence of windows as known then and as known now."""
        key = (tenant_id, windows, month)
        if key not in self._counted:
            then, now = EventCount(windows, meters, month), EventCount(windows, meters, month)
            reader = await self._reader(tenant_id, meters)
            async for page in self._store.events(tenant_id, hull_of(windows), _carried(meters)):
                await asyncio.to_thread(self._add, page, reader, then, now)
            self._counted[key] = then.evidence(), now.evidence()
            if windows not in self.windows:
                self.windows.append(windows)
        return self._counted[key]

    async def entries(
        self, tenant_id: str, windows: Windows, wanted: Collection[FineUsage], meters: Mapping[str, Meter]
    ) -> tuple[Entries, Entries]:
        """Return the usage of windows as fine as it is wanted, as known then and as known now."""
        key = (tenant_id, windows, frozenset(wanted))
        if key not in self._fine:
            known = {one.meter_id: meters[one.meter_id] for one in wanted}
            then, now = EntryCount(windows, wanted), EntryCount(windows, wanted)
            reader = await self._reader(tenant_id, known)
            async for page in self._store.events(tenant_id, hull_of(windows), ()):
                await asyncio.to_thread(self._add, page, reader, then, now)
            self._fine[key] = then.entries(), now.entries()
        return self._fine[key]

    async def events_behind(
        self, tenant_id: str, line: Line, windows: Sequence[Windows], meters: Mapping[str, Meter]
    ) -> AsyncIterator[EventBehind]:
        """Yield the events behind a line, those that were billed and those that changed it since; none for a fee."""
        meter = meters.get(line.meter_id or "")
        if meter is None:
            return
        reader = await self._reader(tenant_id, {meter.meter_id: meter})
        carried = _carried({meter.meter_id: meter})
        for span in windows:
            async for page in self._store.events(tenant_id, hull_of(span), carried):
                for event in page:
                    state = self._state(event)
                    if state is None or not (carried or holds_instant(span, event.minute)):
                        continue
                    for reading in reader.read(event):
                        if reading.agrees_with(line.dimensions):
                            yield EventBehind(event, reading, state)

    def _add(self, page: Sequence[StoredEvent], reader: MeterReader, then: _Count, now: _Count) -> None:
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
        self, tenant_id: str, windows: Windows, *, meters: Mapping[str, Meter], month: Period
    ) -> UsageEvidence:
        """Return the usage of windows on whole minutes."""
        return (await self._recount.count(tenant_id, windows, meters, month))[self._side]

    async def fine_usage(
        self, tenant_id: str, windows: Windows, wanted: Collection[FineUsage], *, meters: Mapping[str, Meter]
    ) -> Entries:
        """Return the usage of windows by quarter hours or single events, as it is wanted."""
        return (await self._recount.entries(tenant_id, windows, wanted, meters))[self._side]


def _carried(meters: Mapping[str, Meter]) -> frozenset[str]:
    """Return the event types whose levels reach from before a window into it."""
    return frozenset(meter.event_type for meter in meters.values() if meter.aggregation == "time_weighted")
