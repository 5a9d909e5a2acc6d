"""Meters and plan versions in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from core.meters import Meter
from runtime.postgres import Connection
from runtime.stored_meters import filters_document, read_meters

_CATALOGUE_LOCK = 7_410_230
_PUT_METER = (
    "INSERT INTO meters (meter_id, unit, event_type, aggregation, value_property, dimensions, filters, weight_per,"
    " allowed_lateness_seconds, created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
    " ON CONFLICT (meter_id) DO UPDATE SET unit = excluded.unit, event_type = excluded.event_type,"
    " aggregation = excluded.aggregation, value_property = excluded.value_property, dimensions = excluded.dimensions,"
    " filters = excluded.filters, weight_per = excluded.weight_per,"
    " allowed_lateness_seconds = excluded.allowed_lateness_seconds"
)


class PostgresCatalogueStore:
    """A `CatalogueStore` on the caller's connection and transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lock(self) -> None:
        """Let one apply at a time through, until the transaction ends."""
        await self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (_CATALOGUE_LOCK,))

    async def meters(self) -> dict[str, Meter]:
        """Return all meters by id."""
        return await read_meters(self._connection)

    async def meters_of_plans(self) -> set[str]:
        """Return the meters that any stored plan version charges for."""
        found = await self._connection.execute(
            "SELECT DISTINCT charge ->> 'meter' AS meter_id"
            " FROM plan_versions, jsonb_array_elements(document -> 'charges') AS charge WHERE charge ? 'meter'"
        )
        return {row["meter_id"] for row in await found.fetchall()}

    async def put_meter(self, meter: Meter, now: datetime) -> None:
        """Add the meter or replace the one of the same id."""
        await self._connection.execute(
            _PUT_METER,
            (
                meter.meter_id,
                meter.unit,
                meter.event_type,
                meter.aggregation,
                meter.value_property,
                list(meter.dimensions),
                Jsonb(filters_document(meter)),
                meter.weight_per,
                meter.allowed_lateness_seconds,
                now,
            ),
        )

    async def newest_version(self, plan_id: str) -> tuple[int, str] | None:
        """Return the newest version's number and digest, None for an unknown plan."""
        found = await self._connection.execute(
            "SELECT version, digest FROM plan_versions WHERE plan_id = %s ORDER BY version DESC LIMIT 1", (plan_id,)
        )
        row = await found.fetchone()
        return (row["version"], row["digest"]) if row else None

    async def add_version(
        self, plan_id: str, version: int, *, catalogue: str, digest: str, document: Mapping[str, Any], now: datetime
    ) -> None:
        """Store a plan version; it never changes again."""
        await self._connection.execute(
            "INSERT INTO plan_versions (plan_id, version, catalogue, digest, document, created_at)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            (plan_id, version, catalogue, digest, Jsonb(dict(document)), now),
        )
