"""Meters, features, plan versions and editions in PostgreSQL."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from catalogues.domain.edition import Edition, StoredPlan
from core.errors import must_hold
from core.meters import Meter
from quotas.domain.entitlement import Entitlement, Feature
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
_PLANS = (
    "SELECT DISTINCT ON (plan_id) catalogue, plan_id, version, digest, document, effective_from"
    " FROM plan_versions ORDER BY plan_id, version DESC"
)
_GIVEN = (
    "SELECT plan_id, plan_version, feature_id, name, kind, meter_id, limit_quantity, hard, period, rolling_hours, value"
    " FROM entitlements JOIN features USING (feature_id) WHERE plan_version IS NOT NULL ORDER BY feature_id"
)
_EDITIONS = (
    "SELECT DISTINCT ON (catalogue) catalogue, version, effective_from, digest"
    " FROM catalogue_editions ORDER BY catalogue, version DESC"
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

    async def features(self) -> dict[str, Feature]:
        """Return all features by id."""
        rows = await self._rows("SELECT feature_id, name, kind, meter_id FROM features")
        return {row["feature_id"]: Feature(**row) for row in rows}

    async def put_feature(self, feature: Feature, now: datetime) -> None:
        """Add the feature, or give the one of the same id another name."""
        await self._connection.execute(
            "INSERT INTO features (feature_id, name, kind, meter_id, created_at) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (feature_id) DO UPDATE SET name = excluded.name",
            (feature.feature_id, feature.name, feature.kind, feature.meter_id, now),
        )

    async def plans(self) -> dict[str, StoredPlan]:
        """Return the newest version of every plan, by id, with what that version gives."""
        given: dict[tuple[str, int], list[Entitlement]] = {}
        for row in await self._rows(_GIVEN):
            given.setdefault((row["plan_id"], row["plan_version"]), []).append(_entitlement(row))
        return {
            row["plan_id"]: StoredPlan(**row, given=tuple(given.get((row["plan_id"], row["version"]), ())))
            for row in await self._rows(_PLANS)
        }

    async def add_plan(self, plan: StoredPlan, now: datetime) -> None:
        """Store a plan version and what it gives; neither ever changes again."""
        await self._connection.execute(
            "INSERT INTO plan_versions (plan_id, version, catalogue, digest, document, created_at, effective_from)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (
                plan.plan_id,
                plan.version,
                plan.catalogue,
                plan.digest,
                Jsonb(dict(plan.document)),
                now,
                plan.effective_from,
            ),
        )
        for one in plan.given:
            is_metered = one.feature.kind == "metered"
            await self._connection.execute(
                "INSERT INTO entitlements (entitlement_id, feature_id, plan_id, plan_version, limit_quantity, hard,"
                " period, rolling_hours, value, created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    f"ent:plan:{plan.plan_id}:{plan.version}:{one.feature.feature_id}",
                    one.feature.feature_id,
                    plan.plan_id,
                    plan.version,
                    one.limit,
                    one.hard,
                    one.period if is_metered else None,
                    one.rolling_hours,
                    None if is_metered else Jsonb(one.value),
                    now,
                ),
            )

    async def editions(self) -> dict[str, Edition]:
        """Return the newest edition of every catalogue, by name."""
        return {row["catalogue"]: Edition(**row) for row in await self._rows(_EDITIONS)}

    async def add_edition(self, edition: Edition, now: datetime) -> None:
        """Store an edition, which has a version and a date; it never changes again."""
        must_hold(edition.version is not None and edition.effective_from is not None, f"{edition} is not numbered")
        await self._connection.execute(
            "INSERT INTO catalogue_editions (catalogue, version, digest, effective_from, applied_at)"
            " VALUES (%s, %s, %s, %s, %s)",
            (edition.catalogue, edition.version, edition.digest, edition.effective_from, now),
        )

    async def _rows(self, query: str) -> list[dict[str, Any]]:
        # The texts are this file's own and have no values in them.
        return await (await self._connection.execute(query.encode())).fetchall()


def _entitlement(row: dict[str, Any]) -> Entitlement:
    feature = Feature(row["feature_id"], row["name"], row["kind"], row["meter_id"])
    if feature.kind != "metered":
        return Entitlement(feature, "plan", value=row["value"])
    return Entitlement(feature, "plan", row["limit_quantity"], row["hard"], row["period"], row["rolling_hours"])
