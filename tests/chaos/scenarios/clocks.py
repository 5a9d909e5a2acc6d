"""Clocks that are wrong, and event times at the edges of the calendar."""

from __future__ import annotations

import asyncio
import calendar
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from tests.chaos import observed
from tests.chaos.fleet import Worker
from tests.chaos.oracle import Almanac
from tests.chaos.row import Row
from tests.chaos.scenarios.registry import row
from tests.chaos.world import PARTITIONS, STREAM

ALMANACS = (
    Almanac(),
    Almanac("Europe/Berlin", 31),
    Almanac("America/New_York", 29),
    Almanac("Asia/Kolkata", 15),
    Almanac("Australia/Lord_Howe", 1),
)


@row("F18", "clocks 10 minutes off and stepping back; daylight saving, month edges, leap day")
async def clocks(row: Row) -> None:
    tenants = [name for almanac in ALMANACS for name in row.new_tenants(1, almanac=almanac)]
    traffic = row.traffic(tenants, duplicates=0.05)
    now = observed.now()
    edges = [
        traffic.event(tenant, at=at + timedelta(microseconds=shift))
        for tenant in tenants
        for at in _edges(now)
        for shift in (-1, 0, 1)
    ]
    shifts = [{"shift_s": 600}, {"shift_s": -600}, {"shift_s": 0, "step_s": -30, "after_s": 4}]
    for number in range(row.dose(1, 3)):
        for position, name in enumerate(STREAM):
            row.fleet.discard(name)
            clock = shifts[(position + number) % len(shifts)]
            row.fleet.start(name, plan={"clock": clock}, METERBOOK_REGISTRY_REFRESH_SECONDS="5")
            row.fault()
        meter = row.fleet.the("meter")

        async def taken_over(meter: Worker = meter) -> bool:
            return meter.logged("partition.taken_over") >= PARTITIONS

        await row.wait_for(taken_over, "the meter worker to take over")
        async with row.load(row.dose(1_500, 10_000), traffic=traffic):
            # A tenant that is younger than what a worker knows, whatever its clock says of that knowledge's age.
            for _ in range(row.dose(3, 10)):
                [young] = row.new_tenants(1)
                await row.send([traffic.single(traffic.event(young))])
                await asyncio.sleep(0.4)
    await row.send([traffic.single(event) for event in edges])
    await row.settle()
    for name in STREAM:
        row.fleet.discard(name)
        row.fleet.start(name)
    row.healed()
    await row.send(traffic.records(100))
    await row.settle()


def _edges(now: datetime) -> list[datetime]:
    """Return the last changes of clocks, month and year edges and leap day before now, far from what is still open."""
    until = now - timedelta(hours=3)
    found = [_last_leap_day(until), _last_leap_day(until) + timedelta(days=1)]
    for almanac in ALMANACS:
        zone = ZoneInfo(almanac.zone)
        month = datetime(until.year, until.month, 1, tzinfo=zone).astimezone(UTC)
        year = datetime(until.year, 1, 1, tzinfo=zone).astimezone(UTC)
        found += [edge for edge in (month, year) if edge <= until]
        found += _last_changes(zone, until)
    return sorted(set(found))


def _last_changes(zone: ZoneInfo, until: datetime) -> list[datetime]:
    """Return the last two instants at which a zone's offset changed, to the minute."""
    found: list[datetime] = []
    day = until.replace(minute=0, second=0, microsecond=0)
    for _ in range(400):
        before = day - timedelta(days=1)
        if before.astimezone(zone).utcoffset() != day.astimezone(zone).utcoffset():
            low, high = before, day
            while high - low > timedelta(minutes=1):
                middle = low + (high - low) / 2
                if middle.astimezone(zone).utcoffset() == before.astimezone(zone).utcoffset():
                    low = middle
                else:
                    high = middle
            found.append(high.replace(second=0, microsecond=0))
        if len(found) == 2:
            break
        day = before
    return found


def _last_leap_day(until: datetime) -> datetime:
    year = until.year if (until.month, until.day) >= (2, 29) else until.year - 1
    while not calendar.isleap(year):
        year -= 1
    return datetime(year, 2, 29, tzinfo=UTC)
