"""Invoices being paid, in PostgreSQL: settlements, what became of them afterwards, and the ledger's entries of both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from psycopg.errors import ForeignKeyViolation

from core.errors import Fault, InvalidInputError, must_hold
from invoicing.settlement_ports import MoneyBack, Payable, Settlement
from ledger.adapters.postgres import post
from ledger.domain import postings
from ledger.domain.postings import Entries
from runtime.postgres import Connection, Pool

_LOCK = (
    "SELECT invoice_id, tenant_id, status, currency, amount_due, amount_paid FROM invoices"
    " WHERE invoice_id = %s AND number IS NOT NULL FOR NO KEY UPDATE"
)
_SETTLEMENT = (
    "SELECT payment_id, settlements.invoice_id, provider, settlements.amount, settlements.settled_at"
    " FROM settlements JOIN payments USING (payment_id) WHERE payment_id = %s"
)
_SETTLE = (
    "INSERT INTO settlements (payment_id, invoice_id, amount, settled_at, recorded_at) VALUES (%s, %s, %s, %s, %s)"
)
# What was written off stays written off until all of it has come.
_PAY = """
UPDATE invoices SET amount_paid = amount_paid + %(amount)s,
    status = CASE WHEN %(is_paid)s THEN 'paid' ELSE status END,
    paid_at = CASE WHEN %(is_paid)s THEN %(settled_at)s::timestamptz END
WHERE invoice_id = %(invoice_id)s
"""
_OWE_AGAIN = """
UPDATE invoices SET amount_paid = amount_paid - %(amount)s, paid_at = NULL,
    status = CASE WHEN status = 'paid' THEN 'finalized' ELSE status END
WHERE invoice_id = %(invoice_id)s
"""
_MONEY_BACK = (
    "SELECT kind, cause, payment_id, provider, settlement_changes.amount, settlement_changes.currency, happened_at"
    " FROM settlement_changes JOIN payments USING (payment_id) WHERE kind = %s AND cause = %s"
)
_GIVE_BACK = (
    "INSERT INTO settlement_changes (kind, cause, payment_id, invoice_id, amount, currency, happened_at, recorded_at)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
)


class PostgresSettlements:
    """`Settlements` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def open_payable(self, invoice_id: str) -> AsyncIterator[PostgresPayable | None]:
        """Lock an invoice in a transaction; None if it is unknown."""
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(_LOCK, (invoice_id,))).fetchone()
            yield PostgresPayable(connection, Payable(**row)) if row else None


class PostgresPayable:
    """An `OpenPayable` within its transaction."""

    def __init__(self, connection: Connection, payable: Payable) -> None:
        self._connection, self._payable = connection, payable

    @property
    def payable(self) -> Payable:
        """The invoice as it stands."""
        return self._payable

    async def settlement(self, payment_id: str) -> Settlement | None:
        """Return what a payment settled before, whatever invoice that was of."""
        row = await self._one(_SETTLEMENT, payment_id)
        return Settlement(**row) if row else None

    async def settle(self, settlement: Settlement, *, is_paid: bool, now: datetime) -> None:
        """Put a payment onto the invoice and into the ledger."""
        of = self._payable
        must_hold(settlement.invoice_id == of.invoice_id, "a settlement of another invoice")
        row = (settlement.payment_id, of.invoice_id, settlement.amount, settlement.settled_at, now)
        await self._insert(_SETTLE, row, settlement.payment_id)
        await self._connection.execute(
            _PAY,
            {
                "amount": settlement.amount,
                "is_paid": is_paid,
                "settled_at": settlement.settled_at,
                "invoice_id": of.invoice_id,
            },
        )
        entries = postings.of_settlement(
            settlement.payment_id,
            of.tenant_id,
            of.currency,
            provider=settlement.provider,
            amount=settlement.amount,
            at=settlement.settled_at,
            written_off=of.status == "uncollectible",
        )
        await post(self._connection, entries, now)

    async def money_back(self, kind: str, cause: str) -> MoneyBack | None:
        """Return what was recorded of a refund or a dispute's step before."""
        row = await self._one(_MONEY_BACK, kind, cause)
        return MoneyBack(**row) if row else None

    async def give_back(self, change: MoneyBack, *, now: datetime) -> None:
        """Record it, and put it into the ledger."""
        of = self._payable
        row = (
            change.kind,
            change.cause,
            change.payment_id,
            of.invoice_id,
            change.amount,
            change.currency,
            change.happened_at,
            now,
        )
        await self._insert(_GIVE_BACK, row, change.payment_id)
        if change.kind == "returned":
            await self._owe_again(change, now)
            return
        await post(self._connection, _entries_of(change, of.tenant_id), now)

    async def _owe_again(self, change: MoneyBack, now: datetime) -> None:
        """Take a settlement back, wholly or in part; one that is due already is overdue with the next look."""
        of = self._payable
        settled = await self.settlement(change.payment_id)
        if settled is None or settled.invoice_id != of.invoice_id or change.amount > settled.amount:
            reason = f"{change.payment_id} has not settled so much of {of.invoice_id}"
            raise InvalidInputError([Fault("not_settled", reason, "payment_id")])
        await self._connection.execute(_OWE_AGAIN, {"amount": change.amount, "invoice_id": of.invoice_id})
        entries = postings.of_settlement_returned(
            change.cause,
            of.tenant_id,
            change.currency,
            amount=change.amount,
            at=change.happened_at,
            written_off=of.status == "uncollectible",
        )
        await post(self._connection, entries, now)

    async def _insert(self, statement: str, row: tuple[Any, ...], payment_id: str) -> None:
        try:
            async with self._connection.transaction():
                await self._connection.execute(statement.encode(), row)
        except ForeignKeyViolation:
            reason = f"no payment {payment_id[:80]!r}"
            raise InvalidInputError([Fault("unknown_payment", reason, "payment_id")]) from None

    async def _one(self, query: str, *arguments: Any) -> dict[str, Any] | None:
        return await (await self._connection.execute(query.encode(), arguments)).fetchone()


def _entries_of(change: MoneyBack, tenant_id: str) -> Entries:
    of = (change.cause, tenant_id, change.currency)
    provider, amount, at = change.provider, change.amount, change.happened_at
    match change.kind:
        case "refund":
            return postings.of_refund(*of, provider=provider, amount=amount, at=at)
        case "refund_failed":
            return postings.of_failed_refund(*of, provider=provider, amount=amount, at=at)
        case "dispute_opened":
            return postings.of_dispute_opened(*of, provider=provider, amount=amount, at=at)
        case "dispute_won":
            return postings.of_dispute_won(*of, provider=provider, amount=amount, at=at)
        case _:
            must_hold(change.kind == "dispute_lost", f"no such change: {change.kind!r}")
            return postings.of_dispute_lost(*of, amount=amount, at=at)
