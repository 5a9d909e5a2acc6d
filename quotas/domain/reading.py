"""A live quota as it is read: parts of periods in, one figure with its freshness out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from core.calendar import Calendar
from core.event_time import to_microseconds
from core.journal import PRESENT
from core.live_quota import (
    NOTHING,
    Part,
    Stretch,
    merge_parts,
    merge_periods,
    partitions_in,
    quantity_of,
    read_parts,
    weigh,
    weight_us,
)
from core.meters import Meter
from core.period import Period
from quotas.domain.span import Span, periods_of

Hash = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What Redis holds at one moment: the hashes in the order asked for, {} for what is not there.

    `freshness_ms` is per partition the append time of the newest record in the totals; `is_filled` says that the totals
    of all partitions are there, `has_hours` that their hours are, too.
    """

    hashes: Sequence[Hash]
    freshness_ms: Mapping[str, int]
    is_filled: bool
    has_hours: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """Usage of a meter in a window. `quantity` is scaled, None where the meter cannot be read by this span.

    Complete up to `as_of` (None: nothing was counted anywhere yet); `is_stale` while Redis is being filled.
    """

    meter_id: str
    window: Period
    quantity: int | None
    events: int
    as_of: datetime | None
    is_stale: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to read of a meter: the periods' hashes, and where to look for a level that was set before the window."""

    meter: Meter
    periods: tuple[str, ...]
    before: tuple[str, ...] = ()


def want(meter: Meter, span: Span) -> Wanted:
    """Return what to read; raises `InvalidInputError` (`not_rolling`)."""
    periods = periods_of(span, meter.aggregation)
    # The present level holds since its last event: if that was before the window, it is the level at its start.
    return Wanted(meter, periods, (PRESENT, *span.before) if meter.aggregation == "time_weighted" else ())


def make_reading(
    wanted: Wanted,
    span: Span,
    snapshot: Snapshot,
    hashes: Sequence[Hash],
    earlier: Hash,
    calendar: Calendar,
    now: datetime,
) -> Reading:
    """Merge a meter's hashes, in the order of `wanted.periods`, into one figure.

    `earlier` is the newest hash of `wanted.before` whose level was set before the window.
    """
    aggregation = wanted.meter.aggregation
    by_period = [merge_parts(aggregation, read_parts(fields)) for fields in hashes]
    events = sum(part.events for part in by_period)
    if aggregation == "time_weighted":
        level = merge_parts(aggregation, read_parts(earlier)).level
        quantity = weigh(_stretches(wanted, by_period, calendar), level, to_microseconds(now))
    else:
        merged = by_period[0] if len(by_period) == 1 else merge_periods(aggregation, by_period)
        quantity = quantity_of(aggregation, merged)
    is_stale = not (snapshot.has_hours if span.kind == "rolling" else snapshot.is_filled)
    as_of = _as_of(hashes, snapshot.freshness_ms)
    return Reading(wanted.meter.meter_id, span.window, quantity, events, as_of, is_stale)


def read_freshness(fields: Mapping[str, str]) -> dict[str, int]:
    """Return partition -> the append time of its newest record, from `meterbook:freshness`.

    A partition in which nothing was counted yet has no time to tell and is left out.
    """
    freshness = {}
    for name, text in fields.items():
        at_ms = int(msgspec.json.decode(text)["at_ms"])
        if at_ms > 0:
            freshness[name.removeprefix("p")] = at_ms
    return freshness


def _stretches(wanted: Wanted, by_period: Sequence[Part], calendar: Calendar) -> list[Stretch]:
    stretches = []
    for name, part in zip(wanted.periods, by_period, strict=True):
        bounds = calendar.period(name)
        start_us, end_us = to_microseconds(bounds.start), to_microseconds(bounds.end)
        weight = weight_us(wanted.meter.weight_per, end_us - start_us)
        stretches.append(Stretch(start_us, end_us, weight, None if part is NOTHING else part))
    return stretches


def _as_of(hashes: Sequence[Hash], freshness_ms: Mapping[str, int]) -> datetime | None:
    """Return up to when the figure is complete: the least fresh partition that feeds it, else of all."""
    feeding = {partition for fields in hashes for partition in partitions_in(fields)}
    known = [freshness_ms[name] for name in feeding if name in freshness_ms] or list(freshness_ms.values())
    return datetime.fromtimestamp(min(known) / 1_000, UTC) if known else None
