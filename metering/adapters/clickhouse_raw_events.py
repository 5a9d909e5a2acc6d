"""Accepted raw events in ClickHouse, as a meter is filled from them; blocking, for they are read in another thread."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec

from core.event_time import format_event_time
from core.meters import Meter
from metering.domain.meter_parts import RawEvent

_PAGE = 20_000
ACTIVATIONS = """
SELECT events.source_partition, activations.first_offset, activations.meter != ''
FROM (SELECT DISTINCT source_partition FROM usage_events WHERE type = {type:String}) AS events
LEFT JOIN (SELECT * FROM meter_activations FINAL WHERE meter = {meter:String}) AS activations
    ON activations.source_partition = events.source_partition
"""
STORED_UP_TO = """
SELECT max(next_offset) FROM pipeline_progress
WHERE stage = 'warehouse' AND source_partition = {partition:UInt16}
"""
_CORRECTED = """
SELECT tenant, target_source, target_id FROM usage_corrections FINAL
WHERE kind IN ('void', 'amend') AND source_partition = {partition:UInt16} AND source_offset < {seen:UInt64}
"""
EVENTS_BEFORE = f"""
SELECT tenant, source, id, type, customer, toUnixTimestamp64Micro(time), data, source_offset, source_index
FROM usage_events FINAL
WHERE (tenant, source, id) > ({{tenant:String}}, {{source:String}}, {{id:String}})
  AND source_partition = {{partition:UInt16}} AND source_offset < {{before:UInt64}} AND type = {{type:String}}
  AND (tenant, source, id) NOT IN ({_CORRECTED})
ORDER BY tenant, source, id LIMIT {{limit:UInt32}}
"""  # noqa: S608 - made of this file's own texts; what varies is bound
CORRECTIONS_BETWEEN = """
SELECT corrections.source, corrections.id
FROM (
    SELECT * FROM usage_corrections FINAL
    WHERE kind IN ('void', 'amend') AND source_partition = {partition:UInt16}
      AND source_offset >= {first:UInt64} AND source_offset < {last:UInt64}
) AS corrections
JOIN (
    SELECT tenant, source, id FROM usage_events FINAL
    WHERE source_partition = {partition:UInt16} AND source_offset < {before:UInt64} AND type = {type:String}
) AS events
ON events.tenant = corrections.tenant AND events.source = corrections.target_source
    AND events.id = corrections.target_id
ORDER BY corrections.source_offset, corrections.source_index
"""
_decode = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode


class ClickHouseRawEvents:
    """`RawEvents` on a blocking client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def activations(self, meter: Meter) -> dict[int, int | None]:
        """Return, for each partition with events of the meter's type, the offset it is counted from."""
        rows = self._rows(ACTIVATIONS, meter=meter.meter_id, type=meter.event_type)
        return {partition: first if is_known else None for partition, first, is_known in rows}

    def stored_up_to(self, partition: int) -> int:
        """Return the source offset before which everything is stored."""
        return int(self._rows(STORED_UP_TO, partition=partition)[0][0])

    def events_before(self, meter: Meter, partition: int, before: int, seen: int) -> Iterator[RawEvent]:
        """Yield events of the meter's type before an offset, by identity, without those corrected before `seen`."""
        last = ("", "", "")
        while True:
            rows = self._rows(
                EVENTS_BEFORE,
                **dict(zip(("tenant", "source", "id"), last, strict=True)),
                partition=partition,
                before=before,
                seen=seen,
                type=meter.event_type,
                limit=_PAGE,
            )
            for tenant, source, event_id, kind, customer, time_us, data, offset, position in rows:
                time = format_event_time(time_us)
                yield RawEvent(tenant, source, event_id, kind, customer, time, _decode(data), offset, position)
            if len(rows) < _PAGE:
                return
            last = rows[-1][:3]

    def corrections_between(self, meter: Meter, partition: int, before: int, first: int, last: int) -> list[str]:
        """Return corrections at offsets [first, last) of the meter's events that stand before `before`."""
        found = self._rows(
            CORRECTIONS_BETWEEN, type=meter.event_type, partition=partition, before=before, first=first, last=last
        )
        return [f"{source} {correction_id}" for source, correction_id in found]

    def _rows(self, text: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return list(self._client.query(text, parameters=parameters).result_rows)
