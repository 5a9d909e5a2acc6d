"""Usage finer than totals, for prices that depend on when something was used or on what a single event says."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from core.meters import Meter
from core.period import format_instant
from rating.domain.plan import Charge
from rating.domain.price import ZERO, Dimensions, Grain, UsageEntry, plain
from rating.domain.usage import UsageRow


@dataclass(frozen=True, slots=True)
class FineUsage:
    """Usage of a meter as fine as a price asks; `amount_property` names what the event itself says it costs."""

    grain: Grain
    meter_id: str
    amount_property: str = ""


Entries = Mapping[FineUsage, tuple[UsageEntry, ...]]


def fine_usage_of(charge: Charge) -> FineUsage | None:
    """Return what a charge needs beside totals; None if totals suffice."""
    if charge.meter is None or charge.price.grain is Grain.TOTAL:
        return None
    return FineUsage(charge.price.grain, charge.meter.meter_id, getattr(charge.price, "amount_property", "") or "")


def wanted_by(charges: Iterable[Charge]) -> frozenset[FineUsage]:
    """Return all that the charges need beside totals."""
    return frozenset(wanted for charge in charges if (wanted := fine_usage_of(charge)) is not None)


def meters_of(wanted: Collection[FineUsage], meters: Mapping[str, Meter], grain: Grain) -> list[Meter]:
    """Return the meters wanted at a grain."""
    return [meters[name] for name in sorted({one.meter_id for one in wanted if one.grain is grain})]


def in_order(entries: Iterable[UsageEntry]) -> tuple[UsageEntry, ...]:
    """Return entries in the order they are priced and digested in: by time, dimension values, quantity, own amount."""
    return tuple(sorted(entries, key=lambda one: (one.at, one.dimensions, one.quantity, one.amount or ZERO)))


def rows_of(meter_id: str, entries: Iterable[UsageEntry]) -> list[UsageRow]:
    """Return the totals of entries by dimension values."""
    totals: dict[Dimensions, Decimal] = {}
    for entry in entries:
        totals[entry.dimensions] = totals.get(entry.dimensions, ZERO) + entry.quantity
    return [UsageRow(meter_id, dimensions, quantity) for dimensions, quantity in totals.items()]


def digest_of_entries(entries: Iterable[UsageEntry]) -> str:
    """Return the SHA-256 over one line per entry: time, dimensions, quantity, events, own amount, separated by tabs."""
    summed = hashlib.sha256()
    for entry in entries:
        dimensions = "\x1f".join(f"{name}={value}" for name, value in entry.dimensions)
        amount = "" if entry.amount is None else plain(entry.amount)
        fields = (format_instant(entry.at), dimensions, plain(entry.quantity), str(entry.events), amount)
        summed.update(("\t".join(fields) + "\n").encode())
    return summed.hexdigest()
