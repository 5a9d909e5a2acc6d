"""Answers a question about usage: any meter, by windows and dimensions, page by page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from itertools import islice

from core.errors import Fault, InvalidInputError
from core.event_time import to_microseconds
from core.period import Period
from core.quantity import UNIT, unscale
from core.time_weighted import divide_half_even
from metering.domain.carried_levels import carry_levels, stretches_of
from metering.domain.usage_query import Position, UsagePage, UsageQuery, WindowUsage
from metering.domain.windows import cut_windows
from metering.ports import Found, UsageStore

# What a time-weighted question may read: each is a group's change within a window.
CHANGES_MAX = 200_000


async def query_usage(query: UsageQuery, *, store: UsageStore, now: datetime) -> UsagePage:
    """Return the page of the answer that the query asks for, by window and group.

    Windows without usage are left out; those over which a time-weighted level was carried are not, up to `now`. An
    average is rounded half to even to 12 places, as a time-weighted quantity is; everything else is exact. Raises
    `InvalidInputError` (`too_many_windows`, `too_many_rows`), `UnavailableError`.
    """
    windows = cut_windows(query.window, query.span, query.calendar)
    if query.after is not None:
        windows = [window for window in windows if _seconds(window) >= query.after.start]
    if not windows:
        return UsagePage(query, (), None)
    query = replace(query, span=Period(windows[0].start, query.span.end))
    if query.meter.aggregation == "time_weighted":
        rows = await _weighted(query, windows, store, now)
    else:
        rows = await _summed(query, windows, store)
    if len(rows) <= query.limit:
        return UsagePage(query, tuple(rows), None)
    page = rows[: query.limit]
    return UsagePage(query, tuple(page), Position(_seconds(page[-1].window), page[-1].group))


async def _summed(query: UsageQuery, windows: list[Period], store: UsageStore) -> list[WindowUsage]:
    by_start = {_seconds(window): window for window in windows}
    read = store.added_up if query.meter.is_additive else store.sampled
    found = await read(query, list(by_start), query.limit + 1)
    is_average = query.meter.aggregation == "average"
    return [_row(by_start[row[0]], row, is_average=is_average) for row in found]


def _row(window: Period, found: Found, *, is_average: bool) -> WindowUsage:
    _, group, quantity, events = found
    if is_average:
        quantity = unscale(divide_half_even(int(quantity * UNIT), events))
    return WindowUsage(window, group, quantity, events)


async def _weighted(query: UsageQuery, windows: list[Period], store: UsageStore, now: datetime) -> list[WindowUsage]:
    until_us = min(to_microseconds(now), to_microseconds(query.span.end))
    cut = [(window, stretches_of(query, window)) for window in windows if to_microseconds(window.start) < until_us]
    if not cut:
        return []
    starts = [stretch.start for _, stretches in cut for stretch in stretches]
    changes = await store.level_changes(query, starts, until_us, CHANGES_MAX + 1)
    if len(changes) > CHANGES_MAX:
        reason = f"more than {CHANGES_MAX} groups changed in these windows: ask for fewer windows or dimensions"
        raise InvalidInputError([Fault("too_many_rows", reason, "window")])
    rows: Iterable[WindowUsage] = carry_levels(cut, changes, until_us)
    if query.after is not None:
        after = (query.after.start, query.after.group)
        rows = (row for row in rows if (_seconds(row.window), row.group) > after)
    return list(islice(rows, query.limit + 1))


def _seconds(window: Period) -> int:
    return int(window.start.timestamp())
