"""Fetches what corrections name: from the source topic by its place, or from ClickHouse when memory no longer knows it.

The topic keeps more days than identities are remembered, so a place that is known can be read; one whose record is
gone all the same is looked up in ClickHouse, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from core.meters import Registry
from core.usage_event import VOID, CloudEvent
from runtime.clickhouse import connect_clickhouse_async
from runtime.patience import until_done
from runtime.settings import Settings
from streams.adapters.clickhouse_warehouse import CLICKHOUSE_DOWN
from streams.adapters.source_reader import SourceReader
from streams.domain.tally import Original, Originals, Target, measure_accepted, read_original

# Records that are this close together are read in one go rather than one by one.
_GAP_READ_OVER = 2_000
_IDS_PER_QUERY = 1_000

EVENTS_BY_IDENTITY = """
SELECT tenant, source, id, customer, type, toString(time) AS time, data, source_offset, source_index
FROM usage_events FINAL WHERE (tenant, source, id) IN {names:Array(Tuple(String, String, String))}
"""
CORRECTED_BEFORE = """
SELECT tenant, target_source, target_id FROM usage_corrections FINAL
WHERE kind IN ('void', 'amend') AND (tenant, target_source, target_id) IN {names:Array(Tuple(String, String, String))}
"""
Name = tuple[str, str, str]
_decode = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode


class OriginalsOfPartition:
    """Reads originals of one source partition."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self._settings = settings
        self._partition = partition
        self._source: SourceReader | None = None
        self._client: Any = None

    async def find(self, targets: Mapping[bytes, Target], registry: Registry) -> Originals:
        """Return an answer for every target.

        Waits for ClickHouse at most `original_wait_seconds`: an outage of the warehouse must not stop the counting.
        """
        placed = {identity: target for identity, target in targets.items() if target.place is not None}
        found: dict[bytes, Original | None] = dict(await self._from_source(placed, registry)) if placed else {}
        left = {identity: target for identity, target in targets.items() if identity not in found}
        if left:
            found |= await self._from_warehouse_in_time(left, registry)
        return found

    async def close(self) -> None:
        """Disconnect."""
        if self._source is not None:
            await self._source.stop()
        if self._client is not None:
            await self._client.close()

    async def _from_source(self, targets: Mapping[bytes, Target], registry: Registry) -> dict[bytes, Original]:
        if self._source is None:
            source = SourceReader(self._settings.kafka_bootstrap, self._partition)
            await source.start()
            self._source = source
        wanted: dict[int, list[tuple[bytes, int]]] = {}
        for identity, target in targets.items():
            assert target.place is not None
            wanted.setdefault(target.place.offset, []).append((identity, target.place.index))
        found: dict[bytes, Original] = {}
        for first, last in _ranges(sorted(wanted)):
            async for record in self._source.read(first, last):
                for identity, index in wanted.get(record.offset, ()):
                    found[identity] = read_original(record, index, registry)
        return found

    async def _from_warehouse_in_time(
        self, targets: Mapping[bytes, Target], registry: Registry
    ) -> dict[bytes, Original | None]:
        async def look_up() -> dict[bytes, Original | None]:
            return await self._from_warehouse(targets, registry)

        try:
            async with asyncio.timeout(self._settings.original_wait_seconds):
                return await until_done("originals", look_up, transient=CLICKHOUSE_DOWN, longest_pause_s=5.0)
        except TimeoutError:
            return dict.fromkeys(targets, Original(None, -1, 0, is_unavailable=True))

    async def _from_warehouse(
        self, targets: Mapping[bytes, Target], registry: Registry
    ) -> dict[bytes, Original | None]:
        if self._client is None:
            self._client = await connect_clickhouse_async(self._settings)
        by_name = {(target.tenant, target.source, target.id): identity for identity, target in targets.items()}
        names = list(by_name)
        found: dict[bytes, Original | None] = dict.fromkeys(targets)
        for start in range(0, len(names), _IDS_PER_QUERY):
            parameters = {"names": names[start : start + _IDS_PER_QUERY]}
            corrected = {tuple(row) for row in (await self._client.query(CORRECTED_BEFORE, parameters)).result_rows}
            for row in (await self._client.query(EVENTS_BY_IDENTITY, parameters)).result_rows:
                name: Name = tuple(row[:3])
                found[by_name[name]] = _original(row, registry, is_corrected=name in corrected)
        return found


def _original(row: Any, registry: Registry, *, is_corrected: bool) -> Original:
    tenant, source, event_id, customer, kind, time, data, offset, index = row
    if kind == VOID:
        return Original(None, offset, index, is_corrected)
    subject = f"{tenant}/{customer}" if customer else tenant
    # The warehouse keeps an amend as what it counts, so every row but a void is plain usage.
    event = CloudEvent("1.0", event_id, source, kind, subject, f"{time.replace(' ', 'T')}Z", _decode(data))
    return Original(measure_accepted(event, registry), offset, index, is_corrected)


def _ranges(offsets: list[int]) -> list[tuple[int, int]]:
    """Return inclusive ranges that hold all the offsets and little else."""
    ranges: list[tuple[int, int]] = []
    for offset in offsets:
        if ranges and offset - ranges[-1][1] <= _GAP_READ_OVER:
            ranges[-1] = ranges[-1][0], offset
        else:
            ranges.append((offset, offset))
    return ranges
