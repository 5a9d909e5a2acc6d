"""Repair what is only a view: ClickHouse's rows from journal and raw topic, Redis' totals from the agent's book.

Nothing is ever adjusted to fit. Rows are written again as the stream first wrote them, live totals are dropped for
their owner to write anew; what that does not mend is told, for then one of the truths is at fault and a person decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from core.meters import Registry
from metering.reconcile.domain.gap import cells_of
from metering.reconcile.ports import Rerun, StoredGap
from metering.reconcile.reconcile import Report, Scope, Views, recheck

# Entries may be large.
_ENTRIES_AT_ONCE = 50
_LOOKS = 60
_LOOK_SECONDS = 0.5
# Events may be dated this much ahead of the time they were received.
_AHEAD_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done about a gap, in words, and whether it is gone."""

    gap: StoredGap
    what: str
    is_gone: bool


async def repair_gaps(
    gaps: Sequence[StoredGap], scope: Scope, views: Views, registry: Registry, rerun: Rerun
) -> tuple[list[Repair], Report]:
    """Repair what can be, look again, and say what became of each gap; raises `UnavailableError`."""
    done: dict[str, str] = {}
    done |= await _repair_warehouse(
        [gap for gap in gaps if gap.gap.subject.check in ("rollups", "samples")], views, rerun
    )
    # ClickHouse first: Redis is compared with it, and may have been the one that was right.
    quotas = [gap for gap in gaps if gap.gap.subject.check == "quotas"]
    if done and quotas:
        left = {stored.gap.subject.gap_id for stored in (await recheck(views, registry, quotas, scope)).gaps}
        right = [stored.gap.subject.gap_id for stored in quotas if stored.gap.subject.gap_id not in left]
        done |= dict.fromkeys(right, "gone since ClickHouse's rows were written again")
        quotas = [stored for stored in quotas if stored.gap.subject.gap_id in left]
    done |= await _repair_quotas(quotas, views)
    for stored in gaps:
        if stored.gap.subject.check == "journal":
            done[stored.gap.subject.gap_id] = (
                "cannot be repaired: journal and raw topic are both truths; look at the records of these offsets"
            )
    for what in sorted(set(done.values())):
        await views.findings.note_repair([gap_id for gap_id, text in done.items() if text == what], what)
    report = await recheck(views, registry, gaps, scope)
    left = {stored.gap.subject.gap_id for stored in report.gaps}
    repairs = []
    for stored in gaps:
        gap_id = stored.gap.subject.gap_id
        repairs.append(Repair(stored, done[gap_id], gap_id not in left))
    return repairs, report


async def _repair_warehouse(gaps: Sequence[StoredGap], views: Views, rerun: Rerun) -> dict[str, str]:
    by_partition: dict[int, list[StoredGap]] = defaultdict(list)
    for stored in gaps:
        by_partition[stored.gap.subject.partition].append(stored)
    done: dict[str, str] = {}
    for partition, own in sorted(by_partition.items()):
        cells = cells_of(stored.gap for stored in own)
        since_ms = min(cell.hour for cell in cells) * 1_000 - _AHEAD_MS
        offsets = await views.trail.touching(partition, cells, since_ms)
        for start in range(0, len(offsets), _ENTRIES_AT_ONCE):
            entries = await views.trail.entries(partition, offsets[start : start + _ENTRIES_AT_ONCE])
            await rerun.run(partition, entries)
        if offsets:
            what = f"the warehouse wrote {len(offsets)} journal entries ({offsets[0]} to {offsets[-1]}) again"
        else:
            what = "cannot be repaired: the journal knows nothing of this hour (any more)"
        done |= {stored.gap.subject.gap_id: what for stored in own}
    return done


async def _repair_quotas(gaps: Sequence[StoredGap], views: Views) -> dict[str, str]:
    by_partition: dict[int, list[StoredGap]] = defaultdict(list)
    for stored in gaps:
        by_partition[stored.gap.subject.partition].append(stored)
    done: dict[str, str] = {}
    for partition, own in sorted(by_partition.items()):
        keys = [(one.gap.subject.tenant, one.gap.subject.meter, one.gap.subject.span) for one in own]
        await views.live.refill(partition, keys)
    for partition, own in sorted(by_partition.items()):
        if await _is_filled(partition, views):
            what = "the live total was dropped and the quota agent filled it again"
        else:
            what = "the live total was dropped; it is filled again as soon as a quota agent runs"
        done |= {stored.gap.subject.gap_id: what for stored in own}
    return done


async def _is_filled(partition: int, views: Views) -> bool:
    for _ in range(_LOOKS):
        state = (await views.live.states()).get(partition)
        if state is not None and state.is_filled:
            return True
        await views.pause(_LOOK_SECONDS)
    return False
