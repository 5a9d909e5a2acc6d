"""Thresholds: when a tenant is told about its usage. Owns what a threshold means as a quantity of the meter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

ThresholdKind = Literal["percent", "units"]


@dataclass(frozen=True, slots=True, order=True)
class Threshold:
    """A percentage of the tenant's limit, or a quantity in the meter's unit whatever the limit."""

    kind: ThresholdKind
    value: Decimal

    def bar(self, limit: Decimal | None) -> Decimal | None:
        """Return the quantity at which it is reached; None for a percentage of no limit, or of a limit of zero."""
        if self.kind == "units":
            return self.value
        return limit * self.value / 100 if limit is not None and limit > 0 else None


# Which thresholds hold for a tenant's meter. Pure and quick: whoever reads rules from a store hands in a snapshot.
ThresholdsOf = Callable[[str, str], tuple[Threshold, ...]]


def same_percentages(percentages: Iterable[int]) -> ThresholdsOf:
    """Return thresholds that are the same percentages for every tenant and meter."""
    everywhere = tuple(Threshold("percent", Decimal(percent)) for percent in sorted(set(percentages)))

    def thresholds_of(tenant: str, meter: str) -> tuple[Threshold, ...]:
        return everywhere

    return thresholds_of
