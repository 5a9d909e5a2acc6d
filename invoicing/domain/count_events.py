"""Counts a window's usage again from single events, into the same evidence that invoices are made from.

A second way to the figures of the rollups: the same rules for reading an event, other code for adding up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal

from core.event_time import to_datetime, to_microseconds
from core.meters import Meter
from core.period import Period, format_instant
from core.quantity import UNIT, unscale
from core.time_weighted import quantity_of_area, weight_us
from invoicing.domain.stored_event import Reading, StoredEvent
from invoicing.domain.usage_evidence import HourOfUsage, UsageEvidence, usage_by_hour
from rating.domain.measured import MeasuredTotal
from rating.domain.price import Dimensions, plain
from rating.domain.windows import Windows, windows_of

# When (microseconds since 1970 UTC), source offset, index: the order in which samples of a meter follow each other.
_Place = tuple[int, int, int]
_Sample = tuple[_Place, Decimal, str]
_BEFORE: _Place = (0, 0, 0)
_MINUTE_US, _HOUR_US = 60_000_000, 3_600_000_000


class EventCount:
    """Adds the readings of a window up; `evidence` is what an invoice over them would keep."""

    def __init__(self, windows: Windows, meters: Mapping[str, Meter], month: Period) -> None:
        self._windows, self._meters, self._month = windows, meters, month
        self._spans_us = [(to_microseconds(one.start), to_microseconds(one.end)) for one in windows_of(windows)]
        # By the hour's start in microseconds: whole numbers, because there is one such step for every event.
        self._hours: dict[tuple[str, Dimensions, int], tuple[int, int]] = {}
        self._samples: dict[str, dict[Dimensions, list[_Sample]]] = {}

    def add(self, event: StoredEvent, reading: Reading) -> bool:
        """Count a reading if it belongs to the window; a level set before it counts as what the window begins with."""
        meter = reading.meter
        if meter.is_additive:
            minute_us = event.time_us - event.time_us % _MINUTE_US
            if not any(start <= minute_us < end for start, end in self._spans_us):
                return False
            key = (meter.meter_id, reading.dimensions, event.time_us - event.time_us % _HOUR_US)
            scaled, events = self._hours.get(key, (0, 0))
            self._hours[key] = scaled + reading.scaled, events + 1
            return True
        if meter.aggregation == "time_weighted":
            is_counted = event.time_us < self._spans_us[-1][1]
        else:
            is_counted = any(start <= event.time_us < end for start, end in self._spans_us)
        if not is_counted:
            return False
        place = (event.time_us, event.offset, event.position)
        series = self._samples.setdefault(meter.meter_id, {}).setdefault(reading.values, [])
        series.append((place, reading.quantity, reading.text))
        return True

    def evidence(self) -> UsageEvidence:
        """Return the evidence of what was counted so far."""
        hours = [
            HourOfUsage(meter_id, dimensions, to_datetime(hour_us), unscale(scaled), events)
            for (meter_id, dimensions, hour_us), (scaled, events) in self._hours.items()
        ]
        sampled: list[MeasuredTotal] = []
        for meter_id, series in self._samples.items():
            meter = self._meters[meter_id]
            measure = self._levels if meter.aggregation == "time_weighted" else _values
            sampled += measure(meter, series)
        return UsageEvidence.of(usage_by_hour(hours), sampled, self._meters)

    def _levels(self, meter: Meter, series: Mapping[Dimensions, list[_Sample]]) -> list[MeasuredTotal]:
        """Return areas under levels window by window; what several windows hold adds up."""
        found: dict[Dimensions, MeasuredTotal] = {}
        for window in windows_of(self._windows):
            for total in _areas(meter, series, window, self._month):
                before = found.get(total.dimensions)
                found[total.dimensions] = total if before is None else _together(before, total)
        return list(found.values())


def _areas(
    meter: Meter, series: Mapping[Dimensions, list[_Sample]], window: Period, month: Period
) -> list[MeasuredTotal]:
    """Return areas under levels in a window: a series' level before it is one change at its start."""
    assert meter.weight_per is not None
    start_us, end_us = to_microseconds(window.start), to_microseconds(window.end)
    changes: dict[Dimensions, list[tuple[int, int, bytes]]] = {}
    for values, samples in series.items():
        ordered = sorted(sample for sample in samples if sample[0][0] < end_us)
        before = [sample for sample in ordered if sample[0][0] < start_us]
        within = [sample for sample in ordered if sample[0][0] >= start_us]
        held = 0
        for place, quantity, _ in ([(_BEFORE, before[-1][1], "")] if before else []) + within:
            level = int(quantity * UNIT)
            for grouping in _groupings(values):
                line = _line(values, place, quantity, "")
                changes.setdefault(grouping, []).append((place[0], level - held, line))
            held = level
    totals = []
    for grouping, found in changes.items():
        area = sum(change * (end_us - max(at, start_us)) for at, change, _ in found)
        level_before = sum(change for at, change, _ in found if at == 0)
        events = sum(1 for at, _, _ in found if at > 0)
        working = (
            f"level {plain(unscale(level_before))} at {format_instant(window.start)}, {events} events until"
            f" {format_instant(window.end)}: {plain(unscale(area))} {meter.unit}·µs"
            f" ÷ {weight_us(meter.weight_per, month)} µs"
        )
        quantity = unscale(quantity_of_area(area, meter.weight_per, month))
        totals.append(MeasuredTotal(meter, grouping, quantity, events, working, _digest(line for *_, line in found)))
    return totals


def _together(before: MeasuredTotal, after: MeasuredTotal) -> MeasuredTotal:
    """Return what two windows hold; the form of the digest is that of rating.adapters.measured_usage."""
    digest = hashlib.sha256(f"{before.digest}\n{after.digest}\n".encode()).hexdigest()
    return replace(
        before,
        quantity=before.quantity + after.quantity,
        events=before.events + after.events,
        working=f"{before.working}; {after.working}",
        digest=digest,
    )


def _values(meter: Meter, series: Mapping[Dimensions, list[_Sample]]) -> list[MeasuredTotal]:
    """Return the totals of a unique, max, min or latest meter by every grouping."""
    found: dict[Dimensions, list[tuple[_Sample, bytes]]] = {}
    for values, samples in series.items():
        for sample in samples:
            place, quantity, text = sample
            for grouping in _groupings(values):
                found.setdefault(grouping, []).append((sample, _line(values, place, quantity, text)))
    return [_value_total(meter, grouping, samples) for grouping, samples in found.items()]


def _value_total(meter: Meter, grouping: Dimensions, samples: list[tuple[_Sample, bytes]]) -> MeasuredTotal:
    quantities = [quantity for (_, quantity, _), _ in samples]
    count = len(samples)
    match meter.aggregation:
        case "unique":
            distinct = len({text for (_, _, text), _ in samples})
            quantity, working = Decimal(distinct), f"{distinct} distinct values of {count} events"
        case "max":
            quantity, working = max(quantities), f"the largest value of {count} events"
        case "min":
            quantity, working = min(quantities), f"the smallest value of {count} events"
        case _:
            (place, quantity, _), _ = max(samples, key=lambda sample: sample[0][0])
            working = f"the latest value of {count} events, of {place[0]} µs since 1970 UTC"
    return MeasuredTotal(meter, grouping, quantity, count, working, _digest(line for _, line in samples))


def _groupings(values: Dimensions) -> list[Dimensions]:
    """Return the groupings a sample stands in: that of all usage, and its value of each dimension."""
    return [(), *((one,) for one in values)]


def _line(values: Dimensions, place: _Place, quantity: Decimal, text: str) -> bytes:
    """Return the line that stands for a sample in the digest; the form is that of rating.adapters.measured_usage."""
    named = "\x1f".join(f"{name}={value}" for name, value in values)
    at_us, offset, position = place
    return f"{named}\t{at_us}\t{plain(quantity)}\t{text}\t{offset}.{position}".encode()


def _digest(lines: Iterable[bytes]) -> str:
    hashes = sorted(hashlib.sha256(line).digest() for line in lines)
    # ClickHouse, which made the digest on the line, joins them as texts, and those end before their last zero bytes.
    return hashlib.sha256(b"".join(found.rstrip(b"\0") for found in hashes)).hexdigest()
