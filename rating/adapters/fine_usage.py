"""Usage by quarter hours and by single events from ClickHouse. Owns their queries.

FINAL, because money is at stake. Events that a void or an amend took out are left out, as are those that a meter added
later does not count; what is left is read as the stream read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from core.calendar import SLOT_SECONDS
from core.event_time import to_microseconds
from core.meters import Meter
from core.usage_event import VOID
from rating.domain.fine_usage import Entries, FineUsage, in_order, meters_of
from rating.domain.price import Grain, UsageEntry
from rating.domain.read_entry import EntryReader
from rating.domain.windows import Windows, gaps_of, holds_instant, hull_of

_PAGE = 20_000
USAGE_SLOTS = f"""
SELECT tenant, meter, dimensions,
       toUnixTimestamp(toStartOfInterval(window_start, INTERVAL {SLOT_SECONDS} SECOND)) AS slot,
       sum(quantity), sum(events)
FROM usage_rollups FINAL
WHERE tenant IN {{tenants:Array(String)}} AND meter IN {{meters:Array(String)}}
  AND window_start >= toDateTime({{start:UInt32}}, 'UTC') AND window_start < toDateTime({{end:UInt32}}, 'UTC')
  AND NOT arrayExists(gap -> toUnixTimestamp(window_start) >= gap.1 AND toUnixTimestamp(window_start) < gap.2,
                      {{gaps:Array(Tuple(UInt32, UInt32))}})
GROUP BY tenant, meter, dimensions, slot
ORDER BY tenant, meter, slot, dimensions
"""  # noqa: S608 - made of this file's own texts; what varies is bound
SINGLE_EVENTS = """
SELECT tenant, source, id, type, toUnixTimestamp64Micro(time), data, source_partition, source_offset
FROM usage_events FINAL
WHERE tenant IN {tenants:Array(String)} AND (tenant, source, id) > ({tenant:String}, {source:String}, {id:String})
  AND type IN {types:Array(String)} AND type != {void:String}
  AND time >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')
  AND time < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
  AND (tenant, source, id) NOT IN (
      SELECT tenant, target_source, target_id FROM usage_corrections FINAL
      WHERE tenant IN {tenants:Array(String)} AND kind IN ('void', 'amend'))
ORDER BY tenant, source, id LIMIT {limit:UInt32}
"""
_ACTIVATIONS = """
SELECT meter, source_partition, first_offset FROM meter_activations FINAL WHERE meter IN {meters:Array(String)}
"""
_decode = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode


def window_parameters(windows: Windows) -> dict[str, Any]:
    """Return the bounds of windows on whole minutes as queries over rollups take them: the hull, less its gaps."""
    hull = hull_of(windows)
    return {
        "start": int(hull.start.timestamp()),
        "end": int(hull.end.timestamp()),
        "gaps": [(int(gap.start.timestamp()), int(gap.end.timestamp())) for gap in gaps_of(windows)],
    }


async def read_fine_usage(
    client: Any,
    tenant_ids: Sequence[str],
    windows: Windows,
    wanted: Collection[FineUsage],
    meters: Mapping[str, Meter],
) -> dict[str, Entries]:
    """Return each tenant's usage of the windows (on whole minutes) as fine as it is wanted; empty where there is none.

    Only meters that add up can be had finer than their total.
    """
    found: dict[str, dict[FineUsage, list[UsageEntry]]] = {tenant: {one: [] for one in wanted} for tenant in tenant_ids}
    if slotted := meters_of(wanted, meters, Grain.SLOT):
        parameters = window_parameters(windows) | {
            "tenants": list(tenant_ids),
            "meters": [meter.meter_id for meter in slotted],
        }
        rows = (await client.query(USAGE_SLOTS, parameters=parameters)).result_rows
        for tenant, meter, dimensions, slot, quantity, events in rows:
            values = tuple(sorted((name, value) for name, value in dimensions.items() if value))
            entry = UsageEntry(datetime.fromtimestamp(slot, UTC), quantity, values, events)
            found[tenant][FineUsage(Grain.SLOT, meter)].append(entry)
    of_events = [one for one in wanted if one.grain is Grain.EVENT]
    if of_events:
        await _read_events(client, tenant_ids, windows, of_events, meters, found)
    return {
        tenant: {one: in_order(entries) for one, entries in of_tenant.items()} for tenant, of_tenant in found.items()
    }


async def _read_events(
    client: Any,
    tenant_ids: Sequence[str],
    windows: Windows,
    wanted: Sequence[FineUsage],
    meters: Mapping[str, Meter],
    found: Mapping[str, Mapping[FineUsage, list[UsageEntry]]],
) -> None:
    names = sorted({one.meter_id for one in wanted})
    hull = hull_of(windows)
    activations = (await client.query(_ACTIVATIONS, parameters={"meters": names})).result_rows
    first_offsets = {(meter, partition): first for meter, partition, first in activations}
    parameters = {
        "tenants": list(tenant_ids),
        "types": sorted({meters[name].event_type for name in names}),
        "void": VOID,
        "start_us": to_microseconds(hull.start),
        "end_us": to_microseconds(hull.end),
        "limit": _PAGE,
    }
    last: tuple[str, ...] = ("", "", "")
    while True:
        after = dict(zip(("tenant", "source", "id"), last, strict=True))
        page = (await client.query(SINGLE_EVENTS, parameters=parameters | after)).result_rows
        entries = await asyncio.to_thread(lambda: list(_entries(page, windows, wanted, meters, first_offsets)))  # noqa: B023 - awaited at once
        for tenant, one, entry in entries:
            found[tenant][one].append(entry)
        if len(page) < _PAGE:
            return
        last = page[-1][:3]


def _entries(
    page: Sequence[tuple[Any, ...]],
    windows: Windows,
    wanted: Sequence[FineUsage],
    meters: Mapping[str, Meter],
    first_offsets: Mapping[tuple[str, int], int],
) -> Iterator[tuple[str, FineUsage, UsageEntry]]:
    readers: dict[tuple[str, FineUsage], EntryReader] = {}
    for tenant, _, _, kind, time_us, data, partition, offset in page:
        decoded = _decode(data)
        for one in wanted:
            meter = meters[one.meter_id]
            first = first_offsets.get((one.meter_id, partition))
            if kind != meter.event_type or first is None or offset < first:
                continue
            reader = readers.get((tenant, one))
            if reader is None:
                reader = readers[tenant, one] = EntryReader(tenant, meter, one.amount_property)
            entry = reader.read(time_us, decoded)
            if entry is not None and holds_instant(windows, entry.at):
                yield tenant, one, entry
