"""Raw topic = accepted + duplicates + rejected + misplaced, per source partition.

Goes on from where it was, so every raw record is counted once: events of the records behind an entry, and any record
between two entries, which nobody counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from core.journal import JournalEntry
from metering.reconcile.adapters.kafka_trail import touched_cells
from metering.reconcile.domain.gap import Cell, Gap, Side, Subject
from metering.reconcile.ports import Outcomes, Trail, TrailMark

_ENTRIES_AT_ONCE = 200


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
    retained_from = await trail.retained_from(mark.partition) if entries else 0
    for version, entry in entries:
        last = check.mark.last_source
        # What a reader that comes too late cannot see any more was compared by nobody, and is no gap.
        first = last + 1 if last >= 0 and entry.previous_last <= last else _first_of(entry)
        if first < retained_from:
            gap, outcomes = None, Outcomes()
        else:
            gap, outcomes = await compare_entry(mark.partition, first, entry, trail)
        check.gaps += [gap] if gap else []
        check.outcomes += outcomes
        for cell in touched_cells(entry):
            check.touched[cell] = version
        check.mark = TrailMark(mark.partition, version + 1, entry.last)
        check.entries += 1
    return check


async def compare_entry(partition: int, first: int, entry: JournalEntry, trail: Trail) -> tuple[Gap | None, Outcomes]:
    """Compare one entry with the raw records of [first, entry.last]; no outcomes if they are not retained any more."""
    refused = frozenset((offset, index) for offset, index in entry.refused)
    received = await trail.count_events(partition, first, entry.last, refused)
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
