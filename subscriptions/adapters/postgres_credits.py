"""The ledger of all tenants' credits in PostgreSQL: transactions over it, and adding it up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rating.adapters.postgres_credits import PostgresCreditLedger
from runtime.postgres import Pool
from subscriptions.coupon_ports import LedgerCheck
from subscriptions.domain.trial_balance import unbalanced

# Per account and currency; one query over both sides of every entry.
_ACCOUNTS = (
    "SELECT account, currency, sum(debit) - sum(credit) AS net"
    " FROM credit_postings JOIN credit_grants USING (grant_id) GROUP BY account, currency ORDER BY account, currency"
)
# What every tenant's credits must satisfy: one row per grant that does not.
_WRONG_GRANTS = """
WITH summed AS (
    SELECT grant_id, number, amount, balance_after,
           sum(amount) OVER so_far AS running, row_number() OVER so_far AS place
    FROM credit_entries WINDOW so_far AS (PARTITION BY grant_id ORDER BY number)
), grants AS (
    SELECT grant_id, sum(amount) AS total, count(*) AS entries, min(running) AS lowest,
           bool_and(running = balance_after AND place = number) AS is_chained,
           min(amount) FILTER (WHERE number = 1) AS granted
    FROM summed GROUP BY grant_id
)
SELECT grant_id, tenant_id, credit_grants.amount, granted, total, balance, lowest, is_chained,
       credit_balances.entries AS counted, grants.entries
FROM credit_grants FULL JOIN grants USING (grant_id) FULL JOIN credit_balances USING (grant_id)
WHERE (credit_grants.amount = granted AND total = balance AND credit_balances.entries = grants.entries
       AND lowest >= 0 AND is_chained) IS NOT TRUE
ORDER BY grant_id
"""
_COUNTS = "SELECT (SELECT count(*) FROM credit_grants) AS grants, (SELECT count(*) FROM credit_entries) AS entries"
_LIABILITY = (
    "SELECT currency, sum(balance) AS balance FROM credit_balances JOIN credit_grants USING (grant_id)"
    " GROUP BY currency"
)


class PostgresCreditBooks:
    """`CreditBooks` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresCreditLedger]:
        """Open the ledger in a transaction that commits unless the block raises."""
        async with self._pool.connection() as connection, connection.transaction():
            yield PostgresCreditLedger(connection)

    async def check(self) -> LedgerCheck:
        """Add the ledger up."""
        async with self._pool.connection() as connection, connection.transaction():
            # One snapshot for all of it: entries written meanwhile are in every figure or in none.
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            rows = await (await connection.execute(_ACCOUNTS.encode())).fetchall()
            wrong = await (await connection.execute(_WRONG_GRANTS.encode())).fetchall()
            owed = await (await connection.execute(_LIABILITY.encode())).fetchall()
            (counts,) = await (await connection.execute(_COUNTS.encode())).fetchall()
        accounts = {(row["account"], row["currency"]): row["net"] for row in rows}
        faults = [
            f"{row['grant_id']} of {row['tenant_id']}: granted {row['amount']}, entries add up to {row['total']}"
            f" (lowest {row['lowest']}), balance {row['balance']}, {row['entries']} of {row['counted']} entries"
            for row in wrong
        ]
        faults += unbalanced(accounts, {row["currency"]: row["balance"] for row in owed})
        return LedgerCheck(counts["grants"], counts["entries"], accounts, tuple(faults))
