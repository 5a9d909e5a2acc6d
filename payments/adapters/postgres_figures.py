"""What waits at the payment desk, counted in PostgreSQL: only what is open, by the indexes that upkeep works with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from runtime.postgres import Pool

# An answer that has not come by then is not coming: the look-ups have begun.
_UNKNOWN_AFTER = timedelta(minutes=10)
_OPEN_PAYMENTS = """
SELECT provider, status, count(*) AS figure FROM payments
WHERE status IN ('pending', 'processing', 'requires_action') GROUP BY provider, status
"""
_UNKNOWN = """
SELECT provider, count(*) AS figure FROM (
    SELECT provider FROM payments WHERE status = 'pending' AND created_at <= %(before)s
    UNION ALL SELECT provider FROM refunds WHERE status = 'pending' AND created_at <= %(before)s) AS open
GROUP BY provider
"""
_OWED = """
SELECT count(*) AS figure FROM credit_note_refunds AS note WHERE amount - credited > (
    SELECT coalesce(sum(refunds.amount), 0) FROM credit_note_refund_parts AS part JOIN refunds USING (refund_id)
    WHERE part.credit_note_id = note.credit_note_id AND status NOT IN ('failed', 'canceled'))
"""
_DISPUTES = "SELECT count(*) AS figure FROM disputes WHERE status IN ('inquiry', 'opened')"
_ACCOUNTS = "SELECT stage, count(*) AS figure FROM dunning_accounts WHERE stage <> 'current' GROUP BY stage"
_RECEIPTS = """
SELECT currency, count(*) AS figure, sum(abs(amount) - allocated) AS amount FROM bank_entries WHERE status = 'open'
GROUP BY currency
"""


@dataclass(frozen=True, slots=True)
class DeskFigures:
    """Counts of what waits; amounts in the currency's major unit, for dashboards and for no sum."""

    open_payments: dict[tuple[str, str], int]
    unknown_outcomes: dict[str, int]
    owed_refunds: int
    open_disputes: int
    accounts: dict[str, int]
    receipts: dict[str, tuple[int, float]]


async def read_figures(pool: Pool, now: datetime) -> DeskFigures:
    """Return the figures as of now."""
    async with pool.connection() as connection:

        async def rows(query: str) -> list[dict[str, object]]:
            return await (await connection.execute(query.encode(), {"before": now - _UNKNOWN_AFTER})).fetchall()

        def count(row: dict[str, object]) -> int:
            return int(str(row["figure"]))

        return DeskFigures(
            {(str(row["provider"]), str(row["status"])): count(row) for row in await rows(_OPEN_PAYMENTS)},
            {str(row["provider"]): count(row) for row in await rows(_UNKNOWN)},
            count((await rows(_OWED))[0]),
            count((await rows(_DISPUTES))[0]),
            {str(row["stage"]): count(row) for row in await rows(_ACCOUNTS)},
            {str(row["currency"]): (count(row), float(str(row["amount"]))) for row in await rows(_RECEIPTS)},
        )
