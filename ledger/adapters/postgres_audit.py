"""The ledger and the books that it follows, read in one snapshot of PostgreSQL."""

from __future__ import annotations

from core.errors import must_hold
from ledger.adapters.postgres import PostgresLedger, account_of
from ledger.ports import Audited, Figure
from runtime.postgres import Connection, Pool

# What is open of issued invoices. What was voided or written off is owed no more.
_RECEIVABLE = """
SELECT 'receivable' AS account, tenant_id, currency, sum(amount_due - amount_paid) AS amount FROM invoices
WHERE status IN ('finalized', 'overdue', 'paid') GROUP BY tenant_id, currency
"""
# Credit notes' amounts are negative.
_REVENUE = """
SELECT 'revenue' AS account, tenant_id, currency, -sum(subtotal) AS amount FROM invoices
WHERE status IN ('finalized', 'overdue', 'paid', 'uncollectible') GROUP BY tenant_id, currency
"""
_TAX = """
SELECT 'tax_payable:' || place AS account, tenant_id, currency, -sum(invoice_taxes.tax) AS amount
FROM invoice_taxes JOIN invoices USING (invoice_id)
WHERE status IN ('finalized', 'overdue', 'paid', 'uncollectible') AND invoice_taxes.tax <> 0
GROUP BY place, tenant_id, currency
"""
_CREDIT = """
SELECT 'customer_credit' AS account, tenant_id, currency, -sum(balance) AS amount
FROM credit_balances JOIN credit_grants USING (grant_id) GROUP BY tenant_id, currency
"""
# Credits that people said were paid for, and what they said was paid back of them.
_PREPAID = """
SELECT 'cash:prepaid' AS account, tenant_id, currency, sum(entry.amount) AS amount
FROM credit_entries AS entry JOIN credit_grants AS granted USING (grant_id)
WHERE granted.kind = 'paid' AND granted.reason NOT IN ('credit_note', 'overpayment')
AND entry.kind IN ('granted', 'voided', 'refunded') GROUP BY tenant_id, currency
"""
_SETTLED = """
SELECT 'cash:' || provider AS account, payments.tenant_id, payments.currency, sum(settlements.amount) AS amount
FROM settlements JOIN payments USING (payment_id) WHERE provider <> 'wire'
GROUP BY provider, payments.tenant_id, payments.currency
"""
_MONEY_BACK = """
SELECT 'cash:' || provider AS account, payments.tenant_id, changed.currency,
    sum(changed.amount * CASE WHEN kind IN ('refund', 'dispute_opened') THEN -1
        WHEN kind IN ('refund_failed', 'dispute_won') THEN 1 ELSE 0 END) AS amount
FROM settlement_changes AS changed JOIN payments USING (payment_id)
GROUP BY provider, payments.tenant_id, changed.currency
"""
_DISPUTED = """
SELECT 'disputed' AS account, payments.tenant_id, changed.currency,
    sum(changed.amount * CASE changed.kind WHEN 'dispute_opened' THEN 1 ELSE -1 END) AS amount
FROM settlement_changes AS changed JOIN payments USING (payment_id)
WHERE kind IN ('dispute_opened', 'dispute_won', 'dispute_lost') GROUP BY payments.tenant_id, changed.currency
"""
# What statements show: money that came in, and what took such money back.
_WIRED = """
SELECT 'cash:wire' AS account, NULL AS tenant_id, currency, sum(amount) AS amount
FROM bank_entries WHERE amount > 0 OR status = 'done' GROUP BY currency
"""
# It belongs to nothing yet, until it settles an invoice or becomes a credit.
_UNALLOCATED = """
SELECT 'unallocated' AS account, NULL AS tenant_id, currency, sum(amount) AS amount FROM (
    SELECT currency, -amount AS amount FROM bank_entries WHERE amount > 0 OR status = 'done'
    UNION ALL
    SELECT currency, settlements.amount FROM settlements JOIN payments USING (payment_id) WHERE provider = 'wire'
    UNION ALL
    SELECT currency, -amount FROM settlement_changes WHERE kind = 'returned'
    UNION ALL
    SELECT currency, entry.amount FROM credit_entries AS entry JOIN credit_grants AS granted USING (grant_id)
    WHERE granted.kind = 'paid' AND granted.reason = 'overpayment' AND entry.kind IN ('granted', 'voided', 'refunded')
    UNION ALL
    SELECT currency, fee * CASE bank_allocations.kind WHEN 'invoice' THEN -1 ELSE 1 END
    FROM bank_allocations JOIN bank_entries USING (entry_id)
) AS moved GROUP BY currency
"""
_BANK_FEES = """
SELECT 'bank_fees' AS account, tenant_id, currency,
    sum(fee * CASE kind WHEN 'invoice' THEN 1 ELSE -1 END) AS amount
FROM bank_allocations JOIN bank_entries USING (entry_id) WHERE fee <> 0 GROUP BY tenant_id, currency
"""
_FIGURES = (
    _RECEIVABLE,
    _REVENUE,
    _TAX,
    _CREDIT,
    _PREPAID,
    _SETTLED,
    _MONEY_BACK,
    _DISPUTED,
    _WIRED,
    _UNALLOCATED,
    _BANK_FEES,
)
_TURNOVER = "SELECT currency, sum(debit) AS debits, sum(credit) AS credits FROM ledger_postings GROUP BY currency"
_UNBALANCED = """
SELECT entry_id, kind, cause, currency, sum(debit) AS debits, sum(credit) AS credits
FROM ledger_entries LEFT JOIN ledger_postings USING (entry_id) GROUP BY entry_id, kind, cause, currency
HAVING count(debit) = 0 OR sum(debit) <> sum(credit) ORDER BY entry_id
"""
_COUNT = "SELECT count(*) AS entries FROM ledger_entries"


class PostgresAudit:
    """`Audit` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(self) -> Audited:
        """Read everything as of one instant."""
        async with self._pool.connection() as connection, connection.transaction():
            # Causes and their entries are committed together: one snapshot has both or neither.
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            (counted,) = await (await connection.execute(_COUNT)).fetchall()
            turnover = await (await connection.execute(_TURNOVER)).fetchall()
            unbalanced = await (await connection.execute(_UNBALANCED)).fetchall()
            return Audited(
                entries=counted["entries"],
                turnover={row["currency"]: (row["debits"], row["credits"]) for row in turnover},
                balances=await PostgresLedger(connection).balances(),
                figures=await _figures(connection),
                unbalanced=[
                    f"{row['kind']} {row['cause']} ({row['entry_id']}): debits {row['debits'] or 0:f}, credits"
                    f" {row['credits'] or 0:f} {row['currency'] or ''}"
                    for row in unbalanced
                ],
            )


async def _figures(connection: Connection) -> list[Figure]:
    found = []
    for query in _FIGURES:
        for row in await (await connection.execute(query.encode())).fetchall():
            must_hold(row["amount"] is not None, f"the books have no figure for {row['account']}")
            found.append(Figure(account_of(row["account"], row["tenant_id"]), row["currency"], row["amount"]))
    return found
