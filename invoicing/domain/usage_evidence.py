"""The usage behind an invoice: quantities by hour, as one read found them. Owns the digest that names the set.

Totals, the annex by day and each line's evidence all come from the same rows, so they cannot disagree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType
from typing import NamedTuple

from core.errors import BrokenInvariantError, must_hold
from core.meters import Meter
from rating.domain.fine_usage import Entries, digest_of_entries
from rating.domain.measured import MeasuredTotal, average_totals
from rating.domain.price import Dimensions, plain
from rating.domain.usage import UsageRow

_ZERO = Decimal(0)
# Dimension values, hour and quantity as they are written, quantity, events.
_Written = tuple[Dimensions, str, str, Decimal, int]
# Of an hour of usage; dimension values come first in what is written of it, and the quantity has the same place.
_meter_of, _quantity_of, _dimensions_of = itemgetter(0), itemgetter(3), itemgetter(0)


class HourOfUsage(NamedTuple):
    """What one hour holds of a meter and its dimension values; `events` counts the events behind the quantity.

    A tuple, because an invoice has hundreds of them; whether they make sense is checked where they become evidence.
    """

    meter_id: str
    dimensions: Dimensions
    hour: datetime
    quantity: Decimal
    events: int


@dataclass(frozen=True, slots=True)
class UsageEvidence:
    """All usage of a tenant in a window, by meter, dimension values and hour; and totals of what does not add up.

    Made by `of`. Raises `BrokenInvariantError` for a negative quantity, an hour without a time zone, and hours of a
    meter that do not stand together.
    """

    hours: tuple[HourOfUsage, ...]
    measured: tuple[MeasuredTotal, ...] = ()
    entries: Entries = field(default_factory=dict)
    # By meter, each hour and quantity once more as it is written.
    _of_meter: dict[str, list[_Written]] = field(init=False, repr=False, compare=False)
    _measured_of: dict[tuple[str, Dimensions], MeasuredTotal] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        must_hold(None not in {row.hour.tzinfo for row in self.hours}, "an hour of usage without a time zone")
        least = min(self.hours, key=_quantity_of, default=None)
        if least is not None and least.quantity < _ZERO:
            raise BrokenInvariantError(f"usage of {least.meter_id} is negative in {least.hour}: {least.quantity}")
        of_meter: dict[str, list[_Written]] = {}
        for meter_id, rows in groupby(self.hours, _meter_of):
            of_meter[meter_id] = [
                (dimensions, _hour(hour), plain(quantity), quantity, events)
                for _, dimensions, hour, quantity, events in rows
            ]
        must_hold(sum(map(len, of_meter.values())) == len(self.hours), "hours of usage that are not in order")
        object.__setattr__(self, "_of_meter", of_meter)
        measured_of = {(total.meter.meter_id, total.dimensions): total for total in self.measured}
        object.__setattr__(self, "_measured_of", measured_of)

    @classmethod
    def of(
        cls,
        hours: Iterable[HourOfUsage],
        sampled: Iterable[MeasuredTotal] = (),
        meters: Mapping[str, Meter] = MappingProxyType({}),
    ) -> UsageEvidence:
        """Put the rows in their order, and work out the averages among them."""
        ordered = sorted(hours)
        totals = list(sampled)
        for meter_id in {row.meter_id for row in ordered} & meters.keys():
            if meters[meter_id].aggregation == "average":
                mine = (row for row in ordered if row.meter_id == meter_id)
                parts = ((dict(row.dimensions), row.quantity, row.events) for row in mine)
                totals += average_totals(meters[meter_id], parts)
        return cls(tuple(ordered), tuple(sorted(totals, key=lambda total: (total.meter.meter_id, total.dimensions))))

    @property
    def digest(self) -> str:
        """SHA-256 over one line per row: meter, dimensions, hour, quantity, events, separated by tabs.

        Then one per sampled meter: meter, total, digest of its samples; and one per meter that was read by quarter
        hours or single events: meter, which, digest of its entries.
        """
        rows = [
            f"{meter_id}\t{_shown(dimensions)}\t{hour}\t{written}\t{events}\n"
            for meter_id, of_meter in self._of_meter.items()
            for dimensions, hour, written, _, events in of_meter
        ]
        summed = hashlib.sha256("".join(rows).encode())
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
            UsageRow(meter_id, dimensions, sum(map(_quantity_of, rows), _ZERO))
            for meter_id, of_meter in self._of_meter.items()
            if meter_id not in measured
            for dimensions, rows in groupby(of_meter, _dimensions_of)
        ]
        return parts + [total.as_row() for total in self.measured]

    def measured_total(self, meter_id: str, dimensions: Dimensions) -> MeasuredTotal | None:
        """Return the total of a meter that does not add up, for a line's dimension values; None for any other."""
        return self._measured_of.get((meter_id, dimensions))

    def by_hour(self, meter_id: str, dimensions: Dimensions) -> list[list[str | int]]:
        """Return [hour, quantity, events] of a meter, written, for rows that agree with all given dimension values.

        `dimensions` is a line's: none stands for every row of the meter, an empty value for rows that do not name it.
        """
        rows = self._of_meter.get(meter_id, [])
        agreeing = {values for values in {row[0] for row in rows} if _agrees(values, dimensions)}
        mine = [row for row in rows if row[0] in agreeing]
        if len(agreeing) <= 1 and len({row[1] for row in mine}) == len(mine):
            # As nearly always: one set of values, whose hours are in order.
            return [[hour, written, events] for _, hour, written, _, events in mine]
        found: dict[str, tuple[Decimal, int]] = {}
        for _, hour, _, quantity, events in mine:
            before, counted = found.get(hour, (_ZERO, 0))
            found[hour] = (before + quantity, counted + events)
        return [[hour, plain(quantity), events] for hour, (quantity, events) in sorted(found.items())]


def by_day(hours: Iterable[tuple[str, Decimal, int]], zone: tzinfo = UTC) -> list[tuple[str, Decimal]]:
    """Add hours of UTC up to days of a zone (`2026-10-31`); an hour that two of them share belongs to the first."""
    days: dict[str, Decimal] = {}
    for hour, quantity, _ in hours:
        day = _day(hour, zone)
        days[day] = days.get(day, _ZERO) + quantity
    return sorted(days.items())


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
