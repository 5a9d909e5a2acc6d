"""The bank desk in PostgreSQL: statements, entries, allocations, and what it reads of invoices and payments."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from psycopg.types.json import Jsonb

from core.bank_account import BankAccount
from core.errors import Fault, InvalidInputError
from ledger.adapters.postgres import post
from ledger.domain.entry import LedgerEntry
from payments.adapters.postgres_store import PostgresPaymentUnit
from payments.bank.domain.continuity import Span
from payments.bank.domain.match import OpenInvoice, Reason
from payments.bank.domain.reference import compact
from payments.bank.domain.statement import Statement, content_digest
from payments.bank.ports import AccountState, Allocation, BankEntry, Given, Payable, Source
from payments.domain.payment import Payment
from rating.adapters.postgres_credits import PostgresCreditLedger
from runtime.postgres import Connection, Pool

_ENTRY = (
    "entry_id, account_id, currency, booked_on, valued_on, amount, is_reversal, bank_reference, remittance,"
    " reference_texts, counterparty, counterparty_account, status, allocated, decided_by, note"
)
_TWINS = """
SELECT content_key, count(*) AS twins
FROM bank_statement_entries JOIN bank_statements USING (statement_id) JOIN bank_entries USING (entry_id)
WHERE bank_statements.account_id = %s AND format = %s AND number <> '' AND content_key = ANY(%s)
GROUP BY content_key
"""
_ADD_STATEMENT = """
INSERT INTO bank_statements (statement_id, account_id, currency, format, number, opened_on, opening, closed_on, closing,
                             content_digest, file_name, file_sha256, imported_at, imported_by)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_ADD_ENTRY = """
INSERT INTO bank_entries (entry_id, account_id, content_key, currency, booked_on, valued_on, amount, is_reversal,
                          bank_reference, remittance, reference_texts, counterparty, counterparty_account, imported_at,
                          status)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (entry_id) DO NOTHING
"""
_SHOW_ENTRY = "INSERT INTO bank_statement_entries (statement_id, position, entry_id) VALUES (%s, %s, %s)"
# Paid, and on its way: a payment that succeeded and has not reached its invoice yet lowers what is open too.
_OPEN = """
CASE WHEN i.status IN ('finalized', 'overdue', 'uncollectible') THEN
    greatest(0, i.amount_due - i.amount_paid - coalesce((
        SELECT sum(p.amount) FROM payments p WHERE p.invoice_id = i.invoice_id AND p.status = 'succeeded'
        AND NOT EXISTS (SELECT FROM settlements s WHERE s.payment_id = p.payment_id)), 0))
ELSE 0 END
"""
_INVOICE = f"""
SELECT i.invoice_id, i.number, i.tenant_id, t.name AS tenant_name, i.currency, {_OPEN} AS open_amount,
       (i.due_at AT TIME ZONE 'UTC')::date AS due_on, i.status
FROM invoices i JOIN tenants t USING (tenant_id)
WHERE i.number IS NOT NULL AND i.kind = 'invoice'
"""  # noqa: S608 - put together of constants
# Of invoices that are paid those of the last two years: one that is named may be paid twice.
_INVOICES = _INVOICE + (
    " AND i.currency = %s AND (i.status IN ('finalized', 'overdue', 'uncollectible')"
    " OR i.status = 'paid' AND i.paid_at > now() - interval '2 years') ORDER BY i.due_at, i.number"
)
_FIND_INVOICE = (
    "SELECT invoice_id FROM invoices WHERE (number = %s OR invoice_id = %s) AND kind = 'invoice' AND number IS NOT NULL"
)
_ATTEMPTS = """
SELECT coalesce(max(attempt), 0) AS attempts,
       max(payment_id) FILTER (WHERE provider <> 'wire' AND status IN ('pending', 'processing', 'requires_action'))
           AS charging
FROM payments WHERE invoice_id = %s
"""
_PAYERS = """
SELECT DISTINCT counterparty_account, tenant_id FROM bank_allocations JOIN bank_entries USING (entry_id)
WHERE kind = 'invoice' AND counterparty_account <> ''
"""
_GIVEN = """
SELECT a.*, i.number, coalesce((
    SELECT sum(b.amount) FROM bank_allocations b WHERE b.returned_id = a.allocation_id), 0) AS returned
FROM bank_allocations a LEFT JOIN payments p USING (payment_id) LEFT JOIN invoices i ON i.invoice_id = p.invoice_id
WHERE a.entry_id = %s ORDER BY a.sequence
"""
_RETURNABLE = f"""
SELECT {_ENTRY}, allocated - coalesce((
    SELECT sum(back.amount) FROM bank_allocations was JOIN bank_allocations back
        ON back.returned_id = was.allocation_id
    WHERE was.entry_id = bank_entries.entry_id), 0) AS returnable
FROM bank_entries WHERE amount > 0 AND allocated > 0 ORDER BY booked_on, entry_id
"""  # noqa: S608 - put together of constants
_ADD_ALLOCATION = """
INSERT INTO bank_allocations (allocation_id, entry_id, kind, tenant_id, amount, fee, payment_id, grant_id, returned_id,
                              reasons, confirmed_by, confirmed_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_ACCOUNTS = """
SELECT account_id, currency, sum(amount) AS moved, count(*) AS entries,
       count(*) FILTER (WHERE status = 'open') AS open_entries,
       coalesce(sum(abs(amount) - allocated) FILTER (WHERE status = 'open' AND amount > 0), 0) AS open_amount
FROM bank_entries GROUP BY account_id, currency
"""


class PostgresBankUnit:
    """One transaction; implements `payments.bank.ports.BankUnit`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.payments = PostgresPaymentUnit(connection)
        self.credits = PostgresCreditLedger(connection)

    async def post(self, entries: Sequence[LedgerEntry], now: datetime) -> None:
        """Post to the double-entry ledger, in the same transaction."""
        await post(self._connection, entries, now)

    async def lock_account(self, account_id: str) -> None:
        """Let nobody else import into the account until the end."""
        await self._rows("SELECT pg_advisory_xact_lock(hashtextextended('bank ' || %s, 0))", account_id)

    async def known_digest(self, statement_id: str) -> str | None:
        """Return what a statement of this id said, None if there is none."""
        rows = await self._rows("SELECT content_digest FROM bank_statements WHERE statement_id = %s", statement_id)
        return rows[0]["content_digest"] if rows else None

    async def spans(self, account_id: str) -> list[Span]:
        """Return from where to where the account's statements go, in the order of their import."""
        rows = await self._rows(
            "SELECT opened_on, opening, closed_on, closing, CASE WHEN number = '' THEN '' ELSE format END AS series"
            " FROM bank_statements WHERE account_id = %s ORDER BY imported_at, number, statement_id",
            account_id,
        )
        return [Span(**row) for row in rows]

    async def moved(self, account_id: str) -> Decimal:
        """Return what all entries of the account add up to."""
        rows = await self._rows(
            "SELECT coalesce(sum(amount), 0) AS moved FROM bank_entries WHERE account_id = %s", account_id
        )
        moved: Decimal = rows[0]["moved"]
        return moved

    async def twins_before(self, account_id: str, format: str, keys: Collection[str]) -> Counter[str]:
        """Return how often the keys stand in numbered statements of a format."""
        rows = await self._rows(_TWINS, account_id, format, list(set(keys)))
        return Counter({row["content_key"]: row["twins"] for row in rows})

    async def add_statement(
        self, statement_id: str, account: BankAccount, statement: Statement, source: Source, now: datetime
    ) -> None:
        """Write a statement down."""
        await self._connection.execute(
            _ADD_STATEMENT,
            (
                statement_id,
                account.account_id,
                statement.currency,
                statement.format,
                statement.number,
                statement.opened_on,
                statement.opening,
                statement.closed_on,
                statement.closing,
                content_digest(statement),
                source.file,
                source.sha256,
                now,
                source.by,
            ),
        )

    async def add_entries(
        self,
        statement_id: str,
        account_id: str,
        statement: Statement,
        ids: Sequence[str],
        keys: Sequence[str],
        now: datetime,
    ) -> list[BankEntry]:
        """Write the statement's entries down and return those that were new."""
        known = {
            row["entry_id"]
            for row in await self._rows("SELECT entry_id FROM bank_entries WHERE entry_id = ANY(%s)", list(ids))
        }
        rows = [
            (
                entry_id,
                account_id,
                key,
                statement.currency,
                entry.booked_on,
                entry.valued_on,
                entry.amount,
                entry.is_reversal,
                entry.bank_reference,
                entry.remittance,
                list(entry.references),
                entry.counterparty,
                entry.counterparty_account,
                now,
                "open" if entry.amount > 0 or entry.is_reversal else "noted",
            )
            for entry_id, key, entry in zip(ids, keys, statement.entries, strict=True)
        ]
        async with self._connection.cursor() as cursor:
            await cursor.executemany(_ADD_ENTRY, rows)
            shown = [(statement_id, position, entry_id) for position, entry_id in enumerate(ids, start=1)]
            await cursor.executemany(_SHOW_ENTRY, shown)
        new = [entry_id for entry_id in ids if entry_id not in known]
        query = f"SELECT {_ENTRY} FROM bank_entries WHERE entry_id = ANY(%s)"  # noqa: S608
        # In the statement's order, as whoever has it before them reads it.
        return sorted((_entry(row) for row in await self._rows(query, new)), key=lambda one: ids.index(one.entry_id))

    async def lock_entry(self, name: str) -> BankEntry | None:
        """Lock and return an entry by its id or the beginning of it; None if there is none."""
        query = f"SELECT {_ENTRY} FROM bank_entries WHERE starts_with(entry_id, %s) LIMIT 2 FOR UPDATE"  # noqa: S608
        rows = await self._rows(query, name)
        if len(rows) > 1:
            raise InvalidInputError([Fault("ambiguous_entry", f"several entries begin with {name[:40]!r}", "entry")])
        return _entry(rows[0]) if rows else None

    async def entries(self, *, statuses: Collection[str], account_id: str | None = None) -> list[BankEntry]:
        """Return entries of these statuses, oldest first, unlocked."""
        query = (
            f"SELECT {_ENTRY} FROM bank_entries WHERE status = ANY(%s)"  # noqa: S608
            " AND (%s::text IS NULL OR account_id = %s) ORDER BY booked_on, entry_id"
        )
        return [_entry(row) for row in await self._rows(query, list(statuses), account_id, account_id)]

    async def returnable(self) -> list[tuple[BankEntry, Decimal]]:
        """Return the entries that came in and were allocated, with what of them was not taken back, oldest first."""
        rows = await self._rows(_RETURNABLE)
        return [(_entry(row), left) for row in rows if (left := row.pop("returnable"))]

    async def invoices(self, currency: str) -> list[OpenInvoice]:
        """Return the invoices of a currency that a payment may be meant for, those that are paid among them."""
        return [_invoice(row) for row in await self._rows(_INVOICES, currency)]

    async def find_invoice(self, name: str) -> str | None:
        """Return the id of an invoice by its number or id."""
        rows = await self._rows(_FIND_INVOICE, name, name)
        return rows[0]["invoice_id"] if rows else None

    async def lock_invoice(self, invoice_id: str) -> Payable:
        """Lock and return an invoice."""
        await self._rows("SELECT 1 FROM invoices WHERE invoice_id = %s FOR NO KEY UPDATE", invoice_id)
        # Read only now: who held the lock before may have paid it.
        row = (await self._rows(_INVOICE + " AND i.invoice_id = %s", invoice_id))[0]
        attempts = (await self._rows(_ATTEMPTS, invoice_id))[0]
        return Payable(_invoice(row), row["status"], attempts["attempts"], attempts["charging"])

    async def payers(self) -> dict[str, frozenset[str]]:
        """Return the tenants that paid from an account before, by the account's compact name."""
        found: dict[str, set[str]] = {}
        for row in await self._rows(_PAYERS):
            found.setdefault(compact(row["counterparty_account"]), set()).add(row["tenant_id"])
        return {account: frozenset(tenants) for account, tenants in found.items()}

    async def has_tenant(self, tenant_id: str) -> bool:
        """Tell whether there is such a tenant."""
        return bool(await self._rows("SELECT 1 FROM tenants WHERE tenant_id = %s", tenant_id))

    async def given(self, entry_id: str) -> list[Given]:
        """Return what an entry was allocated to, in the order of confirming."""
        return [_given(row) for row in await self._rows(_GIVEN, entry_id)]

    async def add_allocation(self, allocation: Allocation) -> None:
        """Write an allocation down; the entry's sum follows by its trigger."""
        reasons = [{"code": each.code, "text": each.text, "points": each.points} for each in allocation.reasons]
        await self._connection.execute(
            _ADD_ALLOCATION,
            (
                allocation.allocation_id,
                allocation.entry_id,
                allocation.kind,
                allocation.tenant_id,
                allocation.amount,
                allocation.fee,
                allocation.payment_id,
                allocation.grant_id,
                allocation.returned_id,
                Jsonb(reasons),
                allocation.confirmed_by,
                allocation.confirmed_at,
            ),
        )

    async def decide(self, entry_id: str, status: str, by: str, now: datetime, note: str = "") -> None:
        """Set what is decided about an entry."""
        await self._connection.execute(
            "UPDATE bank_entries SET status = %s, decided_by = %s, decided_at = %s, note = %s WHERE entry_id = %s",
            (status, by, now, note, entry_id),
        )

    async def settled_of(self, payment_id: str) -> Payment | None:
        """Lock and return a payment whose settlement has reached its invoice; None while it has not."""
        if not await self._rows("SELECT 1 FROM settlements WHERE payment_id = %s", payment_id):
            return None
        return await self.payments.lock_payment(payment_id)

    async def accounts(self) -> list[AccountState]:
        """Return every account that has a statement."""
        sums = {row["account_id"]: row for row in await self._rows(_ACCOUNTS)}
        known = await self._rows("SELECT DISTINCT account_id, currency FROM bank_statements ORDER BY account_id")
        nothing = {"moved": Decimal(0), "entries": 0, "open_entries": 0, "open_amount": Decimal(0)}
        return [
            AccountState(
                account_id=row["account_id"],
                currency=row["currency"],
                spans=tuple(await self.spans(row["account_id"])),
                **{name: sums.get(row["account_id"], nothing)[name] for name in nothing},
            )
            for row in known
        ]

    async def _rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        # The texts are this file's own; only bound values vary.
        return await (await self._connection.execute(query.encode(), arguments)).fetchall()


class PostgresBankDesk:
    """`BankDesk` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresBankUnit]:
        """Open a transaction; an exception rolls it back."""
        async with self._pool.connection() as connection, connection.transaction():
            yield PostgresBankUnit(connection)


def _entry(row: dict[str, Any]) -> BankEntry:
    return BankEntry(**{**row, "reference_texts": tuple(row["reference_texts"])})


def _invoice(row: dict[str, Any]) -> OpenInvoice:
    return OpenInvoice(**{name: value for name, value in row.items() if name != "status"})


def _given(row: dict[str, Any]) -> Given:
    allocation = Allocation(
        allocation_id=row["allocation_id"],
        entry_id=row["entry_id"],
        kind=row["kind"],
        tenant_id=row["tenant_id"],
        amount=row["amount"],
        confirmed_by=row["confirmed_by"],
        confirmed_at=row["confirmed_at"].astimezone(UTC),
        fee=row["fee"],
        payment_id=row["payment_id"],
        grant_id=row["grant_id"],
        returned_id=row["returned_id"],
        reasons=tuple(Reason(**each) for each in row["reasons"]),
    )
    return Given(allocation, row["returned"], row["number"])
