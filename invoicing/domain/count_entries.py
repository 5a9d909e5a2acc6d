"""Usage by quarter hours and by single events, counted again from single events, as prices of that grain take it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from core.calendar import SLOT_SECONDS
from core.event_time import to_datetime
from invoicing.domain.stored_event import Reading, StoredEvent
from rating.domain.fields import parse_amount
from rating.domain.fine_usage import Entries, FineUsage, in_order
from rating.domain.price import Dimensions, Grain, UsageEntry
from rating.domain.windows import Windows, holds_instant

_decode = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode


class EntryCount:
    """Collects the entries of windows; of meters that add up only, as others have no finer usage."""

    def __init__(self, windows: Windows, wanted: Collection[FineUsage]) -> None:
        self._windows, self._wanted = windows, tuple(wanted)
        self._slots: dict[tuple[FineUsage, datetime, Dimensions], tuple[Decimal, int]] = {}
        self._events: dict[FineUsage, list[UsageEntry]] = {one: [] for one in wanted}

    def add(self, event: StoredEvent, reading: Reading) -> bool:
        """Take a reading in if it belongs to the windows."""
        if not reading.meter.is_additive:
            return False
        for one in self._wanted:
            if one.meter_id != reading.meter.meter_id:
                continue
            if one.grain is Grain.SLOT:
                self._add_to_slot(one, event, reading)
            else:
                self._add_event(one, event, reading)
        return True

    def entries(self) -> Entries:
        """Return the entries in the order they are priced in."""
        found: Mapping[FineUsage, list[UsageEntry]] = {one: list(entries) for one, entries in self._events.items()}
        for (one, slot, dimensions), (quantity, events) in self._slots.items():
            found[one].append(UsageEntry(slot, quantity, dimensions, events))
        return {one: in_order(entries) for one, entries in found.items()}

    def _add_to_slot(self, one: FineUsage, event: StoredEvent, reading: Reading) -> None:
        if not holds_instant(self._windows, event.minute):
            return
        seconds = int(event.minute.timestamp())
        slot = datetime.fromtimestamp(seconds - seconds % SLOT_SECONDS, UTC)
        key = (one, slot, reading.dimensions)
        quantity, events = self._slots.get(key, (Decimal(0), 0))
        self._slots[key] = quantity + reading.quantity, events + 1

    def _add_event(self, one: FineUsage, event: StoredEvent, reading: Reading) -> None:
        at = to_datetime(event.time_us).astimezone(UTC)
        if holds_instant(self._windows, at):
            amount = _amount(event, one.amount_property) if one.amount_property else None
            self._events[one].append(UsageEntry(at, reading.quantity, reading.dimensions, 1, amount))


def _amount(event: StoredEvent, name: str) -> Decimal | None:
    """Return what the event itself says it costs; None where that cannot be read exactly."""
    value = _decode(event.data).get(name)
    if value is None:
        return None
    read = parse_amount(f"{value:f}" if isinstance(value, Decimal) else value)
    return read if isinstance(read, Decimal) else None
