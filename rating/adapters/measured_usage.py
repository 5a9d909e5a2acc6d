"""Totals of sampled meters from ClickHouse, for a window, by every grouping a price may ask for. Owns their queries.

FINAL, because money is at stake. Each sample stands in its own grouping and in that of all usage, so one read gives
totals and the digest of the samples behind them, and they cannot disagree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.event_time import to_microseconds
from core.meters import Meter
from core.period import Period, format_instant
from core.quantity import unscale
from core.time_weighted import quantity_of_area, weight_us
from rating.domain.measured import MeasuredTotal, Values
from rating.domain.price import plain
from rating.domain.windows import Windows, gaps_of, hull_of, windows_of

_OF_TENANTS = "tenant IN {tenants:Array(String)} AND meter IN {meters:Array(String)} AND removed = 0"
_BEFORE = "time < fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')"
_WITHIN = """time >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')
          AND time < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
          AND NOT arrayExists(gap -> toUnixTimestamp64Micro(time) >= gap.1 AND toUnixTimestamp64Micro(time) < gap.2,
                              {gaps:Array(Tuple(Int64, Int64))})"""
# Asked first, because it costs a tenth of what the others do and most tenants have no samples at all.
SAMPLED_METERS = """
SELECT DISTINCT meter FROM usage_samples WHERE tenant IN {tenants:Array(String)} AND meter IN {meters:Array(String)}
"""
_GROUPINGS = """arrayPushFront(
    arrayMap((name, value) -> [(toString(name), value)], mapKeys(dimensions), mapValues(dimensions)),
    CAST([], 'Array(Tuple(String, String))')
)"""
# One line per sample: dimensions, microseconds since 1970 UTC, value, place; hashed, sorted, and hashed as one.
_LINE = """concat(
    arrayStringConcat(arrayMap((name, value) -> concat(name, '=', value), mapKeys(dimensions), mapValues(dimensions)),
                      '\\x1f'),
    '\\t', toString(at), '\\t', toString(value), '\\t', text, '\\t', toString(place), '.', toString(position)
)"""
_DIGEST = "lower(hex(SHA256(arrayStringConcat(arraySort(groupArray(SHA256(line)))))))"
MEASURED_VALUES = f"""
SELECT tenant, meter, grouping, uniqExact(text), max(value), min(value), argMax((value, at), (at, place, position)),
       count(), {_DIGEST}
FROM (
    SELECT tenant, meter, dimensions, quantity AS value, text, toUnixTimestamp64Micro(time) AS at,
           source_offset AS place, source_index AS position, {_LINE} AS line
    FROM usage_samples FINAL WHERE {_OF_TENANTS} AND {_WITHIN}
) ARRAY JOIN {_GROUPINGS} AS grouping
GROUP BY tenant, meter, grouping
ORDER BY tenant, meter, grouping
"""  # noqa: S608 - made of this file's own texts; what varies is bound
# A series' level before the window is a change at the window's start; from then on each change holds until its end.
MEASURED_LEVELS = f"""
WITH levels AS (
    SELECT tenant, meter, dimensions, toInt64(0) AS at, toUInt64(0) AS place, toInt32(0) AS position,
           argMax(quantity, (time, source_offset, source_index)) AS value, '' AS text
    FROM usage_samples FINAL WHERE {_OF_TENANTS} AND {_BEFORE}
    GROUP BY tenant, meter, dimensions
    UNION ALL
    SELECT tenant, meter, dimensions, toUnixTimestamp64Micro(time) AS at, source_offset AS place,
           source_index AS position, quantity AS value, '' AS text
    FROM usage_samples FINAL WHERE {_OF_TENANTS} AND {_WITHIN}
),
changes AS (
    SELECT tenant, meter, dimensions, at, {_LINE} AS line,
           toInt256(toDecimal256(value, 12) * toDecimal256('1000000000000', 0)) AS scaled,
           scaled - lagInFrame(scaled, 1, toInt256(0)) OVER (
               PARTITION BY tenant, meter, dimensions ORDER BY at, place, position
               ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
           ) AS change
    FROM levels
)
SELECT tenant, meter, grouping, toString(sumIf(change, at = 0)),
       toString(sum(change * ({{end_us:Int64}} - greatest(at, {{start_us:Int64}})))), countIf(at > 0), {_DIGEST}
FROM changes ARRAY JOIN {_GROUPINGS} AS grouping
GROUP BY tenant, meter, grouping
ORDER BY tenant, meter, grouping
"""  # noqa: S608 - made of this file's own texts; what varies is bound


async def read_measured(
    client: Any,
    tenant_ids: Sequence[str],
    windows: Windows,
    meters: Iterable[Meter],
    *,
    month: Period,
    until: datetime,
) -> dict[str, list[MeasuredTotal]]:
    """Return each tenant's totals of the sampled meters in the windows; tenants without any are absent.

    A level counts until `until` at most, and held for the whole of `month` it is one unit-month.
    """
    known = {meter.meter_id: meter for meter in meters if not meter.is_additive}
    found: dict[str, list[MeasuredTotal]] = {}
    if not known:
        return found
    present = [row[0] for row in await _rows(client, SAMPLED_METERS, tenant_ids, list(known), windows)]
    weighted = [meter_id for meter_id in present if known[meter_id].aggregation == "time_weighted"]
    valued = [meter_id for meter_id in present if meter_id not in weighted]
    if valued:
        for tenant, meter_id, grouping, *row in await _rows(client, MEASURED_VALUES, tenant_ids, valued, windows):
            total = _value_total(known[meter_id], _values(grouping), *row)
            found.setdefault(tenant, []).append(total)
    for tenant, levels in (await _read_levels(client, tenant_ids, windows, known, weighted, month, until)).items():
        found.setdefault(tenant, []).extend(levels)
    return found


async def _read_levels(
    client: Any,
    tenant_ids: Sequence[str],
    windows: Windows,
    known: Mapping[str, Meter],
    weighted: Sequence[str],
    month: Period,
    until: datetime,
) -> dict[str, list[MeasuredTotal]]:
    """Read areas window by window: what several windows hold adds up."""
    found: dict[str, dict[tuple[str, Values], MeasuredTotal]] = {}
    for window in windows_of(windows) if weighted else ():
        end = min(window.end, until)
        if window.start >= end:
            continue
        span = Period(window.start, end)
        for tenant, meter_id, grouping, *row in await _rows(client, MEASURED_LEVELS, tenant_ids, weighted, span):
            key = (meter_id, _values(grouping))
            total = _level_total(known[meter_id], key[1], span, month, *row)
            totals = found.setdefault(tenant, {})
            totals[key] = _together(totals[key], total) if key in totals else total
    return {tenant: list(totals.values()) for tenant, totals in found.items()}


def _together(before: MeasuredTotal, after: MeasuredTotal) -> MeasuredTotal:
    digest = hashlib.sha256(f"{before.digest}\n{after.digest}\n".encode()).hexdigest()
    return MeasuredTotal(
        before.meter,
        before.dimensions,
        before.quantity + after.quantity,
        before.events + after.events,
        f"{before.working}; {after.working}",
        digest,
    )


async def _rows(
    client: Any, text: str, tenant_ids: Sequence[str], meter_ids: Sequence[str], windows: Windows
) -> list[tuple[Any, ...]]:
    hull = hull_of(windows)
    parameters: Mapping[str, Any] = {
        "tenants": list(tenant_ids),
        "meters": list(meter_ids),
        "start_us": to_microseconds(hull.start),
        "end_us": to_microseconds(hull.end),
        "gaps": [(to_microseconds(gap.start), to_microseconds(gap.end)) for gap in gaps_of(windows)],
    }
    return list((await client.query(text, parameters=parameters)).result_rows)


def _values(grouping: Sequence[Sequence[str]]) -> Values:
    return tuple((name, value) for name, value in grouping)


def _value_total(
    meter: Meter,
    dimensions: tuple[tuple[str, str], ...],
    distinct: int,
    largest: Decimal,
    smallest: Decimal,
    latest: tuple[Decimal, int],
    samples: int,
    digest: str,
) -> MeasuredTotal:
    match meter.aggregation:
        case "unique":
            quantity, working = Decimal(distinct), f"{distinct} distinct values of {samples} events"
        case "max":
            quantity, working = largest, f"the largest value of {samples} events"
        case "min":
            quantity, working = smallest, f"the smallest value of {samples} events"
        case _:
            quantity, at_us = latest
            working = f"the latest value of {samples} events, of {at_us} µs since 1970 UTC"
    return MeasuredTotal(meter, dimensions, quantity, samples, working, digest)


def _level_total(
    meter: Meter,
    dimensions: tuple[tuple[str, str], ...],
    window: Period,
    month: Period,
    level_before: str,
    area: str,
    samples: int,
    digest: str,
) -> MeasuredTotal:
    assert meter.weight_per is not None
    quantity = unscale(quantity_of_area(int(area), meter.weight_per, month))
    working = (
        f"level {plain(unscale(int(level_before)))} at {format_instant(window.start)}, {samples} events until"
        f" {format_instant(window.end)}: {plain(unscale(int(area)))} {meter.unit}·µs"
        f" ÷ {weight_us(meter.weight_per, month)} µs"
    )
    return MeasuredTotal(meter, dimensions, quantity, samples, working, digest)
