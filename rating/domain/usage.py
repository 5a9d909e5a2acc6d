"""Usage as rating sees it: totals of one meter and one set of dimension values over one period.

Sums and counts add up from their parts, however they are split. An average, a number of distinct values or a level does
not: of such a meter each total belongs to one grouping, and a price takes the grouping it splits by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from core.errors import must_hold

Dimensions = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class UsageRow:
    """A quantity of a meter, in its unit, for dimension values sorted by name; unknown dimensions are absent.

    `grouped_by` is None for a part that adds up with others. Otherwise this is the whole of all usage with these values
    of those dimensions, and adds up with nothing.
    """

    meter_id: str
    dimensions: Dimensions
    quantity: Decimal
    grouped_by: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        must_hold(self.quantity >= 0, f"usage of {self.meter_id} is negative: {self.quantity}")


def usage_row(
    meter_id: str,
    quantity: Decimal | int | str,
    dimensions: Mapping[str, str] | None = None,
    grouped_by: tuple[str, ...] | None = None,
) -> UsageRow:
    """Return a usage row with its dimensions in order; an empty value means the dimension is not known."""
    return UsageRow(meter_id, known_dimensions(dimensions or {}), Decimal(quantity), grouped_by)


def known_dimensions(dimensions: Mapping[str, str]) -> Dimensions:
    """Return dimension values by name; an empty value means the dimension is not known."""
    return tuple(sorted((name, value) for name, value in dimensions.items() if value)) if dimensions else ()


class UsageTotals:
    """Rows added up, so that order and splitting of parts cannot matter."""

    def __init__(self, rows: Iterable[UsageRow]) -> None:
        self._parts: dict[str, dict[Dimensions, Decimal]] = {}
        self._wholes: dict[str, dict[tuple[str, ...], dict[Dimensions, Decimal]]] = {}
        for row in rows:
            if row.grouped_by is None:
                of_meter = self._parts.setdefault(row.meter_id, {})
                of_meter[row.dimensions] = of_meter.get(row.dimensions, Decimal(0)) + row.quantity
            else:
                whole = self._wholes.setdefault(row.meter_id, {}).setdefault(row.grouped_by, {})
                must_hold(row.dimensions not in whole, f"{row.meter_id} has two totals for {row.dimensions}")
                whole[row.dimensions] = row.quantity
        both = self._parts.keys() & self._wholes.keys()
        must_hold(not both, f"usage of {', '.join(both)} comes both in parts and as totals")

    def of_meter(self, meter_id: str, split_by: tuple[str, ...]) -> Mapping[Dimensions, Decimal]:
        """Return a meter's totals by dimension values, split at least by these dimensions."""
        if meter_id not in self._wholes:
            return self._parts.get(meter_id, {})
        whole = self._wholes[meter_id].get(split_by)
        must_hold(whole is not None, f"no total of {meter_id} by {split_by or 'nothing'} was read")
        assert whole is not None
        return whole

    def meters(self) -> Iterator[str]:
        """Yield the meters that have usage."""
        yield from self._parts
        yield from self._wholes
