"""What reconciliation needs of the outside: the four views, and where findings are kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple, Protocol

from core.journal import JournalEntry
from core.meters import Meter
from core.period import Period
from metering.reconcile.domain.gap import Cell, Figures, Gap


@dataclass(frozen=True, slots=True)
class TrailMark:
    """Up to where a partition's journal was compared: the next journal offset, and the last source offset covered.

    -1 as `last_source` means that nothing was compared yet.
    """

    partition: int
    next_journal: int
    last_source: int


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Events received on a partition (counted from the raw records) and what the journal says became of them."""

    received: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    misplaced: int = 0

    @property
    def told(self) -> int:
        """How many events the journal knows of."""
        return self.accepted + self.duplicates + self.rejected + self.misplaced

    def __add__(self, other: Outcomes) -> Outcomes:
        return Outcomes(
            self.received + other.received,
            self.accepted + other.accepted,
            self.duplicates + other.duplicates,
            self.rejected + other.rejected,
            self.misplaced + other.misplaced,
        )


class RawRange(NamedTuple):
    """Raw offsets `first` to `last`, both within, and the (offset, index) that were refused among them."""

    first: int
    last: int
    refused: Collection[tuple[int, int]]


class Trail(Protocol):
    """The raw topic and the journal. Calls raise `UnavailableError` if the broker does not answer."""

    async def journal(self, partition: int, first: int, most: int) -> list[tuple[int, JournalEntry]]:
        """Return up to `most` committed entries from journal offset `first` on, or from the first that is retained."""
        ...

    async def journal_end(self, partition: int) -> int:
        """Return the journal offset that the next entry gets."""
        ...

    async def count_events(self, partition: int, ranges: Sequence[RawRange]) -> list[int]:
        """Return how many events the raw records of each range hold, as far as they are retained; ranges ascend."""
        ...

    async def retained_from(self, partition: int) -> int:
        """Return the first offset of the raw topic that is still there."""
        ...

    async def entry_at(self, partition: int, source_offset: int) -> tuple[int, JournalEntry] | None:
        """Return the entry that covers a source offset, None if it is not retained any more."""
        ...

    async def entries(self, partition: int, offsets: Sequence[int]) -> list[tuple[int, JournalEntry]]:
        """Return the entries at these journal offsets, in order; what is not retained any more is left out."""
        ...

    async def touching(self, partition: int, cells: Collection[Cell], since_ms: int) -> list[int]:
        """Return the journal offsets of all entries written since then that changed one of the cells."""
        ...


class PeriodTotal(NamedTuple):
    """A tenant's total of a meter in a period: scaled quantity (area and level of a time-weighted meter), events.

    `version` is the journal offset of the newest entry in it, -1 if there is none.
    """

    quantity: int
    events: int
    level: int
    at_us: int
    version: int


NO_TOTAL = PeriodTotal(0, 0, 0, 0, -1)


class Warehouse(Protocol):
    """ClickHouse. Calls raise `UnavailableError` if it does not answer."""

    async def progress(self) -> dict[int, int]:
        """Return the source offset up to which everything is stored, by partition."""
        ...

    async def newest_sources(self, tenants: Collection[str]) -> dict[int, int]:
        """Return the greatest source offset that is visible of these tenants, by partition."""
        ...

    async def unsettled(self, cells: Collection[Cell], progress: Mapping[int, int]) -> set[Cell]:
        """Return the cells with raw events (or tenants with corrections) that are not stored in full yet."""
        ...

    async def stored_rollups(self, cells: Collection[Cell]) -> Figures:
        """Return what `usage_rollups` says."""
        ...

    async def stored_samples(self, cells: Collection[Cell], meters: Mapping[str, Meter]) -> Figures:
        """Return what `usage_samples` says."""
        ...

    async def measured(self, meter: Meter, cells: Collection[Cell], *, as_if_always: bool = False) -> Figures:
        """Return what the live raw events come to, for offsets from which on the meter is counted (or all)."""
        ...

    async def later_activated(self) -> set[str]:
        """Return the meters that some partition counts from a later offset on, and not yet in hindsight."""
        ...

    async def cells_between(self, span: Period, tenants: Collection[str] | None) -> list[Cell]:
        """Return every cell within a span that has raw events, rollups or samples."""
        ...

    async def sample_cells(self, span: Period, count: int, seed: int) -> list[Cell]:
        """Return some cells of a span, others for another seed."""
        ...

    async def period_totals(self, tenants: Collection[str], meter: Meter, period: Period) -> dict[str, PeriodTotal]:
        """Return tenants' totals of a period from rollups or samples; tenants without any are left out."""
        ...

    async def newest_versions(self, since: datetime) -> dict[int, int]:
        """Return the newest journal offset among rollups and samples of windows since then, by partition."""
        ...


@dataclass(frozen=True, slots=True)
class LiveState:
    """How far Redis says it is with a partition; not `is_filled` while it was wiped and is being filled."""

    journal_offset: int
    is_filled: bool


class LiveTotals(Protocol):
    """Redis. Calls raise `UnavailableError` if it does not answer."""

    async def states(self) -> dict[int, LiveState]:
        """Return the state of each partition."""
        ...

    async def totals(self, keys: Sequence[tuple[str, Meter, str]]) -> list[PeriodTotal]:
        """Return the live totals of (tenant, meter, period), in order."""
        ...

    async def refill(self, partition: int, keys: Sequence[tuple[str, str, str]]) -> None:
        """Drop totals (tenant, meter, period) and the partition's mark, so that the quota agent fills it again."""
        ...


class Rerun(Protocol):
    """Runs the warehouse again over parts of the journal; what is there already is written once more, equal."""

    async def run(self, partition: int, entries: Sequence[tuple[int, JournalEntry]]) -> None:
        """Write all rows of these journal entries and of the raw records behind them."""
        ...


class Pending(NamedTuple):
    """A cell that waits to be compared; `touched_at` is when the journal last touched it."""

    cell: Cell
    touched_at: datetime


@dataclass(frozen=True, slots=True)
class StoredGap:
    """A gap as it is on record."""

    gap: Gap
    found_at: datetime
    seen_at: datetime
    closed_at: datetime | None
    repair: str


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What one run did: figures compared, cells and totals left for later because they were moving, gaps open."""

    run_id: str
    scope: str
    started_at: datetime
    finished_at: datetime
    checked: int
    unsettled: int
    gaps: int


class Findings(Protocol):
    """What is known so far, in PostgreSQL."""

    async def marks(self) -> dict[int, TrailMark]:
        """Return up to where each partition was compared."""
        ...

    async def advance(
        self, mark: TrailMark, outcomes: Outcomes, touched: Mapping[Cell, int], gaps: Sequence[Gap], now: datetime
    ) -> None:
        """Go on: the mark, the sums, cells the journal touched (with the newest version), gaps; all or none."""
        ...

    async def outcomes(self) -> dict[int, Outcomes]:
        """Return the sums by partition."""
        ...

    async def due(self, now: datetime, quiet_seconds: float, longest_seconds: float, most: int) -> list[Pending]:
        """Return cells that were not touched for a while, or not compared for long; oldest first."""
        ...

    async def settle(self, compared: Sequence[Pending], left: Sequence[Pending], now: datetime) -> None:
        """Forget cells that were compared, unless touched since; leave the others for a later time."""
        ...

    async def record(self, gaps: Sequence[Gap], now: datetime) -> None:
        """Write confirmed gaps down; one that was known is seen again."""
        ...

    async def close(self, gap_ids: Collection[str], now: datetime) -> None:
        """Close gaps that are gone."""
        ...

    async def note_repair(self, gap_ids: Collection[str], repair: str) -> None:
        """Say what was done about gaps."""
        ...

    async def open_gaps(self) -> list[StoredGap]:
        """Return the gaps that are not closed."""
        ...

    async def add_run(self, run: RunSummary) -> None:
        """Write a run down."""
        ...


@dataclass(frozen=True, slots=True)
class GapSum:
    """Open gaps of a check and meter, added up without signs."""

    quantity: Decimal
    events: int
