"""The quota agent in PostgreSQL: what tenants may use, totals older than the journal, reserved events that arrived."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from decimal import Decimal

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from core.alert_rules import AlertRules
from runtime.alert_rules import read_alert_rules
from runtime.patience import until_done
from runtime.postgres import Pool
from runtime.registry import RegistryCache
from streams.domain.quota_totals import Limits, PeriodKey, QuotaLimit, QuotaRules, decode_state

log = structlog.get_logger()
_AWAY = (psycopg.Error, PoolTimeout, OSError)  # TimeoutError is an OSError
# A server that went silent in the middle of an answer is given up after this.
_ANSWER_SECONDS = 10.0
# The tenant's own entitlement, else what was given to a plan it holds by hand, else what a version it holds gives (of
# several the most), else the limit that its subscription wrote.
_LIMITS = """
WITH ranked AS (
    SELECT t.tenant_id, f.meter_id, e.limit_quantity, e.hard, e.period, t.billing_anchor_day,
           row_number() OVER (
               PARTITION BY t.tenant_id, f.meter_id ORDER BY
                   e.tenant_id IS NULL, e.plan_version IS NOT NULL, e.limit_quantity DESC, e.entitlement_id) AS rank
    FROM entitlements e
    JOIN features f ON f.feature_id = e.feature_id AND f.kind = 'metered'
    LEFT JOIN held_plans s ON s.plan_id = e.plan_id AND (e.plan_version IS NULL OR e.plan_version = s.plan_version)
    JOIN tenants t ON t.tenant_id = coalesce(e.tenant_id, s.tenant_id)
    WHERE e.period IN ('month', 'billing') AND e.limit_quantity IS NOT NULL
), own AS (SELECT * FROM ranked WHERE rank = 1)
SELECT tenant_id, meter_id, limit_quantity, m.unit, hard, period = 'billing' AND billing_anchor_day <> 1 AS is_billing
FROM own JOIN meters m USING (meter_id)
UNION ALL
SELECT q.tenant_id, q.meter_id, q.limit_quantity, q.unit, q.hard, false
FROM quota_limits q WHERE NOT EXISTS (SELECT FROM own o WHERE (o.tenant_id, o.meter_id) = (q.tenant_id, q.meter_id))
"""


class RulesCache:
    """Limits and thresholds from PostgreSQL, read again when older than `refresh_s`.

    In an outage the last good ones serve; before any could be read, there is no limit to cross. Where no alert rule
    says otherwise, `default_percentages` are the thresholds.
    """

    def __init__(
        self, pool: Pool, registry: RegistryCache, default_percentages: Sequence[int], refresh_s: float
    ) -> None:
        self._pool, self._registry, self._refresh_s = pool, registry, refresh_s
        self._alerts = AlertRules.of((), default_percentages)
        self._rules = QuotaRules({}, self._alerts.thresholds_of)
        self._tried_at: float | None = None
        self._turn = asyncio.Lock()

    async def get(self) -> QuotaRules:
        """Return the rules; the same object for as long as nothing changed."""
        async with self._turn:
            if self._tried_at is None or time.monotonic() - self._tried_at >= self._refresh_s:
                try:
                    async with asyncio.timeout(_ANSWER_SECONDS):
                        limits, alerts = await self._read()
                    if alerts != self._alerts:
                        self._alerts = alerts
                    registry = (await self._registry.get()).registry
                    rules = QuotaRules(limits, self._alerts.thresholds_of, registry.by_id, registry.calendars)
                    if rules != self._rules:
                        self._rules = rules
                except _AWAY as error:
                    log.warning("quota_limits.stale", error=str(error))
                # After a failure, too: in an outage only one lane waits now and then, the others go on.
                self._tried_at = time.monotonic()
            return self._rules

    async def _read(self) -> tuple[Limits, AlertRules]:
        async with self._pool.connection(timeout=1) as connection:
            rows = await (await connection.execute(_LIMITS)).fetchall()
            alerts = await read_alert_rules(connection, self._alerts.default_percentages)
        limits = {
            (row["tenant_id"], row["meter_id"]): QuotaLimit(
                Decimal(row["limit_quantity"]), row["unit"], row["hard"], row["is_billing"]
            )
            for row in rows
        }
        return limits, alerts


class PostgresArchive:
    """Totals of periods that outlive the journal, per source partition."""

    def __init__(self, pool: Pool, partition: int) -> None:
        self._pool, self._partition = pool, partition

    async def save(self, rows: Sequence[tuple[PeriodKey, bytes]]) -> bool:
        """Keep rows, newer ones replacing older ones; False if the store is away: there is no hurry."""
        values = [
            (self._partition, *key, max(t.version for t in decode_state(key, body).segments.values()), body)
            for key, body in rows
        ]
        try:
            async with self._pool.connection(timeout=1) as connection, connection.cursor() as cursor:
                await cursor.executemany(
                    "INSERT INTO quota_archive (partition, tenant_id, meter_id, period, version, body)"
                    " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (partition, tenant_id, meter_id, period)"
                    " DO UPDATE SET version = excluded.version, body = excluded.body"
                    " WHERE quota_archive.version < excluded.version",
                    values,
                )
        except _AWAY as error:
            log.warning("quota_archive.waiting", error=str(error))
            return False
        return True

    async def load(self, before_version: int) -> list[tuple[PeriodKey, bytes]]:
        """Return the rows that the journal no longer tells: those last changed before that offset."""
        return await until_done("postgres", lambda: self._load(before_version), transient=_AWAY)

    async def _load(self, before_version: int) -> list[tuple[PeriodKey, bytes]]:
        async with self._pool.connection(timeout=10) as connection:
            rows = await (
                await connection.execute(
                    "SELECT tenant_id, meter_id, period, body FROM quota_archive WHERE partition = %s AND version < %s",
                    (self._partition, before_version),
                )
            ).fetchall()
        return [((row["tenant_id"], row["meter_id"], row["period"]), bytes(row["body"])) for row in rows]


async def settle_reservations(pool: Pool, reservations: Sequence[str]) -> None:
    """Write down that the events of these reservations were counted; in an outage they end by their own time."""
    try:
        async with pool.connection(timeout=1) as connection:
            await connection.execute(
                "UPDATE reservations SET status = 'settled', settled_at = now()"
                " WHERE reservation_id = ANY(%s) AND status IN ('held', 'committed')",
                (list(reservations),),
            )
    except _AWAY as error:
        log.warning("reservations.not_settled", count=len(reservations), error=str(error))
