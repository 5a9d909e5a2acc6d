"""Usage of one meter, as coarse and as fine as prices may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rating.domain.adjust.adjustment import Usage
from rating.domain.price import ZERO, UsageEntry


@dataclass(frozen=True, slots=True)
class MeterUsage:
    """Usage of one meter: totals by dimension values, and the same as fine as its prices ask."""

    totals: Usage = field(default_factory=dict)
    entries: tuple[UsageEntry, ...] = ()

    def plus(self, more: MeterUsage) -> MeterUsage:
        """Return both together."""
        totals = dict(self.totals)
        for dimensions, quantity in more.totals.items():
            totals[dimensions] = totals.get(dimensions, ZERO) + quantity
        return MeterUsage(totals, (*self.entries, *more.entries))


# Usage by meter id.
Used = Mapping[str, MeterUsage]
