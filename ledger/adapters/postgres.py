"""The ledger in PostgreSQL, on the caller's connection and transaction.

That debits equal credits, and that nothing is ever changed, the tables' triggers check as well, whoever writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.errors import BrokenInvariantError, must_hold
from ledger.domain.entry import Account, AccountKind, EntryKind, LedgerEntry, Posting
from runtime.postgres import Connection, plain_jsonb

# One statement for all entries of a cause. Only postings of entries that are new are written: of those that are there,
# `_check_same` looks at what they say.
_POST = """
WITH added AS (
    INSERT INTO ledger_entries (entry_id, kind, cause, occurred_at, recorded_at)
    SELECT entry_id, kind, cause, occurred_at, %(now)s
    FROM jsonb_to_recordset(%(entries)s) AS given (entry_id text, kind text, cause text, occurred_at timestamptz)
    ON CONFLICT DO NOTHING
    RETURNING entry_id
), posted AS (
    INSERT INTO ledger_postings (entry_id, position, account, tenant_id, currency, debit, credit)
    SELECT entry_id, position, account, tenant_id, currency, debit, credit
    FROM jsonb_to_recordset(%(postings)s)
        AS given (entry_id text, position integer, account text, tenant_id text, currency text, debit numeric,
                  credit numeric)
    JOIN added USING (entry_id)
)
SELECT entry_id FROM added
"""
_ENTRIES = """
SELECT entry_id, kind, cause, occurred_at, account, tenant_id, currency, debit, credit
FROM ledger_entries JOIN ledger_postings USING (entry_id)
"""
_OF_IDS = _ENTRIES + " WHERE entry_id = ANY(%s) ORDER BY sequence, position"
_LISTED = f"""
{_ENTRIES} WHERE entry_id IN (
    SELECT entry_id FROM ledger_entries AS entry
    WHERE EXISTS (
        SELECT FROM ledger_postings AS posting WHERE posting.entry_id = entry.entry_id
        AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
        AND (%(account)s::text IS NULL OR account = %(account)s)
    )
    ORDER BY sequence DESC LIMIT %(limit)s
)
ORDER BY sequence, position
"""  # noqa: S608 - put together of constants
_BALANCES = """
SELECT account, tenant_id, currency, sum(debit) - sum(credit) AS net FROM ledger_postings
WHERE %(tenant)s::text IS NULL OR tenant_id = %(tenant)s
GROUP BY account, tenant_id, currency ORDER BY tenant_id, account, currency
"""


async def post(connection: Connection, entries: Sequence[LedgerEntry], now: datetime) -> int:
    """Write entries down in the caller's transaction and return how many were new.

    What was posted before is not posted again. Raises `BrokenInvariantError` if an entry of the same cause is there and
    says something else.
    """
    if not entries:
        return 0
    ids = [entry.entry_id for entry in entries]
    must_hold(len(set(ids)) == len(ids), "one cause is posted twice in one go")
    rows = [
        {"entry_id": entry_id, "kind": one.kind.value, "cause": one.cause, "occurred_at": one.occurred_at.isoformat()}
        for entry_id, one in zip(ids, entries, strict=True)
    ]
    postings = [
        {
            "entry_id": entry_id,
            "position": place,
            "account": one.account.name,
            "tenant_id": one.account.tenant_id,
            "currency": one.currency,
            "debit": f"{one.debit:f}",
            "credit": f"{one.credit:f}",
        }
        for entry_id, entry in zip(ids, entries, strict=True)
        for place, one in enumerate(entry.postings, 1)
    ]
    # As JSON, not as an array for each column: those the driver writes value by value, in Python.
    given = {"now": now, "entries": plain_jsonb(rows), "postings": plain_jsonb(postings)}
    added = {row["entry_id"] for row in await (await connection.execute(_POST.encode(), given)).fetchall()}
    if known := [entry for entry in entries if entry.entry_id not in added]:
        await _check_same(connection, known)
    return len(added)


class PostgresLedger:
    """`Ledger` on the caller's connection and transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def post(self, entries: Sequence[LedgerEntry], now: datetime) -> int:
        """Write entries down and return how many were new."""
        return await post(self._connection, entries, now)

    async def entries(
        self, *, tenant_id: str | None = None, account: str | None = None, limit: int | None = None
    ) -> list[LedgerEntry]:
        """Return whole entries that touch a tenant and an account, the newest `limit`, oldest first."""
        asked = {"tenant": tenant_id, "account": account, "limit": limit}
        return _read(await (await self._connection.execute(_LISTED.encode(), asked)).fetchall())

    async def balances(self, *, tenant_id: str | None = None) -> dict[tuple[Account, str], Decimal]:
        """Return every account's debits less credits by account and currency."""
        rows = await (await self._connection.execute(_BALANCES.encode(), {"tenant": tenant_id})).fetchall()
        return {(account_of(row["account"], row["tenant_id"]), row["currency"]): row["net"] for row in rows}


def account_of(name: str, tenant_id: str | None) -> Account:
    """Return the account of a stored name, `cash:stripe`."""
    kind, _, part = name.partition(":")
    return Account(AccountKind(kind), tenant_id, part)


async def _check_same(connection: Connection, known: Sequence[LedgerEntry]) -> None:
    """Compare with what is stored; another transaction's entry is seen, for the conflict waited for its commit."""
    rows = await (await connection.execute(_OF_IDS.encode(), ([entry.entry_id for entry in known],))).fetchall()
    stored = {entry.entry_id: entry for entry in _read(rows)}
    for entry in known:
        before = stored.get(entry.entry_id)
        if before is None or before.content != entry.content:
            was, now = _words(before), _words(entry)
            raise BrokenInvariantError(f"{entry.kind} {entry.cause} was posted with other amounts: {was}; now {now}")


def _words(entry: LedgerEntry | None) -> str:
    if entry is None:
        return "nothing"
    return ", ".join(
        f"{one.account.name} {one.net:+f} {one.currency}"
        for one in sorted(entry.postings, key=lambda one: one.account.name)
    )


def _read(rows: Sequence[dict[str, Any]]) -> list[LedgerEntry]:
    found: dict[str, tuple[dict[str, Any], list[Posting]]] = {}
    for row in rows:
        account = account_of(row["account"], row["tenant_id"])
        posting = Posting(account, row["currency"], debit=row["debit"], credit=row["credit"])
        found.setdefault(row["entry_id"], (row, []))[1].append(posting)
    return [
        LedgerEntry(EntryKind(row["kind"]), row["cause"], row["occurred_at"], tuple(postings))
        for row, postings in found.values()
    ]
