"""What subscriptions were billed before, from PostgreSQL; reading only, for many subscriptions at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from invoicing.adapters.stored_lines import LINE_COLUMNS, read_line
from invoicing.domain.lines import Billed, BilledLine, bill_up
from runtime.postgres import Connection, plain_jsonb

# Every line of the items, by issue. A line from before lines had periods settles its invoice's own, and its key does
# not name the plan version: it is that of the subscription's start.
_BILLED = f"""
WITH asked AS (
    SELECT * FROM jsonb_to_recordset(%(asked)s)
        AS given (subscription text, plan text, settling timestamptz[], item_keys text[])
), lines AS (
    SELECT number, issued_at, sequence, position, {LINE_COLUMNS}, line.invoice_id, subscription,
        coalesce(settles, invoices.period_start) AS settled,
        CASE WHEN settles IS NULL THEN item_key || '|' || plan ELSE item_key END AS present_key
    FROM invoice_lines AS line JOIN invoices USING (invoice_id)
    JOIN asked ON asked.subscription = coalesce(line.subscription_id, invoices.subscription_id)
    WHERE status NOT IN ('draft', 'void')
), items AS (
    SELECT DISTINCT ON (subscription, present_key) subscription, present_key, settled FROM lines
    ORDER BY subscription, present_key, issued_at DESC, sequence DESC, position DESC
)
SELECT lines.* FROM lines JOIN items USING (subscription, present_key) JOIN asked USING (subscription)
WHERE items.settled = ANY(settling) OR present_key = ANY(item_keys)
ORDER BY issued_at, sequence, invoice_id, position
"""  # noqa: S608 - constants only
_INVOICED = """
WITH asked AS (SELECT unnest(%(subscriptions)s::text[]) AS subscription)
SELECT subscription, settled, max(issued_at) AS issued_at FROM (
    SELECT subscription, period_start AS settled, issued_at FROM invoices
    JOIN asked ON subscription = subscription_id
    WHERE status NOT IN ('draft', 'void') AND origin NOT IN ('manual', 'one_time')
    UNION ALL
    SELECT subscription, settles, issued_at FROM invoice_lines AS line JOIN invoices USING (invoice_id)
    JOIN asked ON subscription = coalesce(line.subscription_id, invoices.subscription_id)
    WHERE status NOT IN ('draft', 'void') AND origin NOT IN ('manual', 'one_time')
        AND (settles < invoices.period_start OR line.subscription_id IS NOT NULL AND settles = invoices.period_start)
) AS settled GROUP BY subscription, settled
"""


@dataclass(frozen=True, slots=True)
class AskedItems:
    """Which items of a subscription are asked for.

    Those named, and those whose last line settles one of the billing periods that start at `settling`. `plan` is the
    plan version the subscription began with.
    """

    subscription_id: str
    plan: str
    settling: tuple[datetime, ...]
    item_keys: tuple[str, ...]


async def read_billed(connection: Connection, asked: Sequence[AskedItems]) -> dict[str, dict[str, Billed]]:
    """Return what was billed, summed over all invoices but drafts and void ones, by subscription and item key."""
    given = [
        {
            "subscription": one.subscription_id,
            "plan": one.plan,
            "settling": [start.isoformat() for start in one.settling],
            "item_keys": one.item_keys,
        }
        for one in asked
    ]
    lines: dict[str, list[BilledLine]] = {one.subscription_id: [] for one in asked}
    for row in await (await connection.execute(_BILLED.encode(), {"asked": plain_jsonb(given)})).fetchall():
        lines[row.pop("subscription")].append(_billed_line(row))
    return {subscription_id: bill_up(found) for subscription_id, found in lines.items()}


async def read_invoiced(
    connection: Connection, subscription_ids: Sequence[str]
) -> Mapping[str, dict[datetime, datetime]]:
    """Return by subscription, by the start of each billing period that was invoiced, when that was done last."""
    found: dict[str, dict[datetime, datetime]] = {one: {} for one in subscription_ids}
    rows = await (await connection.execute(_INVOICED, {"subscriptions": list(subscription_ids)})).fetchall()
    for row in rows:
        found[row["subscription"]][row["settled"]] = row["issued_at"]
    return found


def _billed_line(row: dict[str, Any]) -> BilledLine:
    row["item_key"] = row.pop("present_key")
    invoice_id, number = row.pop("invoice_id"), row.pop("number")
    for name in ("issued_at", "sequence", "position", "settled"):
        del row[name]
    return BilledLine(invoice_id, number, read_line(row))
