"""Meters as PostgreSQL keeps them. Owns how a row of `meters` becomes a `Meter`, for every stage that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.meters import Filter, Meter
from runtime.postgres import Connection

_SELECT = (
    "SELECT meter_id, unit, event_type, aggregation, value_property, dimensions, filters, weight_per,"
    " allowed_lateness_seconds FROM meters ORDER BY meter_id"
)


async def read_meters(connection: Connection) -> dict[str, Meter]:
    """Return all meters by id."""
    rows = await (await connection.execute(_SELECT)).fetchall()
    return {row["meter_id"]: _meter_of(row) for row in rows}


def filters_document(meter: Meter) -> list[dict[str, Any]]:
    """Return the meter's filters as the column keeps them."""
    return [{"property": one.property, "operator": one.operator, "values": list(one.values)} for one in meter.filters]


def _meter_of(row: Mapping[str, Any]) -> Meter:
    filters = tuple(Filter(one["property"], one["operator"], tuple(one["values"])) for one in row["filters"])
    return Meter(**{**row, "dimensions": tuple(row["dimensions"]), "filters": filters})
