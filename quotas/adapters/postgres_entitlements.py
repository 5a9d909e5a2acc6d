"""Features, entitlements and grants in PostgreSQL; a tenant's book is kept for a few seconds."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg.errors import ForeignKeyViolation
from psycopg.types.json import Jsonb
from psycopg_pool import PoolTimeout

from core.errors import ConflictError, NotFoundError, UnavailableError
from quotas.domain.access import CURRENT
from quotas.domain.entitlement import Entitlement, Feature, Origin
from quotas.domain.grant import Grant
from quotas.ports import TenantBook
from runtime.postgres import Connection, Pool

_KEPT_SECONDS = 5.0
_KEPT_TENANTS = 10_000
# Every feature with the entitlement that counts for the tenant: its own, else what was given to a plan of its by hand,
# else what a version it holds gives (of several the most); and every meter by its own name with the limit that the
# tenant's subscription wrote.
_BOOK = """
SELECT f.feature_id, f.name, f.kind, f.meter_id, e.entitlement_id IS NOT NULL AS is_given, e.tenant_id IS NOT NULL AS
       is_own, e.limit_quantity, e.hard, e.period, e.rolling_hours, e.value
FROM features f LEFT JOIN LATERAL (
    SELECT * FROM entitlements e
    WHERE e.feature_id = f.feature_id AND (e.tenant_id = %(tenant)s OR EXISTS (
        SELECT FROM held_plans h WHERE h.tenant_id = %(tenant)s AND h.plan_id = e.plan_id
        AND (e.plan_version IS NULL OR e.plan_version = h.plan_version)))
    ORDER BY e.tenant_id IS NULL, e.plan_version IS NOT NULL, e.value DESC NULLS LAST,
             e.limit_quantity DESC NULLS FIRST, e.plan_id LIMIT 1) e ON true
"""
_METERS = """
SELECT m.meter_id, q.limit_quantity, q.hard FROM meters m
LEFT JOIN quota_limits q ON q.meter_id = m.meter_id AND q.tenant_id = %(tenant)s
"""
_GRANTS = """
SELECT feature_id, grant_id, amount, priority, effective_at, expires_at, recurrence, rollover_min, rollover_max,
       created_at, reason
FROM grants WHERE tenant_id = %(tenant)s AND voided_at IS NULL ORDER BY created_at, grant_id
"""

# The account's standing, as dunning has written it down; over as soon as no invoice that made it so is owed any more,
# which dunning itself sees some seconds later.
_ACCOUNT = """
SELECT stage FROM dunning_accounts AS account WHERE tenant_id = %(tenant)s AND EXISTS (
    SELECT FROM dunning_cases AS seen JOIN invoices AS invoice USING (invoice_id)
    WHERE seen.tenant_id = account.tenant_id AND seen.is_open AND seen.stage = account.stage
    AND invoice.status IN ('finalized', 'overdue') AND invoice.amount_due > invoice.amount_paid)
"""


class PostgresEntitlements:
    """Implements `quotas.ports.EntitlementBooks`; in an outage the last known books serve."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._kept: dict[str, tuple[float, TenantBook]] = {}

    async def of_tenant(self, tenant: str) -> TenantBook:
        """Return all that a tenant has; of an account that is not current it is read anew, so payment tells at once."""
        now = time.monotonic()
        kept = self._kept.get(tenant)
        if kept is not None and now - kept[0] < _KEPT_SECONDS and kept[1].account == CURRENT:
            return kept[1]
        try:
            book = await self._read(tenant)
        except UnavailableError:
            if kept is None:
                raise
            return kept[1]
        if len(self._kept) >= _KEPT_TENANTS:
            self._kept.clear()
        self._kept[tenant] = (now, book)
        return book

    async def find_feature(self, feature_id: str) -> Feature | None:
        """Return a feature."""
        async with self._connected() as connection:
            row = await (
                await connection.execute(
                    "SELECT feature_id, name, kind, meter_id FROM features WHERE feature_id = %s", (feature_id,)
                )
            ).fetchone()
        return None if row is None else Feature(**row)

    async def put_feature(self, feature: Feature, created_at: datetime) -> None:
        """Add or rename a feature."""
        async with self._writing() as connection:
            cursor = await connection.execute(
                "INSERT INTO features (feature_id, name, kind, meter_id, created_at) VALUES (%s, %s, %s, %s, %s)"
                " ON CONFLICT (feature_id) DO UPDATE SET name = excluded.name"
                " WHERE features.kind = excluded.kind AND features.meter_id IS NOT DISTINCT FROM excluded.meter_id",
                (feature.feature_id, feature.name, feature.kind, feature.meter_id, created_at),
            )
            if not cursor.rowcount:
                raise ConflictError(f"feature {feature.feature_id} is of another kind or meter")

    async def put_entitlement(
        self, entitlement: Entitlement, *, tenant: str | None, plan: str | None, created_at: datetime
    ) -> None:
        """Give a feature to a tenant or a plan."""
        is_metered = entitlement.feature.kind == "metered"
        owner = "tenant_id" if tenant is not None else "plan_id"
        values = {
            "id": f"ent:{owner}:{tenant or plan}:{entitlement.feature.feature_id}",
            "feature": entitlement.feature.feature_id,
            "tenant": tenant,
            "plan": plan,
            "limit": entitlement.limit,
            "hard": entitlement.hard,
            "period": entitlement.period if is_metered else None,
            "hours": entitlement.rolling_hours,
            "value": None if is_metered else Jsonb(entitlement.value),
            "at": created_at,
        }
        async with self._writing() as connection:
            await connection.execute(
                "INSERT INTO entitlements (entitlement_id, feature_id, tenant_id, plan_id, limit_quantity, hard,"
                " period, rolling_hours, value, created_at) VALUES (%(id)s, %(feature)s, %(tenant)s, %(plan)s,"
                " %(limit)s, %(hard)s, %(period)s, %(hours)s, %(value)s, %(at)s)"
                " ON CONFLICT (entitlement_id) DO UPDATE SET limit_quantity = excluded.limit_quantity,"
                " hard = excluded.hard, period = excluded.period, rolling_hours = excluded.rolling_hours,"
                " value = excluded.value",
                values,
            )

    async def add_grant(self, tenant: str, feature_id: str, grant: Grant) -> Grant:
        """Add a grant, once."""
        async with self._writing() as connection:
            cursor = await connection.execute(
                "INSERT INTO grants (grant_id, tenant_id, feature_id, amount, priority, effective_at, expires_at,"
                " recurrence, rollover_min, rollover_max, reason, created_at)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (grant_id) DO NOTHING",
                (
                    grant.grant_id,
                    tenant,
                    feature_id,
                    grant.amount,
                    grant.priority,
                    grant.effective_at,
                    grant.expires_at,
                    grant.recurrence,
                    grant.rollover_min,
                    grant.rollover_max,
                    grant.reason,
                    grant.created_at,
                ),
            )
        if cursor.rowcount:
            return grant
        for known_feature, known in await self.list_grants(tenant, None):
            if known.grant_id == grant.grant_id:
                if known_feature == feature_id and replace(known, created_at=grant.created_at) == grant:
                    return known
                break
        raise ConflictError(f"grant {grant.grant_id} says otherwise, or was voided")

    async def void_grant(self, grant_id: str, voided_at: datetime) -> None:
        """End a grant as if it had never been."""
        async with self._writing() as connection:
            cursor = await connection.execute(
                "UPDATE grants SET voided_at = coalesce(voided_at, %s) WHERE grant_id = %s", (voided_at, grant_id)
            )
            if not cursor.rowcount:
                raise NotFoundError(f"no grant {grant_id[:80]!r}")

    async def list_grants(self, tenant: str, feature_id: str | None) -> list[tuple[str, Grant]]:
        """Return the grants of a tenant that are not voided."""
        async with self._connected() as connection:
            rows = await (await connection.execute(_GRANTS, {"tenant": tenant})).fetchall()
        return [_grant(row) for row in rows if feature_id in (None, row["feature_id"])]

    async def _read(self, tenant: str) -> TenantBook:
        async with self._connected() as connection:
            known = await (await connection.execute("SELECT FROM tenants WHERE tenant_id = %s", (tenant,))).fetchone()
            if known is None:
                raise NotFoundError(f"no tenant {tenant!r}")
            meters = await (await connection.execute(_METERS, {"tenant": tenant})).fetchall()
            features = await (await connection.execute(_BOOK, {"tenant": tenant})).fetchall()
            grants = await (await connection.execute(_GRANTS, {"tenant": tenant})).fetchall()
            account = await (await connection.execute(_ACCOUNT, {"tenant": tenant})).fetchone()
        entitlements = {row["meter_id"]: _of_meter(row) for row in meters}
        limits = {row["meter_id"]: row for row in meters}
        for row in features:
            entitlements[row["feature_id"]] = _of_feature(row, limits)
        by_feature: dict[str, list[Grant]] = {}
        for row in grants:
            feature_id, grant = _grant(row)
            by_feature.setdefault(feature_id, []).append(grant)
        by_name = {name: tuple(found) for name, found in by_feature.items()}
        return TenantBook(entitlements, by_name, CURRENT if account is None else account["stage"])

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[Connection]:
        async with self._connected() as connection:
            try:
                yield connection
            except ForeignKeyViolation as error:
                raise NotFoundError(f"there is no such {error.diag.constraint_name}") from error
        self._kept.clear()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        try:
            async with self._pool.connection(timeout=3) as connection:
                yield connection
        except (psycopg.OperationalError, PoolTimeout, OSError) as error:
            raise UnavailableError("entitlements cannot be read or written now") from error


def _of_meter(row: dict[str, Any]) -> Entitlement:
    """Return a meter's limit as an entitlement to the feature of the same name."""
    feature = Feature(row["meter_id"], row["meter_id"], "metered", row["meter_id"])
    if row["limit_quantity"] is None:
        return Entitlement(feature, "none")
    return Entitlement(feature, "limit", row["limit_quantity"], row["hard"])


def _of_feature(row: dict[str, Any], limits: dict[str, dict[str, Any]]) -> Entitlement:
    feature = Feature(row["feature_id"], row["name"], row["kind"], row["meter_id"])
    if not row["is_given"]:
        # A metered feature that nobody gave has its meter's limit; any other is not had.
        if feature.kind == "metered":
            return replace(_of_meter(limits[row["meter_id"]]), feature=feature)
        return Entitlement(feature, "none", value=False if feature.kind == "boolean" else None)
    origin: Origin = "tenant" if row["is_own"] else "plan"
    if feature.kind != "metered":
        return Entitlement(feature, origin, value=row["value"])
    return Entitlement(feature, origin, row["limit_quantity"], row["hard"], row["period"], row["rolling_hours"])


def _grant(row: dict[str, Any]) -> tuple[str, Grant]:
    values = dict(row)
    return values.pop("feature_id"), Grant(**values)
