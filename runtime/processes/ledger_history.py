"""`meterbook ledger catch-up`: posts what was stored before there was a ledger; what is posted already stays as it is.

Invoices, settlements and credits' entries from then have all that their postings need. Voids, credit notes, refunds and
disputes are younger than the ledger. Entries are named by their causes, so running it twice, or beside workers that
post the same, is nothing.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import typer

from core.clock import SystemClock
from ledger.adapters.postgres import post
from ledger.domain import postings
from rating.adapters.postgres_credits import PostgresCreditLedger
from rating.domain.credit_postings import postings_of
from runtime.postgres import Connection, Pool, create_pool
from runtime.settings import Settings, load_settings

_INVOICES = """
SELECT invoice_id, currency, subtotal, issued_at,
    (SELECT coalesce(jsonb_object_agg(place, tax::text), '{}') FROM (
        SELECT place, sum(tax) AS tax FROM invoice_taxes WHERE invoice_taxes.invoice_id = invoices.invoice_id
        GROUP BY place HAVING sum(tax) <> 0) AS by_place) AS taxes
FROM invoices
WHERE tenant_id = %s AND kind = 'invoice' AND number IS NOT NULL
AND NOT EXISTS (SELECT FROM ledger_entries AS entry WHERE entry.kind = 'invoice' AND entry.cause = invoice_id)
ORDER BY issued_at, invoice_id
"""
_SETTLEMENTS = """
SELECT payment_id, provider, currency, settlements.amount, settlements.settled_at
FROM settlements JOIN payments USING (payment_id)
WHERE tenant_id = %s AND provider <> 'wire'
AND NOT EXISTS (SELECT FROM ledger_entries AS entry WHERE entry.kind = 'settlement' AND entry.cause = payment_id)
ORDER BY settlements.settled_at, payment_id
"""


def catch_up(as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False) -> None:
    """Post what was stored before there was a ledger; once is enough, twice is nothing."""
    posted = asyncio.run(_catch_up(load_settings(), SystemClock().now()))
    typer.echo(json.dumps({"posted": posted}) if as_json else f"{posted} entries posted")


async def _catch_up(settings: Settings, now: datetime) -> int:
    async with create_pool(settings, max_size=1) as pool:
        return await post_history(pool, now)


async def post_history(pool: Pool, now: datetime) -> int:
    """Post the history of every tenant, one transaction each; returns how many entries were new."""
    async with pool.connection() as connection:
        rows = await (await connection.execute("SELECT tenant_id FROM tenants ORDER BY tenant_id")).fetchall()
    posted = 0
    for row in rows:
        async with pool.connection() as connection, connection.transaction():
            posted += await _post_tenant(connection, row["tenant_id"], now)
    return posted


async def _post_tenant(connection: Connection, tenant_id: str, now: datetime) -> int:
    posted = 0
    for row in await (await connection.execute(_INVOICES, (tenant_id,))).fetchall():
        taxes = {place: Decimal(text) for place, text in row["taxes"].items()}
        of = (row["invoice_id"], tenant_id, row["currency"])
        entries = postings.of_invoice(*of, subtotal=row["subtotal"], taxes=taxes, at=row["issued_at"])
        posted += await post(connection, entries, now)
    for row in await (await connection.execute(_SETTLEMENTS, (tenant_id,))).fetchall():
        of = (row["payment_id"], tenant_id, row["currency"])
        provider, amount = row["provider"], row["amount"]
        entries = postings.of_settlement(*of, provider=provider, amount=amount, at=row["settled_at"])
        posted += await post(connection, entries, now)
    ledger = PostgresCreditLedger(connection)
    grants = {credit.grant.grant_id: credit.grant for credit in await ledger.credits(tenant_id)}
    for entry in await ledger.entries_of(tenant_id):
        posted += await post(connection, postings_of(entry, grants[entry.grant_id]), now)
    return posted
