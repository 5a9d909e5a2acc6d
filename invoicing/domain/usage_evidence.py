"""The usage behind an invoice: quantities by hour, as one read found them. Owns the digest that names the set.

Totals, the annex by day and each line's evidence all come from the same rows, so they cannot disagree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from functools import lru_cache
from itertools import groupby
from operator import itemgetter, le, lt
from types import MappingProxyType
from typing import NamedTuple

from core.errors import BrokenInvariantError, must_hold
from core.meters import Meter
from rating.domain.fine_usage import Entries, digest_of_entries
from rating.domain.measured import MeasuredTotal, average_totals
from rating.domain.price import Dimensions, plain
from rating.domain.usage import UsageRow

_ZERO = Decimal(0)
# Of an hour of such usage.
_instant_of, _quantity_of = itemgetter(0), itemgetter(1)
# An hour and its quantity as they are written, and its events.
_Written = list[str | int]


class HourOfUsage(NamedTuple):
    """What one hour holds of a meter and its dimension values; `events` counts the events behind the quantity."""

    meter_id: str
    dimensions: Dimensions
    hour: datetime
    quantity: Decimal
    events: int


class UsageByHour(NamedTuple):
    """The hours of a meter with the same dimension values: instant, quantity and number of events, by the hour.

    Tuples, because an invoice has hundreds of hours; whether they make sense is checked where they become evidence.
    """

    meter_id: str
    dimensions: Dimensions
    hours: tuple[tuple[datetime, Decimal, int], ...]


@dataclass(frozen=True, slots=True)
class UsageEvidence:
    """All usage of a tenant in a window, by meter, dimension values and hour; and totals of what does not add up.

    Made by `of`. Raises `BrokenInvariantError` for a negative quantity, an hour without a time zone, and usage that
    does not stand in its order.
    """

    usage: tuple[UsageByHour, ...]
    measured: tuple[MeasuredTotal, ...] = ()
    entries: Entries = field(default_factory=dict)
    # By meter, the hours of each set of dimension values once more as they are written.
    _of_meter: dict[str, list[tuple[UsageByHour, list[_Written]]]] = field(init=False, repr=False, compare=False)
    _measured_of: dict[tuple[str, Dimensions], MeasuredTotal] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        of_meter: dict[str, list[tuple[UsageByHour, list[_Written]]]] = {}
        for one in self.usage:
            meter_id, _, hours = one
            _check_hours(meter_id, hours)
            written: list[_Written] = [[_hour(at), plain(quantity), events] for at, quantity, events in hours]
            of_meter.setdefault(meter_id, []).append((one, written))
        keys = [(one.meter_id, one.dimensions) for one in self.usage]
        must_hold(all(map(lt, keys, keys[1:])), "usage that is not in order")
        object.__setattr__(self, "_of_meter", of_meter)
        measured_of = {(total.meter.meter_id, total.dimensions): total for total in self.measured}
        object.__setattr__(self, "_measured_of", measured_of)

    @classmethod
    def of(
        cls,
        usage: Iterable[UsageByHour],
        sampled: Iterable[MeasuredTotal] = (),
        meters: Mapping[str, Meter] = MappingProxyType({}),
    ) -> UsageEvidence:
        """Put usage in its order, that of the same values together, and work out the averages in it."""
        found: dict[tuple[str, Dimensions], UsageByHour] = {}
        for one in usage:
            key = (one.meter_id, one.dimensions)
            before = found.get(key)
            found[key] = one if before is None else UsageByHour(*key, tuple(sorted(before.hours + one.hours)))
        ordered = tuple(found[key] for key in sorted(found))
        totals = list(sampled)
        for meter_id in {one.meter_id for one in ordered} & meters.keys():
            if meters[meter_id].aggregation == "average":
                mine = (one for one in ordered if one.meter_id == meter_id)
                parts = ((dict(one.dimensions), hour[1], hour[2]) for one in mine for hour in one.hours)
                totals += average_totals(meters[meter_id], parts)
        return cls(ordered, tuple(sorted(totals, key=lambda total: (total.meter.meter_id, total.dimensions))))

    @property
    def digest(self) -> str:
        """SHA-256 over one line per row: meter, dimensions, hour, quantity, events, separated by tabs.

        Then one per sampled meter: meter, total, digest of its samples; and one per meter that was read by quarter
        hours or single events: meter, which, digest of its entries.
        """
        summed = hashlib.sha256()
        for meter_id, of_meter in self._of_meter.items():
            for one, written in of_meter:
                named = f"{meter_id}\t{_shown(one.dimensions)}"
                rows = [f"{named}\t{hour}\t{quantity}\t{events}\n" for hour, quantity, events in written]
                summed.update("".join(rows).encode())
        for total in self.measured:
            if total.digest and not total.dimensions:
                summed.update(f"{total.meter.meter_id}\t{plain(total.quantity)}\t{total.digest}\n".encode())
        for fine in sorted(self.entries, key=lambda one: (one.meter_id, one.grain.value, one.amount_property)):
            digest = digest_of_entries(self.entries[fine])
            summed.update(f"{fine.meter_id}\t{fine.grain.value}\t{digest}\n".encode())
        return summed.hexdigest()

    def totals(self) -> list[UsageRow]:
        """Return the window's total per meter and dimension values."""
        measured = {total.meter.meter_id for total in self.measured}
        parts = [
            UsageRow(meter_id, dimensions, sum(map(_quantity_of, hours), _ZERO))
            for meter_id, dimensions, hours in self.usage
            if meter_id not in measured
        ]
        return parts + [total.as_row() for total in self.measured]

    def measured_total(self, meter_id: str, dimensions: Dimensions) -> MeasuredTotal | None:
        """Return the total of a meter that does not add up, for a line's dimension values; None for any other."""
        return self._measured_of.get((meter_id, dimensions))

    def by_hour(self, meter_id: str, dimensions: Dimensions) -> list[list[str | int]]:
        """Return [hour, quantity, events] of a meter, written, for rows that agree with all given dimension values.

        `dimensions` is a line's: none stands for every row of the meter, an empty value for rows that do not name it.
        The list may be one that others have too.
        """
        agreeing = [both for both in self._of_meter.get(meter_id, ()) if _agrees(both[0].dimensions, dimensions)]
        if len(agreeing) == 1:
            ((usage, written),) = agreeing
            if len(set(map(_instant_of, usage.hours))) == len(written):
                # As nearly always: one set of values, each hour once.
                return written
        found: dict[str, tuple[Decimal, int]] = {}
        for usage, _ in agreeing:
            for at, quantity, events in usage.hours:
                before, counted = found.get(_hour(at), (_ZERO, 0))
                found[_hour(at)] = (before + quantity, counted + events)
        return [[hour, plain(quantity), events] for hour, (quantity, events) in sorted(found.items())]


def usage_by_hour(hours: Iterable[HourOfUsage]) -> list[UsageByHour]:
    """Return single hours put together by meter and dimension values, each in their order."""
    return [
        UsageByHour(meter_id, dimensions, tuple((hour.hour, hour.quantity, hour.events) for hour in mine))
        for (meter_id, dimensions), mine in groupby(sorted(hours), itemgetter(0, 1))
    ]


def by_day(hours: Iterable[tuple[str, Decimal, int]], zone: tzinfo = UTC) -> list[tuple[str, Decimal]]:
    """Add hours of UTC up to days of a zone (`2026-10-31`); an hour that two of them share belongs to the first."""
    days: dict[str, Decimal] = {}
    for hour, quantity, _ in hours:
        day = _day(hour, zone)
        days[day] = days.get(day, _ZERO) + quantity
    return sorted(days.items())


def _check_hours(meter_id: str, hours: Sequence[tuple[datetime, Decimal, int]]) -> None:
    must_hold(None not in {at.tzinfo for at, _, _ in hours}, "an hour of usage without a time zone")
    must_hold(all(map(le, hours, hours[1:])), "hours of usage that are not in order")
    least = min(hours, key=_quantity_of, default=None)
    if least is not None and least[1] < _ZERO:
        raise BrokenInvariantError(f"usage of {meter_id} is negative in {least[0]}: {least[1]}")


def _agrees(values: Dimensions, asked: Dimensions) -> bool:
    if not asked:
        return True
    known = dict(values)
    return all(known.get(name, "") == value for name, value in asked)


@lru_cache(maxsize=4_096)
def _shown(dimensions: Dimensions) -> str:
    return "\x1f".join(f"{name}={value}" for name, value in dimensions)


# Kept: a run writes the same hours of the same months for every tenant.
@lru_cache(maxsize=20_000)
def _hour(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H")


@lru_cache(maxsize=20_000)
def _day(hour: str, zone: tzinfo) -> str:
    return datetime.strptime(hour, "%Y-%m-%dT%H").replace(tzinfo=UTC).astimezone(zone).strftime("%Y-%m-%d")
