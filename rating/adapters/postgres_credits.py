"""The ledger of credits in PostgreSQL, on the caller's connection and transaction.

Balances, numbers and the refusal to overdraw are the entries' trigger's (`book_credit_entry`), so they hold whoever
writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg

from core.errors import BrokenInvariantError, must_hold
from ledger.adapters.postgres import post
from rating.domain.credit import Credit, CreditEntry, CreditGrant, CreditKind, EntryKind, LedgerAccount, accounts_of
from rating.domain.credit_postings import postings_of
from runtime.postgres import Connection

_GRANT = (
    "grant_id, tenant_id, kind, amount, currency, priority, effective_at, expires_at, plans, meters, reason, granted_at"
)
_CREDITS = f"SELECT {_GRANT}, balance, voided_at FROM credit_grants JOIN credit_balances AS held USING (grant_id)"  # noqa: S608
_ENTRIES = (
    "SELECT entry.grant_id, tenant_id, number, entry.kind, entry.amount, currency, balance_after, debit_account,"
    " credit_account, reference, entry.reason, recorded_at"
    " FROM credit_entries AS entry JOIN credit_grants USING (grant_id)"
)
_ENTER = (
    "INSERT INTO credit_entries (grant_id, kind, amount, debit_account, credit_account, reference, reason, recorded_at)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING number, balance_after, recorded_at"
)


class PostgresCreditLedger:
    """A `CreditLedger` on the caller's connection and transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lock_credits(self, tenant_id: str) -> list[Credit]:
        """Return the tenant's credits that have a balance, by grant id; nobody else moves them meanwhile."""
        return await self.lock_credits_of_many([tenant_id])

    async def lock_credits_of_many(self, tenant_ids: Sequence[str]) -> list[Credit]:
        """Return the credits of tenants that have a balance, by grant id; nobody else moves them meanwhile."""
        # Always in the order of ids, so that two who lock several never wait for each other.
        query = _CREDITS + " WHERE tenant_id = ANY(%s) AND balance > 0 ORDER BY grant_id FOR NO KEY UPDATE OF held"
        return [_credit(row) for row in await self._rows(query, list(tenant_ids))]

    async def credits(self, tenant_id: str) -> list[Credit]:
        """Return all of a tenant's credits with what is left of them, in the draw order."""
        found = [_credit(row) for row in await self._rows(_CREDITS + " WHERE tenant_id = %s", tenant_id)]
        return sorted(found, key=lambda credit: credit.grant.draw_order)

    async def lock_credit(self, grant_id: str) -> Credit | None:
        """Return one credit, None if there is none; nobody else moves it meanwhile."""
        rows = await self._rows(_CREDITS + " WHERE grant_id = %s FOR NO KEY UPDATE OF held", grant_id)
        return _credit(rows[0]) if rows else None

    async def add_grant(self, grant: CreditGrant) -> bool:
        """Store a grant with its first entry unless there is one of its id; tells whether it was new."""
        added = await self._connection.execute(
            f"INSERT INTO credit_grants ({_GRANT})"  # noqa: S608
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (grant_id) DO NOTHING",
            (
                grant.grant_id,
                grant.tenant_id,
                grant.kind.value,
                grant.amount,
                grant.currency,
                grant.priority,
                grant.effective_at,
                grant.expires_at,
                sorted(grant.plans),
                sorted(grant.meters),
                grant.reason,
                grant.granted_at,
            ),
        )
        if added.rowcount == 0:
            return False
        await self.enter(grant, EntryKind.GRANTED, grant.amount, at=grant.granted_at, reason=grant.reason)
        return True

    async def enter(
        self,
        grant: CreditGrant,
        kind: EntryKind,
        amount: Decimal,
        *,
        at: datetime,
        reference: str = "",
        reason: str = "",
    ) -> CreditEntry:
        """Append an entry of a signed amount and return it as it was written.

        Written at `at`, or with the grant's entry before it if that is later.
        """
        debit, credit = accounts_of(kind, grant.kind)
        values = (grant.grant_id, kind.value, amount, debit.value, credit.value, reference, reason, at)
        try:
            rows = await self._rows(_ENTER, *values)
        except psycopg.IntegrityError as refused:
            # Callers look before they write, under a lock: what the store refuses all the same is a mistake of ours.
            reason_given = refused.diag.message_primary or str(refused)
            raise BrokenInvariantError(f"credit {grant.grant_id}, {kind.value} {amount}: {reason_given}") from refused
        must_hold(rows[0]["balance_after"] >= 0, f"credit {grant.grant_id} was overdrawn")
        entry = CreditEntry(
            grant_id=grant.grant_id,
            tenant_id=grant.tenant_id,
            kind=kind,
            amount=amount,
            currency=grant.currency,
            debit=debit,
            credit=credit,
            reference=reference,
            reason=reason,
            **rows[0],
        )
        await post(self._connection, postings_of(entry, grant), at)
        return entry

    async def entries_for(self, invoice_id: str) -> list[CreditEntry]:
        """Return what an invoice drew and gave back, in the order in which it was written."""
        return (await self.entries_for_many([invoice_id]))[invoice_id]

    async def entries_for_many(self, invoice_ids: Sequence[str]) -> dict[str, list[CreditEntry]]:
        """Return what each of these invoices drew and gave back, in the order in which it was written."""
        query = _ENTRIES + " WHERE reference = ANY(%s) AND entry.kind IN ('drawn', 'returned') ORDER BY entry_id"
        found: dict[str, list[CreditEntry]] = {one: [] for one in invoice_ids}
        for row in await self._rows(query, list(invoice_ids)):
            found[row["reference"]].append(_entry(row))
        return found

    async def entries_of(self, tenant_id: str, *, known_at: datetime | None = None) -> list[CreditEntry]:
        """Return a tenant's entries in the order in which they were written, without those later than `known_at`."""
        query = _ENTRIES + " WHERE tenant_id = %s AND recorded_at <= %s ORDER BY entry_id"
        return [_entry(row) for row in await self._rows(query, tenant_id, known_at or "infinity")]

    async def expired(self, at: datetime, limit: int) -> Sequence[str]:
        """Return the ids of up to `limit` grants that have expired by `at` and still have a balance, by id."""
        rows = await self._rows(
            "SELECT grant_id FROM credit_grants JOIN credit_balances USING (grant_id)"
            " WHERE expires_at <= %s AND balance > 0 ORDER BY grant_id LIMIT %s",
            at,
            limit,
        )
        return [row["grant_id"] for row in rows]

    async def _rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        # The texts are this file's own; only bound values vary.
        return await (await self._connection.execute(query.encode(), arguments)).fetchall()


def _credit(row: dict[str, Any]) -> Credit:
    balance, voided_at = row.pop("balance"), row.pop("voided_at")
    plans, meters, kind = frozenset(row.pop("plans")), frozenset(row.pop("meters")), CreditKind(row.pop("kind"))
    return Credit(CreditGrant(kind=kind, plans=plans, meters=meters, **row), balance, voided_at is not None)


def _entry(row: dict[str, Any]) -> CreditEntry:
    debit, credit = LedgerAccount(row.pop("debit_account")), LedgerAccount(row.pop("credit_account"))
    return CreditEntry(kind=EntryKind(row.pop("kind")), debit=debit, credit=credit, **row)
