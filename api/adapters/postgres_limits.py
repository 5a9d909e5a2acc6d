"""Limits of tenants from PostgreSQL, kept for a few seconds: a live quota must not wait for the store each time."""

from __future__ import annotations

import time
from collections.abc import Mapping

import psycopg
from psycopg_pool import PoolTimeout

from api.domain.quota_answer import Limit
from core.errors import UnavailableError
from runtime.postgres import Pool

_KEPT_SECONDS = 5.0
_KEPT_TENANTS = 10_000


class PostgresLimits:
    """Implements `api.ports.LimitBook`; in an outage the last known limits serve."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._kept: dict[str, tuple[float, dict[str, Limit]]] = {}

    async def limits_of(self, tenant: str) -> Mapping[str, Limit]:
        """Return meter -> limit."""
        now = time.monotonic()
        kept = self._kept.get(tenant)
        if kept is not None and now - kept[0] < _KEPT_SECONDS:
            return kept[1]
        try:
            limits = await self._read(tenant)
        except (psycopg.Error, PoolTimeout, OSError) as error:
            if kept is not None:
                return kept[1]
            raise UnavailableError("limits cannot be read now") from error
        if len(self._kept) >= _KEPT_TENANTS:
            self._kept.clear()
        self._kept[tenant] = (now, limits)
        return limits

    async def _read(self, tenant: str) -> dict[str, Limit]:
        async with self._pool.connection(timeout=3) as connection:
            rows = await (
                await connection.execute(
                    "SELECT meter_id, limit_quantity, hard FROM quota_limits WHERE tenant_id = %s", (tenant,)
                )
            ).fetchall()
        return {row["meter_id"]: Limit(row["limit_quantity"], row["hard"]) for row in rows}
