"""What a story looks at: invoices, payments, dunning and the ledger as they lie in PostgreSQL."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from ledger.adapters.postgres import PostgresLedger
from rating.adapters.postgres_credits import PostgresCreditLedger
from runtime.postgres import Pool

D = Decimal
# Where a worker is, and when it looked last: no row of these says what is owed, paid or told to anybody.
_MARKS = frozenset({"dunning_cases", "provider_sweeps", "schema_migrations"})


class Readings:
    """Reads a story's database; changes nothing."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def invoice(self, number: str) -> tuple[str, str, str]:
        """Return an invoice's status, what was paid, and what is open."""
        (row,) = await self.rows(
            "SELECT status, amount_paid, amount_due - amount_paid AS open FROM invoices WHERE number = %s", number
        )
        return row["status"], f"{row['amount_paid']:.2f}", f"{row['open']:.2f}"

    async def payments(self, number: str) -> list[str]:
        """Return what was tried to be paid of an invoice, such as `stripe failed 59.50`."""
        rows = await self.rows(
            "SELECT provider, payments.status, payments.amount FROM payments JOIN invoices USING (invoice_id)"
            " WHERE number = %s ORDER BY attempt", number,
        )  # fmt: skip
        return [f"{row['provider']} {row['status']} {row['amount']:f}" for row in rows]

    async def payment_of(self, number: str) -> tuple[str, str]:
        """Return the newest payment of an invoice, and what the provider calls it."""
        rows = await self.rows(
            "SELECT payment_id, provider_reference FROM payments JOIN invoices USING (invoice_id)"
            " WHERE number = %s ORDER BY attempt DESC", number,
        )  # fmt: skip
        return rows[0]["payment_id"], rows[0]["provider_reference"]

    async def credit_left(self, name: str) -> str:
        """Return the balance of all credits of a tenant."""
        async with self.pool.connection() as connection:
            credits = await PostgresCreditLedger(connection).credits(name)
        return f"{sum((one.balance for one in credits), D(0)):.2f}"

    async def ledger(self, currency: str = "EUR") -> dict[str, str]:
        """Return the accounts of the ledger that are not empty in a currency, debits less credits."""
        async with self.pool.connection() as connection:
            balances = await PostgresLedger(connection).balances()
        found: dict[str, Decimal] = {}
        for (account, of), net in balances.items():
            if of == currency:
                found[account.name] = found.get(account.name, D(0)) + net
        return {name: f"{net:.2f}" for name, net in sorted(found.items()) if net}

    async def dunned(self, number: str) -> list[str]:
        """Return dunning's steps of an invoice with their days, such as `11-18 reminder-1`."""
        rows = await self.rows(
            "SELECT name, outcome, done_at FROM dunning_steps JOIN invoices USING (invoice_id) WHERE number = %s"
            " ORDER BY done_at, planned_at", number,
        )  # fmt: skip
        return [
            f"{row['done_at']:%m-%d} {row['name']}" + ("" if row["outcome"] == "done" else f" {row['outcome']}")
            for row in rows
        ]

    async def told(self, topic: str) -> list[str]:
        """Return what was announced on a topic, by its `status` or `event`."""
        rows = await self.rows(
            "SELECT convert_from(payload, 'UTF8')::jsonb AS said FROM outbox WHERE topic = %s ORDER BY outbox_id", topic
        )
        return [str(row["said"].get("status") or row["said"].get("event")) for row in rows]

    async def digests(self) -> dict[str, Any]:
        """Return a digest of every table but the marks of workers."""
        tables = await self.rows(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        parts = [
            f"SELECT '{name}' AS name, md5(coalesce(string_agg(one::text, '|' ORDER BY one::text), '')) AS digest"
            f" FROM {name} AS one"
            for name in sorted(row["relname"] for row in tables)
            if name not in _MARKS
        ]
        return {row["name"]: row["digest"] for row in await self.rows(" UNION ALL ".join(parts))}

    async def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        async with self.pool.connection() as connection:
            return await (await connection.execute(query.encode(), arguments or None)).fetchall()
