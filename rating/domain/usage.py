"""Usage as rating sees it: totals of one meter and one set of dimension values over one period."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from core.errors import must_hold


@dataclass(frozen=True, slots=True)
class UsageRow:
    """A quantity of a meter, in its unit, for dimension values sorted by name; unknown dimensions are absent."""

    meter_id: str
    dimensions: tuple[tuple[str, str], ...]
    quantity: Decimal

    def __post_init__(self) -> None:
        must_hold(self.quantity >= 0, f"usage of {self.meter_id} is negative: {self.quantity}")


def usage_row(meter_id: str, quantity: Decimal | int | str, dimensions: Mapping[str, str] | None = None) -> UsageRow:
    """Return a usage row with its dimensions in order; an empty value means the dimension is not known."""
    known = tuple(sorted((name, value) for name, value in (dimensions or {}).items() if value))
    return UsageRow(meter_id, known, Decimal(quantity))


def total_by_meter(rows: Iterable[UsageRow]) -> dict[str, dict[tuple[tuple[str, str], ...], Decimal]]:
    """Add rows up to one quantity per meter and dimension values, so that order and splitting of rows cannot matter."""
    totals: dict[str, dict[tuple[tuple[str, str], ...], Decimal]] = {}
    for row in rows:
        of_meter = totals.setdefault(row.meter_id, {})
        of_meter[row.dimensions] = of_meter.get(row.dimensions, Decimal(0)) + row.quantity
    return totals
