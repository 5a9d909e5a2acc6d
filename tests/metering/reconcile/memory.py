"""The views in memory, scripted: what each says at each look."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.journal import FORMAT, JournalEntry, WindowRow
from core.meters import Meter
from metering.reconcile.domain.event_count import count_events
from metering.reconcile.domain.gap import Cell, Key, Side
from metering.reconcile.ports import NO_TOTAL, LiveState, PeriodTotal, RawRange


def entry(first: int, last: int, *, previous_last: int, **changes: Any) -> JournalEntry:
    fields: dict[str, Any] = {
        "format": FORMAT, "previous_last": previous_last, "first": first, "last": last, "owner": "me",
        "oldest_received_ms": 0, "received_ms": 0, "accepted": 0, "duplicates": 0, "rejected": 0, "identities": b"",
        "digests": b"", "places": b"", "windows": [], "periods": [], "samples": [], "corrections": [], "late": [],
        "refused": [], "dimension_names": {}, "aggregations": {}, "activated": {}, "watermark_us": 0,
    }  # fmt: skip
    return JournalEntry(**{**fields, **changes})


def window(tenant: str, start: int) -> WindowRow:
    return WindowRow(tenant, "m", (), start, 0, "0", 1)


class MemoryTrail:
    """One partition: raw values by offset, entries by journal offset."""

    def __init__(self, raw: Mapping[int, bytes | None], entries: Sequence[JournalEntry], first_raw: int = 0) -> None:
        self.raw, self.entries_at, self.first_raw = dict(raw), list(entries), first_raw
        self.counted: list[tuple[int, int]] = []

    async def journal(self, partition: int, first: int, most: int) -> list[tuple[int, JournalEntry]]:
        return list(enumerate(self.entries_at))[first : first + most]

    async def journal_end(self, partition: int) -> int:
        return len(self.entries_at)

    async def count_events(self, partition: int, ranges: Sequence[RawRange]) -> list[int]:
        self.counted += [(first, last) for first, last, _ in ranges]
        return [
            sum(count_events(at, self.raw[at], refused) for at in self.raw if first <= at <= last)
            for first, last, refused in ranges
        ]

    async def retained_from(self, partition: int) -> int:
        return self.first_raw

    async def entry_at(self, partition: int, source_offset: int) -> tuple[int, JournalEntry] | None:
        return next(
            ((version, one) for version, one in enumerate(self.entries_at) if one.first <= source_offset <= one.last),
            None,
        )

    async def entries(self, partition: int, offsets: Sequence[int]) -> list[tuple[int, JournalEntry]]:
        return [(offset, self.entries_at[offset]) for offset in offsets]

    async def touching(self, partition: int, cells: Collection[Cell], since_ms: int) -> list[int]:
        return list(range(len(self.entries_at)))


@dataclass
class Look:
    """What ClickHouse says at one look; kept until the next one is scripted."""

    stored: dict[Key, Side] = field(default_factory=dict)
    measured: dict[Key, Side] = field(default_factory=dict)
    as_if_always: dict[Key, Side] = field(default_factory=dict)
    unsettled: set[Cell] = field(default_factory=set)
    progress: dict[int, int] = field(default_factory=lambda: {0: 100})
    newest: dict[int, int] = field(default_factory=lambda: {0: 99})
    later: set[str] = field(default_factory=set)


class MemoryWarehouse:
    def __init__(self, *looks: Look) -> None:
        self.looks = list(looks)
        self.months: dict[tuple[str, str], PeriodTotal] = {}
        self.versions: dict[int, int] = {}

    @property
    def look(self) -> Look:
        return self.looks[0]

    async def progress(self) -> dict[int, int]:
        return self.look.progress

    async def newest_sources(self, tenants: Collection[str]) -> dict[int, int]:
        newest = self.look.newest
        if len(self.looks) > 1:
            del self.looks[0]
        return newest

    async def unsettled(self, cells: Collection[Cell], progress: Mapping[int, int]) -> set[Cell]:
        return self.look.unsettled & set(cells)

    async def stored_rollups(self, cells: Collection[Cell]) -> dict[Key, Side]:
        return {key: side for key, side in self.look.stored.items() if key.cell in cells}

    async def stored_samples(self, cells: Collection[Cell], meters: Mapping[str, Meter]) -> dict[Key, Side]:
        return {}

    async def measured(self, meter: Meter, cells: Collection[Cell], *, as_if_always: bool = False) -> dict[Key, Side]:
        figures = self.look.as_if_always if as_if_always else self.look.measured
        return {key: side for key, side in figures.items() if key.cell in cells and key.meter == meter.meter_id}

    async def later_activated(self) -> set[str]:
        return self.look.later

    async def cells_between(self, span: Any, tenants: Collection[str] | None) -> list[Cell]:
        return sorted({key.cell for key in {*self.look.stored, *self.look.measured}})

    async def sample_cells(self, span: Any, count: int, seed: int) -> list[Cell]:
        return []

    async def period_totals(self, tenants: Collection[str], meter: Meter, period: Any) -> dict[str, PeriodTotal]:
        keys = [(tenant, meter.meter_id) for tenant in tenants]
        return {key[0]: self.months[key] for key in keys if key in self.months}

    async def newest_versions(self, since: datetime) -> dict[int, int]:
        return self.versions


class MemoryLive:
    def __init__(self) -> None:
        self.said: dict[tuple[str, str], list[PeriodTotal]] = {}
        self.offset = 10
        self.refilled: list[Any] = []

    async def states(self) -> dict[int, LiveState]:
        return {0: LiveState(self.offset, is_filled=True)}

    async def totals(self, keys: Sequence[tuple[str, Meter, str]]) -> list[PeriodTotal]:
        found = []
        for tenant, meter, _ in keys:
            said = self.said.get((tenant, meter.meter_id), [NO_TOTAL])
            found.append(said.pop(0) if len(said) > 1 else said[0])
        return found

    async def refill(self, partition: int, keys: Sequence[tuple[str, str, str]]) -> None:
        self.refilled.append((partition, list(keys)))


def side(quantity: str, events: int) -> Side:
    return Side(Decimal(quantity), events)


def changed(look: Look, **changes: Any) -> Look:
    return replace(look, **changes)
