"""How far usage was judged, and the stretches of unusual usage, in PostgreSQL; one worker at a time per meter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from alerts.adapters.postgres_deliveries import claim_on
from alerts.domain.episodes import Episode
from alerts.ports import Claim
from runtime.postgres import Connection, Pool

_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 7410224)) AS mine"
_PROGRESS = "SELECT judged_until FROM anomaly_progress WHERE meter_id = %s"
_GOING_ON = """
SELECT tenant_id, kind, started_at, last_seen_at, calm_windows FROM anomaly_episodes
WHERE meter_id = %s AND ended_at IS NULL
"""
_SAVE = """
INSERT INTO anomaly_episodes (tenant_id, meter_id, kind, started_at, last_seen_at, calm_windows, ended_at)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (tenant_id, meter_id, kind, started_at) DO UPDATE SET
    last_seen_at = excluded.last_seen_at, calm_windows = excluded.calm_windows, ended_at = excluded.ended_at
"""
_ADVANCE = """
INSERT INTO anomaly_progress (meter_id, judged_until) VALUES (%s, %s)
ON CONFLICT (meter_id) DO UPDATE SET judged_until = excluded.judged_until
"""


class HeldPostgresMeter:
    """One meter, under a lock that ends with the transaction."""

    def __init__(
        self,
        connection: Connection,
        meter: str,
        judged_until: datetime | None,
        going_on: Mapping[str, Sequence[Episode]],
    ) -> None:
        self._connection, self._meter = connection, meter
        self.judged_until, self.going_on = judged_until, going_on

    async def save(self, tenant_id: str, episodes: Sequence[Episode]) -> None:
        """Write a tenant's changed episodes; ended ones first, for only one of a kind may go on."""
        for one in sorted(episodes, key=lambda episode: episode.ended_at is None):
            row = (
                tenant_id,
                self._meter,
                one.kind,
                one.started_at,
                one.last_seen_at,
                one.calm_windows,
                one.ended_at,
            )
            await self._connection.execute(_SAVE, row)

    async def claim(self, claim: Claim, now: datetime) -> bool:
        """Claim an alert together with the progress: both or neither."""
        return await claim_on(self._connection, claim, now)

    async def advance(self, judged_until: datetime) -> None:
        """Write up to where usage was judged."""
        await self._connection.execute(_ADVANCE, (self._meter, judged_until))


class PostgresAnomalies:
    """Implements `alerts.ports.AnomalyStates`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def hold(self, meter: str) -> AsyncIterator[HeldPostgresMeter | None]:
        """Hold a meter until the block ends; None if another worker holds it."""
        async with self._pool.connection() as connection, connection.transaction():
            # Judging reads and counts for longer than an idle transaction may rest.
            await connection.execute("SET LOCAL idle_in_transaction_session_timeout = '15min'")
            locked = await (await connection.execute(_TRY_LOCK, (meter,))).fetchone()
            if not (locked and locked["mine"]):
                yield None
                return
            progress = await (await connection.execute(_PROGRESS, (meter,))).fetchone()
            going_on: dict[str, list[Episode]] = {}
            for row in await (await connection.execute(_GOING_ON, (meter,))).fetchall():
                going_on.setdefault(row["tenant_id"], []).append(
                    Episode(row["kind"], row["started_at"], row["last_seen_at"], row["calm_windows"])
                )
            yield HeldPostgresMeter(connection, meter, progress["judged_until"] if progress else None, going_on)
