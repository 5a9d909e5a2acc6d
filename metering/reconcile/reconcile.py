"""One run over everything that is to be compared: continuous (what changed lately, and a sample) or what was asked for.

A gap that is known is looked at again by every run, and closed when it is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog

from core.clock import Clock
from core.event_time import to_datetime
from core.meters import Registry
from core.period import Period
from core.usage_event import EARLIEST_US
from metering.reconcile.check_journal import check_journal, compare_entries
from metering.reconcile.check_quotas import check_quotas
from metering.reconcile.check_warehouse import Pause, check_warehouse
from metering.reconcile.domain.gap import Cell, Gap, cells_of
from metering.reconcile.ports import (
    Findings,
    LiveTotals,
    Outcomes,
    Pending,
    RunSummary,
    StoredGap,
    Trail,
    TrailMark,
    Warehouse,
)

log = structlog.get_logger()
# A cell is compared when it has been left alone for so long, but at least every so often while it is not.
QUIET_SECONDS = 20.0
LONGEST_SECONDS = 600.0
_CELLS_AT_ONCE = 1_000
_SAMPLED_CELLS = 10
_SAMPLED_DAYS = 35
_EARLIEST = to_datetime(EARLIEST_US)


@dataclass(frozen=True)
class Views:
    """Everything reconciliation reads, and where it writes what it found."""

    trail: Trail
    warehouse: Warehouse
    live: LiveTotals
    findings: Findings
    partitions: int
    partition_of: Callable[[str], int]
    clock: Clock
    make_id: Callable[[], str]
    make_seed: Callable[[], int]
    pause: Pause = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Scope:
    """What to compare; None is all. `span` bounds the hours, not the journal, which is always followed to its end."""

    tenants: tuple[str, ...] | None = None
    meters: tuple[str, ...] | None = None
    span: Period | None = None

    def __str__(self) -> str:
        parts = [f"tenants {', '.join(self.tenants)}" if self.tenants else "all tenants"]
        parts += [f"meters {', '.join(self.meters)}"] if self.meters else []
        return "; ".join([*parts, str(self.span) if self.span else "all hours"])


@dataclass(slots=True)
class Report:
    """What a run found. `outcomes` are the sums of each partition since the beginning."""

    summary: RunSummary
    outcomes: dict[int, Outcomes]
    gaps: list[StoredGap]
    unsettled: set[Any] = field(default_factory=set)


async def follow_journal(views: Views, deadline: datetime | None = None) -> int:
    """Compare the journal with the raw topic up to its present end or until the deadline; returns how many entries."""
    marks = await views.findings.marks()
    entries = 0
    unfinished = {partition: marks.get(partition, TrailMark(partition, 0, -1)) for partition in range(views.partitions)}
    ends = {partition: await views.trail.journal_end(partition) for partition in unfinished}
    # In turns, so that a busy partition does not keep the others from being looked at.
    while unfinished and (deadline is None or views.clock.now() < deadline):
        for partition, mark in list(unfinished.items()):
            check = await check_journal(mark, views.trail)
            if check.entries == 0:
                del unfinished[partition]
                continue
            await views.findings.advance(check.mark, check.outcomes, check.touched, check.gaps, views.clock.now())
            _tell(check.gaps)
            unfinished[partition], entries = check.mark, entries + check.entries
            if check.mark.next_journal >= ends[partition]:
                del unfinished[partition]  # what came meanwhile is for the next run, or a busy topic is never done
    return entries


async def reconcile_lately(
    views: Views,
    registry: Registry,
    *,
    budget_seconds: float = 60.0,
    quiet_seconds: float = QUIET_SECONDS,
    longest_seconds: float = LONGEST_SECONDS,
) -> Report:
    """Compare what changed since the last run, known gaps, and a few hours of the past chosen at random."""
    started = views.clock.now()
    checked = await follow_journal(views, started + timedelta(seconds=budget_seconds))
    now = views.clock.now()
    due = await views.findings.due(now, quiet_seconds, longest_seconds, _CELLS_AT_ONCE)
    known = await views.findings.open_gaps()
    seed = views.make_seed()
    # One day of them, so that the choice itself costs little.
    day = now - timedelta(days=1 + seed % _SAMPLED_DAYS)
    sampled = await views.warehouse.sample_cells(Period(day, day + timedelta(days=1)), _SAMPLED_CELLS, seed)
    cells = {one.cell for one in due} | cells_of(stored.gap for stored in known) | set(sampled)
    tenants = {cell.tenant for cell in cells} | {
        stored.gap.subject.tenant for stored in known if stored.gap.subject.check == "quotas"
    }
    return await _compare(views, registry, Scope(), started, checked, cells, tenants, due, known, scope_name="lately")


async def reconcile_scope(views: Views, registry: Registry, scope: Scope) -> Report:
    """Compare everything within a scope."""
    started = views.clock.now()
    checked = await follow_journal(views)
    now = views.clock.now()
    span = scope.span or Period(_EARLIEST, now + timedelta(days=1))
    cells = set(await views.warehouse.cells_between(span, scope.tenants))
    known = [stored for stored in await views.findings.open_gaps() if _is_within(stored.gap, scope)]
    cells |= cells_of(stored.gap for stored in known)
    tenants = set(scope.tenants or registry.tenants) if now in span or scope.span is None else set()
    tenants |= {stored.gap.subject.tenant for stored in known if stored.gap.subject.check == "quotas"}
    return await _compare(views, registry, scope, started, checked, cells, tenants, [], known, scope_name=str(scope))


async def recheck(views: Views, registry: Registry, gaps: Sequence[StoredGap], scope: Scope) -> Report:
    """Look at known gaps again, and at nothing else."""
    started = views.clock.now()
    cells = cells_of(stored.gap for stored in gaps)
    tenants = {stored.gap.subject.tenant for stored in gaps if stored.gap.subject.check == "quotas"}
    return await _compare(views, registry, scope, started, 0, cells, tenants, [], gaps, scope_name=f"again: {scope}")


async def _compare(
    views: Views,
    registry: Registry,
    scope: Scope,
    started: datetime,
    checked: int,
    cells: Collection[Cell],
    tenants: Collection[str],
    due: Sequence[Pending],
    known: Sequence[StoredGap],
    *,
    scope_name: str,
) -> Report:
    partition_of, findings = views.partition_of, views.findings
    found: list[Gap] = []
    unsettled: set[Cell] = set()
    for part in _parts(cells):
        stored = await check_warehouse(
            part, registry, partition_of, views.warehouse, meters=scope.meters, pause=views.pause
        )
        found += stored.gaps
        unsettled |= stored.unsettled
        checked += stored.checked
    now = views.clock.now()
    live = await check_quotas(
        tenants, registry, partition_of, views.warehouse, views.live, now, meters=scope.meters, pause=views.pause
    )
    found += live.gaps
    checked += live.checked
    journal_gaps = [stored.gap for stored in known if stored.gap.subject.check == "journal"]
    found += [gap for gap in [await _look_again(views, gap) for gap in journal_gaps] if gap is not None]
    await findings.record(found, views.clock.now())
    _tell(found)
    await findings.close(_gone(known, found, unsettled, live.unsettled, scope), views.clock.now())
    await findings.settle(
        [one for one in due if one.cell not in unsettled], [one for one in due if one.cell in unsettled], now
    )
    gaps = [stored for stored in await findings.open_gaps() if _is_within(stored.gap, scope)]
    summary = RunSummary(
        views.make_id(),
        scope_name,
        started,
        views.clock.now(),
        checked,
        len(unsettled) + len(live.unsettled),
        len(gaps),
    )
    await findings.add_run(summary)
    return Report(summary, await findings.outcomes(), gaps, {*unsettled, *live.unsettled})


async def _look_again(views: Views, gap: Gap) -> Gap | None:
    """Count a stretch of the raw topic again; a gap whose records are gone stays as it is."""
    first, _, last = gap.subject.span.partition("-")
    found = await views.trail.entry_at(gap.subject.partition, int(last))
    if found is None:
        return gap
    [(again, outcomes)] = await compare_entries(gap.subject.partition, [(int(first), found[1])], views.trail)
    return gap if again is None and outcomes == Outcomes() else again


def _gone(
    known: Sequence[StoredGap],
    found: Sequence[Gap],
    unsettled: Collection[Cell],
    moving: Collection[tuple[str, str]],
    scope: Scope,
) -> list[str]:
    """Return the ids of gaps that were looked at and not found again."""
    still = {gap.subject.gap_id for gap in found}
    gone = []
    for stored in known:
        subject = stored.gap.subject
        is_moving = cells_of([stored.gap]) & set(unsettled) or (
            subject.check == "quotas" and (subject.tenant, subject.meter) in moving
        )
        if subject.gap_id not in still and not is_moving and _is_within(stored.gap, scope):
            gone.append(subject.gap_id)
    return gone


def _is_within(gap: Gap, scope: Scope) -> bool:
    subject = gap.subject
    if subject.check == "journal":
        return scope.tenants is None and scope.meters is None
    if scope.tenants is not None and subject.tenant not in scope.tenants:
        return False
    if scope.meters is not None and subject.meter not in scope.meters:
        return False
    if scope.span is None or subject.check == "quotas":
        return True
    (cell,) = cells_of([gap])
    return scope.span.start.timestamp() <= cell.hour < scope.span.end.timestamp()


def _parts(cells: Collection[Cell]) -> list[list[Cell]]:
    ordered = sorted(cells, key=lambda cell: (cell.hour, cell.tenant))
    return [ordered[start : start + _CELLS_AT_ONCE] for start in range(0, len(ordered), _CELLS_AT_ONCE)]


def _tell(gaps: Sequence[Gap]) -> None:
    for gap in gaps:
        log.error(
            "reconciliation.gap",
            check=gap.subject.check,
            tenant=gap.subject.tenant,
            meter=gap.subject.meter,
            dimensions=gap.subject.dimensions,
            span=gap.subject.span,
            partition=gap.subject.partition,
            expected=str(gap.expected.quantity),
            found=str(gap.found.quantity),
            expected_events=gap.expected.events,
            found_events=gap.found.events,
        )
