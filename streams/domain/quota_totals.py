"""Live totals per tenant, meter and period of one source partition, and which thresholds they have reached.

All of it is a function of the journal, read in order: also how often a correction took a total back below a threshold
(`falls`), so that a crossing has the same name after a restart, a rebalance or a replay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Protocol

import msgspec

from core.calendar import UTC_MONTHS, Calendar
from core.event_time import to_microseconds
from core.journal import JournalEntry, PeriodRow
from core.live_quota import Part, merge_parts, quantity_of, weight_us
from core.meters import Aggregation, Meter
from core.quantity import UNIT, unscale
from core.thresholds import Threshold, ThresholdsOf, same_percentages

PeriodKey = tuple[str, str, str]
MONTH_LENGTH = len("2026-10")
BILLING_LENGTH = len("2026-10-15")
HOUR_LENGTH = len("2026-10-31T07")
# Kept in memory after the last touch; what is older is in the book.
_HOUR_IN_MEMORY_MS = 3 * 3_600_000
_PERIOD_IN_MEMORY_MS = 3 * 86_400_000
_FORGET_EVERY_MS = 600_000
# Totals of these fall only when a correction takes something out. The others go up and down by themselves, and then
# only a correction re-arms a threshold, or every swing around it would be an alert.
_GROWING: frozenset[str] = frozenset({"sum", "count", "unique", "max"})


@dataclass(frozen=True, slots=True)
class QuotaLimit:
    """The limit of a meter for a tenant and month or billing period, in the meter's unit; `hard` stops the tenant."""

    limit: Decimal
    unit: str
    hard: bool
    is_billing: bool = False


Limits = Mapping[tuple[str, str], QuotaLimit]


@dataclass(frozen=True)
class QuotaRules:
    """What totals are compared with: limits by (tenant, meter), thresholds, meters by id, and tenants' calendars."""

    limits: Limits
    thresholds_of: ThresholdsOf = field(default=same_percentages((80, 100)))
    meters: Mapping[str, Meter] = field(default_factory=dict)
    calendars: Mapping[str, Calendar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Total:
    """One segment of a period's total, as the journal entry at `version` left it (`core.journal.PeriodRow`)."""

    tenant: str
    meter: str
    period: str
    segment: int
    quantity: int
    events: int
    version: int
    received_ms: int
    aggregation: Aggregation = "sum"
    level: int = 0
    at_us: int = 0

    @property
    def is_hour(self) -> bool:
        """Whether it is the total of an hour, of which there are many."""
        return len(self.period) == HOUR_LENGTH

    @property
    def part(self) -> Part:
        """The figures alone."""
        return Part(self.quantity, self.events, self.level, self.at_us)


@dataclass(slots=True)
class PeriodState:
    """A period's segments, and every fall of its measure by corrections as (from, to), neighbouring falls as one."""

    segments: dict[int, Total] = field(default_factory=dict)
    falls: list[tuple[int, int]] = field(default_factory=list)
    received_ms: int = 0

    def measure(self, now_us: int) -> int:
        """Return the scaled quantity; of a time-weighted meter the exact area until now."""
        if not self.segments:
            return 0
        aggregation = next(iter(self.segments.values())).aggregation
        part = merge_parts(aggregation, [total.part for total in self.segments.values()])
        if aggregation == "time_weighted":
            return part.quantity + part.level * max(0, now_us - part.at_us)
        return quantity_of(aggregation, part)

    def arming(self, bar: Decimal) -> int:
        """Return how often the measure fell from the bar or above to below it."""
        return sum(1 for before, after in self.falls if before >= bar > after)


class TotalsBook(Protocol):
    """Port: where the totals of one partition are kept beyond memory."""

    def find(self, key: PeriodKey) -> PeriodState | None:
        """Return a period's state."""
        ...

    def put(self, states: Mapping[PeriodKey, PeriodState]) -> None:
        """Keep the states; durable with the next commit."""
        ...

    def newest(self) -> Iterable[PeriodKey]:
        """Return the newest month and billing period of each tenant and meter."""
        ...

    def periods(self, *, hours: bool) -> Iterator[tuple[PeriodKey, PeriodState]]:
        """Yield all hours, newest first, or all other periods."""
        ...


@dataclass(frozen=True, slots=True)
class Crossing:
    """A total reached a threshold within a month or billing period, for the `arming`-th time after a fall."""

    tenant: str
    meter: str
    period: str
    threshold: Threshold
    arming: int
    used: Decimal
    limit: Decimal | None
    unit: str

    @property
    def mark(self) -> Mark:
        """What tells this crossing from every other; a limit counts only where the threshold is a part of it."""
        limit = self.limit if self.threshold.kind == "percent" else None
        return ((self.tenant, self.meter, self.period), self.threshold, limit, self.arming)


Mark = tuple[PeriodKey, Threshold, Decimal | None, int]


class QuotaTotals:
    """Totals as the journal tells them, and the crossings that were announced."""

    def __init__(self, book: TotalsBook, announced: Iterable[Mark] = ()) -> None:
        self._book = book
        self._states: dict[PeriodKey, PeriodState] = {}
        self._changed: dict[PeriodKey, PeriodState] = {}
        # By (tenant, meter, kind of period): a limit that was changed today says nothing about the periods before.
        self._newest: dict[tuple[str, str, int], str] = {}
        self._forgotten_ms = 0
        self._announced: set[Mark] = set(announced)
        for tenant, meter, period in book.newest():
            self._remember_newest(tenant, meter, period)

    def apply(self, version: int, entry: JournalEntry) -> list[Total]:
        """Take over an entry's period totals; returns those that changed."""
        corrected = {row.tenant for row in entry.corrections}
        rows: dict[PeriodKey, list[PeriodRow]] = {}
        for row in entry.periods:
            rows.setdefault((row.tenant, row.meter, row.period), []).append(row)
        changed: list[Total] = []
        for key, found in rows.items():
            aggregation: Aggregation = entry.aggregations.get(key[1], "sum")  # type: ignore[assignment]
            totals = [_total(row, aggregation, version, entry.received_ms) for row in found]
            changed += self._change(key, totals, entry.received_ms, is_corrected=key[0] in corrected)
        self._forget(entry.received_ms)
        return changed

    def take_changed(self) -> dict[PeriodKey, PeriodState]:
        """Return the states changed since the last call, for the book."""
        changed, self._changed = self._changed, {}
        return changed

    def all_totals(self, *, hours: bool) -> Iterator[Total]:
        """Yield the totals of all hours, newest first, or of all other periods, for a store that was wiped."""
        for key, state in self._book.periods(hours=hours):
            yield from (self._states.get(key) or state).segments.values()

    def used(self, tenant: str, meter: str, period: str) -> Decimal:
        """Return a period's total over its segments."""
        state = self._state((tenant, meter, period))
        return unscale(state.measure(0)) if state else Decimal(0)

    def crossings(self, rules: QuotaRules, now_us: int, among: Iterable[PeriodKey] | None = None) -> list[Crossing]:
        """Return thresholds reached and not announced yet, lowest first, and remember them.

        `among` narrows the search to changed periods; without it the newest of each meter are searched.
        """
        if among is None:
            among = [(tenant, meter, period) for (tenant, meter, _), period in self._newest.items()]
        found = [crossing for key in set(among) for crossing in self._crossings_of(key, rules, now_us)]
        self._announced |= {crossing.mark for crossing in found}
        return sorted(found, key=lambda found: (found.tenant, found.meter, found.period, found.threshold))

    def moves_by_itself(self) -> list[PeriodKey]:
        """Return the newest periods of time-weighted meters: their totals grow without any event."""
        keys = [(tenant, meter, period) for (tenant, meter, _), period in self._newest.items()]
        return [key for key in keys if self._aggregation(key) == "time_weighted"]

    def _change(self, key: PeriodKey, totals: Sequence[Total], received_ms: int, *, is_corrected: bool) -> list[Total]:
        state = self._state(key)
        if state is None:
            state = self._states[key] = PeriodState()
            self._remember_newest(*key)
        newer = [
            total
            for total in totals
            if (known := state.segments.get(total.segment)) is None or known.version < total.version
        ]
        if not newer:
            return []
        now_us = received_ms * 1_000
        watches = len(key[2]) in (MONTH_LENGTH, BILLING_LENGTH) and (is_corrected or newer[0].aggregation in _GROWING)
        before = state.measure(now_us) if watches else 0
        for total in newer:
            state.segments[total.segment] = total
        state.received_ms = max(state.received_ms, received_ms)
        if watches and (after := state.measure(now_us)) < before:
            if state.falls and state.falls[-1][1] == before:
                state.falls[-1] = (state.falls[-1][0], after)
            else:
                state.falls.append((before, after))
        self._changed[key] = state
        return newer

    def _crossings_of(self, key: PeriodKey, rules: QuotaRules, now_us: int) -> list[Crossing]:
        tenant, meter, period = key
        length = len(period)
        if length not in (MONTH_LENGTH, BILLING_LENGTH):
            return []
        quota = rules.limits.get((tenant, meter))
        # A tenant whose billing periods are months has no others.
        is_of_limit = quota is not None and quota.is_billing == (length == BILLING_LENGTH)
        thresholds = rules.thresholds_of(tenant, meter)
        if not is_of_limit:
            thresholds = tuple(t for t in thresholds if t.kind == "units" and length == MONTH_LENGTH)
        if not thresholds or (state := self._state(key)) is None:
            return []
        limit = quota.limit if quota is not None and is_of_limit else None
        weight = self._weight(key, rules)
        measure = state.measure(now_us)
        unit = quota.unit if quota is not None else meter_unit(rules, meter)
        found = []
        for threshold, bar in _bars(thresholds, limit, weight):
            if measure < bar:
                break
            crossing = Crossing(*key, threshold, state.arming(bar), unscale(measure // weight), limit, unit)
            if crossing.mark not in self._announced:
                found.append(crossing)
        return found

    def _weight(self, key: PeriodKey, rules: QuotaRules) -> int:
        """Return what the measure of one unit is: 1, or for a time-weighted meter the microseconds it is held for."""
        meter = rules.meters.get(key[1])
        if self._aggregation(key) != "time_weighted" or meter is None:
            return 1
        bounds = rules.calendars.get(key[0], UTC_MONTHS).period(key[2])
        return weight_us(meter.weight_per, to_microseconds(bounds.end) - to_microseconds(bounds.start))

    def _aggregation(self, key: PeriodKey) -> str | None:
        state = self._state(key)
        return next(iter(state.segments.values())).aggregation if state and state.segments else None

    def _state(self, key: PeriodKey) -> PeriodState | None:
        state = self._states.get(key)
        if state is None:
            state = self._book.find(key)
            if state is not None:
                self._states[key] = state
        return state

    def _remember_newest(self, tenant: str, meter: str, period: str) -> None:
        if len(period) in (MONTH_LENGTH, BILLING_LENGTH):
            kind = (tenant, meter, len(period))
            self._newest[kind] = max(period, self._newest.get(kind, ""))

    def _forget(self, received_ms: int) -> None:
        if received_ms - self._forgotten_ms < _FORGET_EVERY_MS:
            return
        self._forgotten_ms = received_ms
        old = [
            key
            for key, state in self._states.items()
            if key not in self._changed
            and received_ms - state.received_ms
            > (_HOUR_IN_MEMORY_MS if len(key[2]) == HOUR_LENGTH else _PERIOD_IN_MEMORY_MS)
        ]
        for key in old:
            del self._states[key]


def meter_unit(rules: QuotaRules, meter: str) -> str:
    """Return a meter's unit, "" if the meter is not known (yet)."""
    known = rules.meters.get(meter)
    return known.unit if known is not None else ""


def encode_state(state: PeriodState) -> bytes:
    """Return a state's bytes, for a book."""
    return _encoder.encode(
        _StoredState(
            state.received_ms,
            [
                _StoredTotal(
                    total.segment,
                    str(total.quantity),
                    total.events,
                    total.version,
                    total.received_ms,
                    total.aggregation,
                    str(total.level),
                    total.at_us,
                )
                for total in state.segments.values()
            ],
            [(str(before), str(after)) for before, after in state.falls],
        )
    )


def decode_state(key: PeriodKey, raw: bytes) -> PeriodState:
    """Read a state's bytes."""
    stored = _decoder.decode(raw)
    segments = {
        total.segment: Total(
            *key,
            total.segment,
            int(total.quantity),
            total.events,
            total.version,
            total.received_ms,
            total.aggregation,
            int(total.level),
            total.at_us,
        )
        for total in stored.segments
    }
    return PeriodState(segments, [(int(before), int(after)) for before, after in stored.falls], stored.received_ms)


class _StoredTotal(msgspec.Struct, array_like=True):
    segment: int
    quantity: str
    events: int
    version: int
    received_ms: int
    aggregation: Aggregation
    level: str
    at_us: int


class _StoredState(msgspec.Struct, array_like=True):
    received_ms: int
    segments: list[_StoredTotal]
    falls: list[tuple[str, str]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_StoredState)


def _total(row: PeriodRow, aggregation: Aggregation, version: int, received_ms: int) -> Total:
    return Total(
        row.tenant,
        row.meter,
        row.period,
        row.segment,
        int(row.quantity),
        row.events,
        version,
        received_ms,
        aggregation,
        int(row.level),
        row.at_us,
    )


@lru_cache(maxsize=10_000)
def _bars(
    thresholds: tuple[Threshold, ...], limit: Decimal | None, weight: int
) -> tuple[tuple[Threshold, Decimal], ...]:
    """Return the thresholds that can be reached with their bars as measures, lowest bar first."""
    bars = [(threshold, bar * UNIT * weight) for threshold in thresholds if (bar := threshold.bar(limit)) is not None]
    return tuple(sorted(bars, key=lambda found: (found[1], found[0])))
