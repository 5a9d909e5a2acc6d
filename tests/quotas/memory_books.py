"""Books of reservations in memory; passes the same contract as PostgreSQL (test_reservations_contract.py)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.clock import Clock, SystemClock
from core.errors import NotFoundError
from quotas.domain.reservation import Reservation


class MemoryReservations:
    def __init__(self, clock: Clock | None = None) -> None:
        self.rows: dict[str, Reservation] = {}
        self._clock = clock or SystemClock()

    async def write(self, reservation: Reservation) -> Reservation:
        return self.rows.setdefault(reservation.reservation_id, reservation)

    async def find(self, reservation_id: str) -> Reservation:
        if reservation_id not in self.rows:
            raise NotFoundError(f"no reservation {reservation_id}")
        return self.rows[reservation_id]

    async def extend(self, reservation_id: str, status: Any, expires_at: datetime) -> bool:
        row = self.rows[reservation_id]
        if not self._counts(row):
            return False
        self.rows[reservation_id] = replace(row, status=status, expires_at=max(row.expires_at, expires_at))
        return True

    async def close(self, reservation_id: str, status: Any) -> None:
        row = self.rows[reservation_id]
        if row.status in ("held", "committed"):
            self.rows[reservation_id] = replace(row, status=status)

    async def reduce(self, reservation_id: str, amount: Decimal) -> None:
        row = self.rows[reservation_id]
        if row.status == "committed":
            self.rows[reservation_id] = replace(row, amount=amount)

    async def open_of(self, tenant: str) -> list[Reservation]:
        return [row for row in self.rows.values() if row.tenant_id == tenant and self._counts(row)]

    def _counts(self, row: Reservation) -> bool:
        return row.status in ("held", "committed") and row.expires_at > self._clock.now()
