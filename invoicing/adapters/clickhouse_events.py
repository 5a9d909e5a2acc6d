"""Accepted events from ClickHouse, one by one, with what took them out. Owns the query that `explain` recounts from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from core.errors import UnavailableError
from core.event_time import to_microseconds
from core.period import Period
from core.usage_event import VOID
from invoicing.domain.stored_event import Activations, StoredEvent, TakenOut
from runtime.clickhouse import connect_clickhouse_async
from runtime.settings import Settings

_PAGE = 20_000
ACTIVATIONS = "SELECT meter, source_partition, first_offset FROM meter_activations FINAL"
# FINAL: of the records of one identity the first counts. Microseconds, because a DateTime64 bound to a parameter would
# be read in the server's zone.
EVENTS_OF_WINDOW = """
SELECT events.source, events.id, events.type, events.customer, toUnixTimestamp64Micro(events.time), events.data,
       toUnixTimestamp64Milli(events.received_at), events.source_partition, events.source_offset, events.source_index,
       corrections.kind, corrections.source, corrections.id, toUnixTimestamp64Milli(corrections.received_at)
FROM (
    SELECT * FROM usage_events FINAL
    WHERE tenant = {tenant:String} AND (source, id) > ({source:String}, {id:String}) AND type != {void:String}
      AND time < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
      AND (time >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC') OR type IN {carried:Array(String)})
    ORDER BY source, id LIMIT {limit:UInt32}
) AS events
LEFT JOIN (
    SELECT * FROM usage_corrections FINAL
    WHERE tenant = {tenant:String} AND (target_source, target_id) > ({source:String}, {id:String})
      AND kind IN ('void', 'amend')
) AS corrections ON corrections.target_source = events.source AND corrections.target_id = events.id
ORDER BY events.source, events.id
"""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DOWN = (ClickHouseError, OSError, TimeoutError)


class ClickHouseEvents:
    """An `EventStore`; connects when first used."""

    def __init__(self, settings: Settings, page: int = _PAGE) -> None:
        self._settings, self._page = settings, page
        self._client: Any = None

    async def activations(self) -> Activations:
        """Return from which source offset on each partition counts each meter."""
        return {(meter, partition): first for meter, partition, first in await self._rows(ACTIVATIONS)}

    async def events(
        self, tenant_id: str, window: Period, carried: Collection[str]
    ) -> AsyncIterator[Sequence[StoredEvent]]:
        """Yield the tenant's events of a window in pages by identity; of carried types also all before it."""
        source, event_id = "", ""
        while True:
            rows = await self._rows(
                EVENTS_OF_WINDOW,
                tenant=tenant_id,
                source=source,
                id=event_id,
                void=VOID,
                start_us=to_microseconds(window.start),
                end_us=to_microseconds(window.end),
                carried=sorted(carried),
                limit=self._page,
            )
            if rows:
                yield [_event(tenant_id, *row) for row in rows]
            if len(rows) < self._page:
                return
            source, event_id = rows[-1][:2]

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()

    async def _rows(self, text: str, **parameters: Any) -> list[tuple[Any, ...]]:
        try:
            if self._client is None:
                self._client = await connect_clickhouse_async(self._settings)
            return list((await self._client.query(text, parameters=parameters)).result_rows)
        except _DOWN as error:
            raise UnavailableError(f"events cannot be read now: {str(error)[:300]}") from error


def _event(
    tenant_id: str,
    source: str,
    event_id: str,
    event_type: str,
    customer: str,
    time_us: int,
    data: str,
    received_ms: int,
    partition: int,
    offset: int,
    position: int,
    kind: str,
    by_source: str,
    by_id: str,
    taken_ms: int,
) -> StoredEvent:
    taken_out = None
    if kind:
        taken_out = TakenOut("void" if kind == "void" else "amend", by_source, by_id, _from_ms(taken_ms))
    return StoredEvent(
        tenant_id,
        source,
        event_id,
        event_type,
        customer,
        time_us,
        data,
        _from_ms(received_ms),
        partition,
        offset,
        position,
        taken_out,
    )


def _from_ms(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)
