"""Which money thresholds are reached, in PostgreSQL; a tenant's month is changed by one worker at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

from alerts.adapters.postgres_deliveries import claim_on
from alerts.domain.spend import SpendKey, SpendState
from alerts.ports import Claim
from runtime.postgres import Connection, Pool

_READ = """
SELECT tenant_id, period, scope, currency, threshold, reached, arming, amount, version FROM spend_alert_states
WHERE (tenant_id, period) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 7410223))"
_SAVE = """
INSERT INTO spend_alert_states
    (tenant_id, period, scope, currency, threshold, reached, arming, amount, version, updated_at)
VALUES (%(tenant_id)s, %(period)s, %(scope)s, %(currency)s, %(threshold)s, %(reached)s, %(arming)s, %(amount)s,
        %(version)s, %(now)s)
ON CONFLICT (tenant_id, period, scope, currency, threshold) DO UPDATE SET
    reached = excluded.reached, arming = excluded.arming, amount = excluded.amount, version = excluded.version,
    updated_at = excluded.updated_at
"""
_States = dict[SpendKey, SpendState]


class HeldPostgresSpend:
    """A tenant's month, under a lock that ends with the transaction."""

    def __init__(self, connection: Connection, tenant_id: str, period: str, states: _States) -> None:
        self._connection, self._tenant_id, self._period = connection, tenant_id, period
        self.states: Mapping[SpendKey, SpendState] = states

    async def save(self, key: SpendKey, state: SpendState, now: datetime) -> None:
        """Write one state."""
        await self._connection.execute(
            _SAVE,
            {
                "tenant_id": self._tenant_id,
                "period": self._period,
                **key._asdict(),
                "reached": state.reached,
                "arming": state.arming,
                "amount": state.amount,
                "version": state.version,
                "now": now,
            },
        )

    async def claim(self, claim: Claim, now: datetime) -> bool:
        """Claim an alert together with the states: both or neither."""
        return await claim_on(self._connection, claim, now)


class PostgresSpendStates:
    """Implements `alerts.ports.SpendStates`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(self, months: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], _States]:
        """Return the states of each (tenant, month) that has any."""
        async with self._pool.connection() as connection:
            return await _read(connection, months)

    @asynccontextmanager
    async def hold(self, tenant_id: str, period: str) -> AsyncIterator[HeldPostgresSpend]:
        """Hold a tenant's month until the block ends."""
        async with self._pool.connection() as connection, connection.transaction():
            # Rows that are not there yet cannot be locked.
            await connection.execute(_LOCK, (f"{tenant_id}\x1f{period}",))
            states = await _read(connection, [(tenant_id, period)])
            yield HeldPostgresSpend(connection, tenant_id, period, states.get((tenant_id, period), {}))


async def _read(connection: Connection, months: Collection[tuple[str, str]]) -> dict[tuple[str, str], _States]:
    tenants, periods = [tenant for tenant, _ in months], [period for _, period in months]
    found: dict[tuple[str, str], _States] = {}
    for row in await (await connection.execute(_READ, (tenants, periods))).fetchall():
        found.setdefault((row["tenant_id"], row["period"]), {})[_key_of(row)] = SpendState(
            row["reached"], row["arming"], Decimal(row["amount"]), row["version"]
        )
    return found


def _key_of(row: Mapping[str, Any]) -> SpendKey:
    return SpendKey(row["scope"], row["currency"], Decimal(row["threshold"]))
