"""Reservations in PostgreSQL: written before Redis decides, so that a wiped Redis can be told what is still held."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import psycopg
from psycopg.errors import ForeignKeyViolation
from psycopg_pool import PoolTimeout

from core.errors import NotFoundError, UnavailableError
from quotas.domain.reservation import Reservation
from runtime.postgres import Connection, Pool

_COLUMNS = (
    "reservation_id, tenant_id, meter_id, amount, status, source, event_id, request_sha256, created_at, expires_at"
)


class PostgresReservations:
    """Implements `quotas.ports.ReservationBooks`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def write(self, reservation: Reservation) -> Reservation:
        """Write a hold down, unless it is there."""
        values = {name: getattr(reservation, name) for name in _COLUMNS.split(", ")}
        async with self._connected() as connection:
            try:
                cursor = await connection.execute(
                    f"INSERT INTO reservations ({_COLUMNS}) VALUES (%(reservation_id)s, %(tenant_id)s, %(meter_id)s,"  # noqa: S608 - a constant
                    " %(amount)s, %(status)s, %(source)s, %(event_id)s, %(request_sha256)s, %(created_at)s,"
                    " %(expires_at)s) ON CONFLICT (reservation_id) DO NOTHING",
                    values,
                )
            except ForeignKeyViolation as error:
                raise NotFoundError(f"no tenant {reservation.tenant_id!r}, or no such meter") from error
            if cursor.rowcount:
                return reservation
        return await self.find(reservation.reservation_id)

    async def find(self, reservation_id: str) -> Reservation:
        """Return a reservation."""
        async with self._connected() as connection:
            row = await (
                await connection.execute(
                    f"SELECT {_COLUMNS} FROM reservations WHERE reservation_id = %s",  # noqa: S608 - a constant
                    (reservation_id,),
                )
            ).fetchone()
        if row is None:
            raise NotFoundError(f"no reservation {reservation_id[:80]!r}")
        return Reservation(**row)

    async def extend(self, reservation_id: str, status: Literal["held", "committed"], expires_at: datetime) -> bool:
        """Let it count longer, if it still counts."""
        return await self._change(
            "UPDATE reservations SET status = %(status)s, expires_at = greatest(expires_at, %(expires_at)s)"
            " WHERE reservation_id = %(id)s AND status IN ('held', 'committed') AND expires_at > now()",
            {"id": reservation_id, "status": status, "expires_at": expires_at},
        )

    async def close(self, reservation_id: str, status: Literal["refused", "released"]) -> None:
        """End it."""
        await self._change(
            "UPDATE reservations SET status = %(status)s"
            " WHERE reservation_id = %(id)s AND status IN ('held', 'committed')",
            {"id": reservation_id, "status": status},
        )

    async def reduce(self, reservation_id: str, amount: Decimal) -> None:
        """Write down what was committed."""
        await self._change(
            "UPDATE reservations SET amount = %(amount)s WHERE reservation_id = %(id)s AND status = 'committed'",
            {"id": reservation_id, "amount": amount},
        )

    async def open_of(self, tenant: str) -> list[Reservation]:
        """Return what counts."""
        async with self._connected() as connection:
            rows = await (
                await connection.execute(
                    f"SELECT {_COLUMNS} FROM reservations WHERE tenant_id = %s AND status IN ('held', 'committed')"  # noqa: S608 - a constant
                    " AND expires_at > now()",
                    (tenant,),
                )
            ).fetchall()
        return [Reservation(**row) for row in rows]

    async def _change(self, statement: str, values: dict[str, Any]) -> bool:
        async with self._connected() as connection:
            return bool((await connection.execute(statement.encode(), values)).rowcount)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        try:
            async with self._pool.connection(timeout=3) as connection:
                yield connection
        except (psycopg.OperationalError, PoolTimeout, OSError) as error:
            raise UnavailableError("reservations cannot be written down now") from error
