"""Raw topic = accepted + duplicates + rejected + misplaced, per source partition.

Goes on from where it was, so every raw record is counted once: events of the records behind an entry, and any record
between two entries, which nobody counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from core.journal import JournalEntry
from metering.reconcile.adapters.kafka_trail import touched_cells
from metering.reconcile.domain.gap import Cell, Gap, Side, Subject
from metering.reconcile.ports import Outcomes, RawRange, Trail, TrailMark

_ENTRIES_AT_ONCE = 200
# One call reads no more raw records than it can within its time.
_RAW_AT_ONCE = 500_000


@dataclass(slots=True)
class JournalCheck:
    """What a stretch of the journal says: the mark after it, sums, cells it touched with their version, gaps."""

    mark: TrailMark
    outcomes: Outcomes = field(default_factory=Outcomes)
    touched: dict[Cell, int] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    entries: int = 0


async def check_journal(mark: TrailMark, trail: Trail) -> JournalCheck:
    """Compare the next entries with their raw records; `entries` is 0 at the end of the journal."""
    check = JournalCheck(mark)
    entries = await trail.journal(mark.partition, mark.next_journal, _ENTRIES_AT_ONCE)
    entries = [pair for pair in entries if pair is entries[0] or pair[1].last - entries[0][1].first < _RAW_AT_ONCE]
    retained_from = await trail.retained_from(mark.partition) if entries else 0
    # What a reader that comes too late cannot see any more was compared by nobody, and is no gap.
    first_of, last = {}, mark.last_source
    for version, entry in entries:
        first = last + 1 if last >= 0 and entry.previous_last <= last else _first_of(entry)
        if first >= retained_from:
            first_of[version] = first
        last = entry.last
    compared = [(first_of[version], entry) for version, entry in entries if version in first_of]
    for gap, outcomes in await compare_entries(mark.partition, compared, trail):
        check.gaps += [gap] if gap else []
        check.outcomes += outcomes
    for version, entry in entries:
        for cell in touched_cells(entry):
            check.touched[cell] = version
        check.mark = TrailMark(mark.partition, version + 1, entry.last)
        check.entries += 1
    return check


async def compare_entries(
    partition: int, entries: Sequence[tuple[int, JournalEntry]], trail: Trail
) -> list[tuple[Gap | None, Outcomes]]:
    """Compare entries with the raw records of [first, entry.last] in one pass over these.

    An entry whose records are not retained any more has no outcomes.
    """
    ranges = [RawRange(first, entry.last, frozenset(entry.refused)) for first, entry in entries]
    received = await trail.count_events(partition, ranges) if ranges else []
    return [
        await _compare(partition, first, entry, events, trail)
        for (first, entry), events in zip(entries, received, strict=True)
    ]


async def _compare(
    partition: int, first: int, entry: JournalEntry, received: int, trail: Trail
) -> tuple[Gap | None, Outcomes]:
    misplaced = len(entry.refused) - entry.rejected
    outcomes = Outcomes(received, entry.accepted, entry.duplicates, entry.rejected, misplaced)
    if received == outcomes.told:
        return None, outcomes
    if first < await trail.retained_from(partition):
        return None, Outcomes()
    subject = Subject("journal", "", "", (), f"{first}-{entry.last}", partition)
    return Gap(subject, Side(Decimal(0), received), Side(Decimal(0), outcomes.told)), outcomes


def _first_of(entry: JournalEntry) -> int:
    return 0 if entry.previous_last < 0 else entry.first
