"""What one `apply` puts into a book and takes out of it, per tenant and meter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from core.journal import SampleRow
from streams.adapters.sample_book.stored_totals import StoredMeter, StoredTotal, StoredTotals
from streams.domain.period_totals import SLOT_US, PeriodNames


@dataclass(slots=True)
class Changes:
    """Samples of one meter that are not in the book yet, and stored ones (as their table has them) that leave it."""

    meter: StoredMeter
    put: list[SampleRow] = field(default_factory=list)
    taken: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class Periods:
    """Finds the totals that an instant of a meter belongs to, during one `apply`."""

    names: PeriodNames
    totals: StoredTotals
    _found: dict[tuple[int, int], list[StoredTotal]] = field(default_factory=dict)

    def at(self, meter: StoredMeter, time_us: int) -> list[StoredTotal]:
        """Return the touched totals of the live periods that hold an instant."""
        key = (meter.row_id, time_us // SLOT_US)
        found = self._found.get(key)
        if found is None:
            touch = self.totals.touch
            names = self.names.at(meter.tenant, meter.aggregation, time_us, meter.horizon_us)
            found = self._found[key] = [touch(meter, name, start_us, end_us) for name, start_us, end_us in names]
        return found
