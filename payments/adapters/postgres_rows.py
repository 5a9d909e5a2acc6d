"""Reading payments' rows within one transaction: the base of what `PostgresPaymentUnit` is put together from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.money import Money
from payments.domain.payment import Payment, PaymentStatus
from runtime.postgres import Connection

PAYMENT_COLUMNS = (
    "payment_id, invoice_id, tenant_id, attempt, provider, provider_reference, amount, currency, status,"
    " failure_code, failure_reason, created_at, settled_at"
)


class Rows:
    """One transaction's connection, and how rows are read through it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def _one(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any] | None:
        return await (await self._connection.execute(sql.encode(), parameters)).fetchone()

    async def _all(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any]) -> list[dict[str, Any]]:
        return await (await self._connection.execute(sql.encode(), parameters)).fetchall()


def storable(text: str | None) -> str | None:
    """Return the provider's words as they can be kept: PostgreSQL takes no NUL, and a page of text helps nobody."""
    return text and text.replace("\0", "")[:500]


def read_payment(row: Mapping[str, Any]) -> Payment:
    """Return the payment of a row with `PAYMENT_COLUMNS`."""
    return Payment(
        payment_id=row["payment_id"],
        invoice_id=row["invoice_id"],
        tenant_id=row["tenant_id"],
        attempt=row["attempt"],
        provider=row["provider"],
        amount=Money(row["amount"], row["currency"]),
        created_at=row["created_at"],
        status=PaymentStatus(row["status"]),
        provider_reference=row["provider_reference"],
        failure_code=row["failure_code"],
        failure_reason=row["failure_reason"],
        settled_at=row["settled_at"],
    )
