"""Totals of meters that do not add up, each with how it came about. Owns averages from their parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from core.meters import Meter
from core.quantity import UNIT, unscale
from core.time_weighted import divide_half_even
from rating.domain.price import plain
from rating.domain.usage import UsageRow, usage_row

Values = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class MeasuredTotal:
    """A meter's total for one value of one dimension, or for all of them (`dimensions` empty).

    `dimensions` keeps an empty value, which stands for usage that does not name the dimension. `working` says how the
    quantity came about, `digest` names the samples (SHA-256, "" where the hours of the evidence are the parts).
    """

    meter: Meter
    dimensions: Values
    quantity: Decimal
    events: int
    working: str
    digest: str = ""

    def as_row(self) -> UsageRow:
        """Return the total as rating takes it."""
        grouped_by = tuple(name for name, _ in self.dimensions)
        return usage_row(self.meter.meter_id, self.quantity, dict(self.dimensions), grouped_by)

    def as_evidence(self) -> dict[str, Any]:
        """Return what an invoice line keeps of it."""
        evidence = {
            "aggregation": self.meter.aggregation,
            "quantity": plain(self.quantity),
            "events": self.events,
            "working": self.working,
        }
        return {**evidence, "samples_digest": self.digest} if self.digest else evidence


def groupings_of(meter: Meter) -> list[tuple[str, ...]]:
    """Return the groupings a price may ask for: all of the meter's usage, and by each dimension alone."""
    return [(), *((name,) for name in meter.dimensions)]


def average_totals(meter: Meter, parts: Iterable[tuple[Mapping[str, str], Decimal, int]]) -> list[MeasuredTotal]:
    """Return the averages of parts (dimension values, sum, events) by every grouping, rounded half to even."""
    sums: dict[Values, tuple[Decimal, int]] = {}
    for dimensions, quantity, events in parts:
        for grouping in groupings_of(meter):
            values = tuple((name, dimensions.get(name, "")) for name in grouping)
            before = sums.get(values, (Decimal(0), 0))
            sums[values] = (before[0] + quantity, before[1] + events)
    return [
        MeasuredTotal(
            meter,
            values,
            unscale(divide_half_even(int(quantity * UNIT), events)),
            events,
            f"{plain(quantity)} ÷ {events} events",
        )
        for values, (quantity, events) in sorted(sums.items())
        if events
    ]
