"""Gaps: two sides that must be equal and are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal, NamedTuple

from core.ids import derive_id

CheckName = Literal["journal", "rollups", "samples", "quotas"]
HOUR_SECONDS = 3_600


class Cell(NamedTuple):
    """An hour (start in seconds since 1970 UTC) of a tenant's usage: what is compared at once."""

    tenant: str
    hour: int


class Side(NamedTuple):
    """What one side says; of a meter of distinct values `quantity` is a checksum over the values, not their number."""

    quantity: Decimal
    events: int


NOTHING = Side(Decimal(0), 0)


class Key(NamedTuple):
    """A figure within a cell: meter and dimension values in the meter's order."""

    cell: Cell
    meter: str
    dimensions: tuple[str, ...]


Figures = Mapping[Key, Side]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a gap is about. `span` is an hour or month, or a range of source offsets `first-last`."""

    check: CheckName
    tenant: str
    meter: str
    dimensions: tuple[str, ...]
    span: str
    partition: int

    @property
    def gap_id(self) -> str:
        """Names the gap: found again, it is the same one."""
        parts = (self.check, self.tenant, self.meter, *self.dimensions, self.span, str(self.partition))
        return derive_id("gap", *parts)


@dataclass(frozen=True, slots=True)
class Gap:
    """`expected` is what the side nearer to the raw events says, `found` what the other one does."""

    subject: Subject
    expected: Side
    found: Side

    @property
    def quantity(self) -> Decimal:
        """How much more (or, negative, less) was found than expected, in the meter's unit."""
        return self.found.quantity - self.expected.quantity

    @property
    def events(self) -> int:
        """How many more (or, negative, fewer) events."""
        return self.found.events - self.expected.events


def find_gaps(check: CheckName, expected: Figures, found: Figures, partition_of: Mapping[str, int]) -> list[Gap]:
    """Return every figure on which the two sides differ, in order; a missing figure is nothing."""
    gaps = []
    for key in sorted({*expected, *found}):
        left, right = expected.get(key, NOTHING), found.get(key, NOTHING)
        if left != right:
            tenant = key.cell.tenant
            subject = Subject(check, tenant, key.meter, key.dimensions, hour_name(key.cell.hour), partition_of[tenant])
            gaps.append(Gap(subject, left, right))
    return gaps


def hour_name(hour: int) -> str:
    """Return the name of an hour of UTC, `2026-10-31T07`."""
    return datetime.fromtimestamp(hour, UTC).strftime("%Y-%m-%dT%H")


def hour_of(name: str) -> int:
    """Return the start of a named hour."""
    return int(datetime.strptime(name, "%Y-%m-%dT%H").replace(tzinfo=UTC).timestamp())


def cells_of(gaps: Iterable[Gap]) -> set[Cell]:
    """Return the cells that gaps of rollups and samples lie in."""
    return {
        Cell(gap.subject.tenant, hour_of(gap.subject.span))
        for gap in gaps
        if gap.subject.check in ("rollups", "samples")
    }
