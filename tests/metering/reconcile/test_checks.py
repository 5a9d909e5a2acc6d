"""The three checks in memory: what is a gap, what is only on its way, and what is seen twice before it is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.meters import Meter, Registry
from core.quantity import UNIT
from metering.reconcile.check_journal import check_journal
from metering.reconcile.check_quotas import QuotaCheck, check_quotas
from metering.reconcile.check_warehouse import WarehouseCheck, check_warehouse
from metering.reconcile.domain.gap import Cell, Gap, Key, Subject
from metering.reconcile.ports import Outcomes, PeriodTotal, TrailMark
from tests.metering.reconcile.memory import (
    Look,
    MemoryLive,
    MemoryTrail,
    MemoryWarehouse,
    changed,
    entry,
    side,
    window,
)

ONE = b"{}"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SUM = Meter("m", "u", "t", "sum", "q", ("d",))
DISK = Meter("disk", "u", "t", "time_weighted", "q", weight_per="hour")
REGISTRY = Registry.of(["acme", "globex"], [SUM])
CELL, OTHER = Cell("acme", 3_600), Cell("globex", 7_200)


async def no_pause(seconds: float) -> None:
    return


async def journal(trail: MemoryTrail, mark: TrailMark | None = None) -> tuple[list[Gap], Outcomes, TrailMark]:
    check = await check_journal(mark or TrailMark(0, 0, -1), trail)
    return check.gaps, check.outcomes, check.mark


# Journal


@given(st.lists(st.lists(st.sampled_from(["one", "pair", "bad", "away", "gap"]), min_size=1, max_size=5), max_size=8))
async def test_an_honest_journal_has_no_gap_and_every_record_is_counted_once(batches: list[list[str]]):
    raw: dict[int, bytes | None] = {}
    entries, previous, at = [], -1, 0
    for batch in batches:
        offsets: dict[int, str] = {}
        for kind in batch:
            at += 1
            if kind != "gap":  # a transaction's marker is no record
                offsets[at] = kind
                raw[at] = b"[{}, {}]" if kind == "pair" else ONE
        if not offsets:
            continue
        kinds = list(offsets.values())
        entries.append(
            entry(
                min(offsets),
                max(offsets),
                previous_last=previous,
                accepted=kinds.count("one") + 2 * kinds.count("pair"),
                rejected=kinds.count("bad"),
                refused=[(offset, -1) for offset, kind in offsets.items() if kind in ("bad", "away")],
            )
        )
        previous = max(offsets)
    trail = MemoryTrail(raw, entries)
    gaps, outcomes, mark = await journal(trail)
    assert gaps == []
    assert outcomes.received == outcomes.told == sum(2 if value == b"[{}, {}]" else 1 for value in raw.values())
    trail.counted.clear()
    assert (await journal(trail, mark))[1] == Outcomes()
    assert trail.counted == [], "what was compared is not read again"


@pytest.mark.parametrize("accepted", [1, 3])
async def test_an_event_lost_or_doubled_is_a_gap_with_its_place(accepted: int):
    trail = MemoryTrail({5: ONE, 6: ONE}, [entry(5, 6, previous_last=-1, accepted=accepted)])
    (gap,), _, _ = await journal(trail)
    assert (gap.subject.check, gap.subject.span, gap.expected.events, gap.found.events) == (
        "journal",
        "0-6",
        2,
        accepted,
    )


async def test_a_record_that_lies_between_two_entries_was_counted_by_nobody():
    entries = [entry(0, 1, previous_last=-1, accepted=2), entry(4, 4, previous_last=1, accepted=1)]
    (gap,), _, _ = await journal(MemoryTrail(dict.fromkeys((0, 1, 3, 4), ONE), entries))
    assert (gap.subject.span, gap.expected.events, gap.found.events) == ("2-4", 2, 1)


async def test_what_is_not_retained_any_more_is_no_gap():
    entries = [entry(0, 4, previous_last=-1, accepted=5), entry(5, 6, previous_last=4, accepted=2)]
    gaps, outcomes, mark = await journal(MemoryTrail({5: ONE, 6: ONE}, entries, first_raw=5))
    assert (gaps, outcomes.received, mark.last_source) == ([], 2, 6)


async def test_a_journal_that_begins_later_is_compared_from_there():
    gaps, outcomes, _ = await journal(MemoryTrail({7: ONE}, [entry(7, 7, previous_last=6, accepted=1)]))
    assert (gaps, outcomes.received) == ([], 1)


async def test_the_hours_an_entry_touched_are_told_with_its_version():
    rows = [window("acme", 3_660), window("acme", 7_140), window("globex", 7_200)]
    entries = [entry(0, 0, previous_last=-1, accepted=1, windows=rows)]
    check = await check_journal(TrailMark(0, 0, -1), MemoryTrail({0: ONE}, entries))
    assert check.touched == {CELL: 0, OTHER: 0}


# Warehouse

KEY = Key(CELL, "m", ("eu",))
GOOD = Look({KEY: side("5", 2)}, {KEY: side("5", 2)})
LOST = changed(GOOD, stored={KEY: side("3", 1)})


async def warehouse(*looks: Look, meters: Any = None) -> WarehouseCheck:
    return await check_warehouse(
        [CELL, OTHER], REGISTRY, lambda _: 0, MemoryWarehouse(*looks), meters=meters, pause=no_pause
    )


async def test_equal_sides_are_no_gap():
    check = await warehouse(GOOD)
    assert (check.gaps, check.unsettled, check.checked) == ([], set(), 1)


@pytest.mark.parametrize(
    ("stored", "measured"),
    [({}, {KEY: side("5", 2)}), ({KEY: side("5", 2)}, {}), ({KEY: side("5", 3)}, {KEY: side("5", 2)})],
)
async def test_a_difference_that_stays_is_a_gap(stored: Any, measured: Any):
    (gap,) = (await warehouse(Look(stored, measured))).gaps
    assert (gap.subject.tenant, gap.subject.meter, gap.subject.dimensions) == ("acme", "m", ("eu",))
    assert gap.subject.span == "1970-01-01T01"


async def test_a_difference_in_a_moving_cell_is_left_for_later():
    check = await warehouse(changed(LOST, unsettled={CELL}))
    assert (check.gaps, check.unsettled) == ([], {CELL})


@pytest.mark.parametrize("looks", [(LOST, GOOD), (LOST, LOST, GOOD)])
async def test_a_difference_that_goes_away_was_none(looks: tuple[Look, ...]):
    assert (await warehouse(*looks)).gaps == []


async def test_a_difference_that_changes_is_looked_at_later():
    other = changed(LOST, stored={KEY: side("4", 1)})
    check = await warehouse(LOST, other)
    assert (check.gaps, check.unsettled) == ([], {CELL})


async def test_nothing_is_believed_before_the_warehouse_has_got_past_what_is_visible():
    check = await warehouse(changed(LOST, newest={0: 100}))
    assert (check.gaps, check.unsettled) == ([], {CELL})


@pytest.mark.parametrize(("found", "is_gap"), [(3, False), (5, False), (6, True), (1, True)])
async def test_a_meter_that_is_being_counted_in_hindsight_is_between_nothing_and_all(found: int, is_gap: bool):
    look = Look(
        {KEY: side("1", found)},
        {KEY: side("1", 2)},
        as_if_always={KEY: side("1", 5)},
        later={"m"},
    )
    assert bool((await warehouse(look)).gaps) is is_gap


async def test_other_meters_are_not_looked_at_if_some_are_named():
    assert (await warehouse(LOST, meters=["x"])).gaps == []


# Quotas


def total(quantity: int, version: int, events: int = 1) -> PeriodTotal:
    return PeriodTotal(quantity * UNIT, events, 0, 0, version)


async def quotas(
    stored: PeriodTotal, *held: PeriodTotal, newest: int = 10, reached: int = 10, meter: Meter = SUM
) -> QuotaCheck:
    views, live = MemoryWarehouse(Look()), MemoryLive()
    views.months["acme", meter.meter_id] = stored
    live.said["acme", meter.meter_id] = list(held)
    views.versions, live.offset = {0: newest}, reached
    registry = Registry.of(["acme"], [meter])
    return await check_quotas(["acme", "gone"], registry, lambda _: 0, views, live, NOW, pause=no_pause)


async def test_the_same_total_is_no_gap():
    check = await quotas(total(5, 9), total(5, 9))
    assert (check.gaps, check.unsettled, check.checked) == ([], set(), 1)


@pytest.mark.parametrize(
    "held", [total(4, 9), total(5, 9, events=2), total(0, -1, events=0), total(-1, -1, events=-1), total(6, 10)]
)
async def test_another_total_although_both_views_are_past_it_is_a_gap(held: PeriodTotal):
    (gap,) = (await quotas(total(5, 9), held)).gaps
    assert (gap.subject.check, gap.subject.tenant, gap.subject.span) == ("quotas", "acme", "2026-11")


@pytest.mark.parametrize(
    ("stored", "held", "newest", "reached"),
    [
        (total(5, 9), total(4, 8), 10, 8),  # Redis has not read so far
        (total(5, 8), total(6, 9), 8, 10),  # ClickHouse has not
    ],
)
async def test_views_that_are_not_equally_far_are_not_compared(
    stored: PeriodTotal, held: PeriodTotal, newest: int, reached: int
):
    check = await quotas(stored, held, newest=newest, reached=reached)
    assert (check.gaps, check.unsettled) == ([], {("acme", "m")})


async def test_a_total_that_is_right_at_the_next_look_was_on_its_way():
    check = await quotas(total(5, 9), total(4, 9), total(4, 9), total(5, 9))
    assert (check.gaps, check.checked) == ([], 1)


async def test_levels_are_carried_on_to_the_same_instant():
    stored = PeriodTotal(100, 2, 7, 50, 9)
    assert (await quotas(stored, PeriodTotal(100 + 7 * 10, 2, 7, 60, 9), meter=DISK)).gaps == []
    assert len((await quotas(stored, PeriodTotal(100 + 7 * 10 + 1, 2, 7, 60, 9), meter=DISK)).gaps) == 1
    assert len((await quotas(stored, PeriodTotal(100, 2, 8, 50, 9), meter=DISK)).gaps) == 1


async def test_a_level_that_was_only_carried_into_the_month_has_no_live_total():
    assert (await quotas(PeriodTotal(0, 0, 7, 50, 9), PeriodTotal(0, 0, 0, 0, -1), meter=DISK)).gaps == []


def test_a_gap_has_one_name():
    first = Gap(_subject(), side("1", 1), side("2", 1))
    assert first.subject.gap_id == replace(first, found=side("3", 1)).subject.gap_id
    assert first.subject.gap_id != replace(first.subject, dimensions=("us",)).gap_id
    assert (first.quantity, first.events) == (1, 0)


def _subject() -> Subject:
    return Subject("rollups", "acme", "m", ("eu",), "2026-11-20T12", 0)
