"""Reading payments' rows within one transaction: the base of what `PostgresPaymentUnit` is put together from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.money import Money
from payments.domain.dispute import Dispute
from payments.domain.payment import Payment, PaymentStatus
from payments.domain.refund import Refund
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


def read_shared(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what payments, refunds and disputes alike have: whose and of what they are, where, and the amount."""
    names = ("payment_id", "invoice_id", "tenant_id", "provider", "provider_reference")
    return {**{name: row[name] for name in names}, "amount": Money(row["amount"], row["currency"])}


def shared_values(of: Payment | Refund | Dispute) -> dict[str, Any]:
    """Return the same for a statement."""
    return {
        "payment_id": of.payment_id,
        "invoice_id": of.invoice_id,
        "tenant_id": of.tenant_id,
        "provider": of.provider,
        "provider_reference": of.provider_reference,
        "amount": of.amount.amount,
        "currency": of.amount.currency,
        "status": of.status.value,
    }


def read_payment(row: Mapping[str, Any]) -> Payment:
    """Return the payment of a row with `PAYMENT_COLUMNS`."""
    return Payment(
        **read_shared(row),
        attempt=row["attempt"],
        created_at=row["created_at"],
        status=PaymentStatus(row["status"]),
        failure_code=row["failure_code"],
        failure_reason=row["failure_reason"],
        settled_at=row["settled_at"],
    )
