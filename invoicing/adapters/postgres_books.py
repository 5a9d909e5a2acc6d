"""Tenants' accounts in PostgreSQL: one transaction with the tenant's row locked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from core.ids import derive_id
from core.messages import InvoiceFinalized, encode_message
from core.meters import Meter
from core.period import Period, format_instant
from core.topics import INVOICE_FINALIZED
from invoicing.adapters.postgres_issued import PostgresIssued
from invoicing.adapters.stored_lines import LINE_COLUMNS, insert_lines, read_line
from invoicing.adapters.stored_subscribed import read_subscribed
from invoicing.adapters.stored_tax import add_invoice_taxes, read_taxed_before
from invoicing.domain.invoice import Buyer, Invoice
from invoicing.domain.lines import Billed, BilledLine, bill_up
from invoicing.domain.snapshot import money_text
from invoicing.domain.subscribed import Subscribed
from invoicing.domain.tax.taxed_lines import Bucket, TaxedBefore
from ledger.adapters.postgres import post
from ledger.domain.entry import LedgerEntry
from rating.adapters.postgres import read_plan_documents
from rating.adapters.postgres_credits import PostgresCreditLedger
from rating.rate_timeline import PlanReference
from runtime.outbox import append_event
from runtime.postgres import Connection, Pool
from runtime.stored_meters import read_meters

_TENANT = (
    "SELECT tenant_id, name, email, address, country, currency, parked_reason, time_zone, billing_anchor_day,"
    " consolidated_invoices,"
    " state, postal_code, is_business, vat_number, vat_valid, vat_checked_at, tax_exempt, tax_exempt_code, language"
    " FROM tenants WHERE tenant_id = %s"
)
# Every line of the items, by issue. A line from before lines had periods settles its invoice's own, and its key does
# not name the plan version: it is that of the subscription's start.
_BILLED = (
    f"WITH lines AS (SELECT number, issued_at, sequence, position, {LINE_COLUMNS},"  # noqa: S608 - constants only
    " line.invoice_id, coalesce(settles, invoices.period_start) AS settled,"
    " CASE WHEN settles IS NULL THEN item_key || '|' || %(plan)s ELSE item_key END AS present_key"
    " FROM invoice_lines AS line JOIN invoices USING (invoice_id)"
    " WHERE coalesce(line.subscription_id, invoices.subscription_id) = %(subscription)s"
    " AND status NOT IN ('draft', 'void')"
    "), items AS ("
    " SELECT DISTINCT ON (present_key) present_key, settled FROM lines"
    " ORDER BY present_key, issued_at DESC, sequence DESC, position DESC"
    ")"
    " SELECT lines.* FROM lines JOIN items USING (present_key)"
    " WHERE items.settled = ANY(%(settling)s) OR present_key = ANY(%(item_keys)s)"
    " ORDER BY issued_at, sequence, invoice_id, position"
)
_INVOICED = (
    "SELECT settled, max(issued_at) AS issued_at FROM ("
    " SELECT period_start AS settled, issued_at FROM invoices"
    " WHERE subscription_id = %(subscription)s AND status NOT IN ('draft', 'void')"
    " AND origin NOT IN ('manual', 'one_time')"
    " UNION ALL"
    " SELECT settles, issued_at FROM invoice_lines AS line JOIN invoices USING (invoice_id)"
    " WHERE coalesce(line.subscription_id, invoices.subscription_id) = %(subscription)s"
    " AND status NOT IN ('draft', 'void') AND origin NOT IN ('manual', 'one_time')"
    " AND (settles < invoices.period_start OR line.subscription_id IS NOT NULL AND settles = invoices.period_start)"
    ") AS settled GROUP BY settled"
)
_INSERT_INVOICE = (
    "INSERT INTO invoices (invoice_id, tenant_id, subscription_id, period_start, period_end, sequence, status, number,"
    " currency, subtotal, tax, total, credits_applied, issued_at, due_at, paid_at, snapshot, snapshot_sha256,"
    " engine_version, exchange_rate, exchange_currency, exchange_date, exchange_tax, kind, origin, reason, replaces,"
    " asked_sha256)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,"
    " %s, %s)"
)
_TENANT_OF = "SELECT tenant_id FROM invoices WHERE number = %(name)s OR invoice_id = %(name)s LIMIT 1"


class PostgresBooks:
    """`Books` over a pool; an account is a row lock on the tenant."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def open_account(self, tenant_id: str) -> AsyncIterator[PostgresAccount | None]:
        """Lock a tenant's account in a transaction that commits unless the block raises; None for an unknown tenant."""
        async with self._pool.connection() as connection, connection.transaction():
            # NO KEY: rows of other tables that refer to the tenant may still be written meanwhile.
            yield await _open(connection, f"{_TENANT} FOR NO KEY UPDATE", tenant_id)

    @asynccontextmanager
    async def view_account(self, tenant_id: str) -> AsyncIterator[PostgresAccount | None]:
        """Open a tenant's account for reading, without a lock; whatever is written there is taken back."""
        async with self._pool.connection() as connection, connection.transaction(force_rollback=True):
            yield await _open(connection, _TENANT, tenant_id)

    async def tenant_of(self, reference: str) -> str | None:
        """Return whose an invoice is, by its number or id; None if there is none."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_TENANT_OF, {"name": reference})).fetchone()
        return row["tenant_id"] if row else None


async def _open(connection: Connection, query: str, tenant_id: str) -> PostgresAccount | None:
    row = await (await connection.execute(query.encode(), (tenant_id,))).fetchone()
    return PostgresAccount(connection, Buyer(**row)) if row else None


class PostgresAccount:
    """An `Account` within its transaction."""

    def __init__(self, connection: Connection, buyer: Buyer) -> None:
        self._connection, self._buyer = connection, buyer
        self._ledger = PostgresCreditLedger(connection)
        self._issued = PostgresIssued(connection, buyer.tenant_id)
        self._plans_at_start: dict[str, str] = {}

    @property
    def buyer(self) -> Buyer:
        """The tenant."""
        return self._buyer

    @property
    def ledger(self) -> PostgresCreditLedger:
        """The tenant's credits, moved in this transaction."""
        return self._ledger

    @property
    def issued(self) -> PostgresIssued:
        """The tenant's documents after they were issued, and its drafts."""
        return self._issued

    async def post(self, entries: Sequence[LedgerEntry], now: datetime) -> int:
        """Write down in the double-entry ledger what a cause moved."""
        return await post(self._connection, entries, now)

    async def subscriptions(self, before: datetime) -> list[Subscribed]:
        """Return the subscriptions that began before an instant, by start, ended ones too."""
        subscribed = await read_subscribed(self._connection, tenant_ids=[self._buyer.tenant_id])
        for one in subscribed:
            held = one.start.held
            reference = PlanReference(held.plan_id, held.plan_version, held.overrides)
            self._plans_at_start[one.subscription_id] = reference.text
        return [one for one in subscribed if one.start.started_at < before]

    async def meters(self) -> dict[str, Meter]:
        """Return all meters by id."""
        return await read_meters(self._connection)

    async def newest_version(self, plan_id: str) -> int | None:
        """Return the newest version of a plan, None if there is no such plan."""
        rows = await self._rows("SELECT max(version) AS newest FROM plan_versions WHERE plan_id = %s", (plan_id,))
        newest: int | None = rows[0]["newest"]
        return newest

    async def plan_documents(
        self, versions: Collection[tuple[str, int]]
    ) -> Mapping[tuple[str, int], Mapping[str, Any]]:
        """Return the stored documents of plan versions; unknown ones are absent."""
        return await read_plan_documents(self._connection, versions)

    async def billed(
        self, subscription_id: str, *, settling: Sequence[datetime], item_keys: Sequence[str]
    ) -> dict[str, Billed]:
        """Return what was billed, summed over all invoices, by item key."""
        asked = {
            "subscription": subscription_id,
            "plan": self._plans_at_start.get(subscription_id, ""),
            "settling": list(settling),
            "item_keys": list(item_keys),
        }
        rows = []
        for row in await self._rows(_BILLED, asked):
            row["item_key"] = row.pop("present_key")
            invoice_id, number = row.pop("invoice_id"), row.pop("number")
            for name in ("issued_at", "sequence", "position", "settled"):
                del row[name]
            rows.append(BilledLine(invoice_id, number, read_line(row)))
        return bill_up(rows)

    async def invoiced(self, subscription_id: str) -> dict[datetime, datetime]:
        """Return, by the start of each billing period that was invoiced, when that was done last."""
        rows = await self._rows(_INVOICED, {"subscription": subscription_id})
        return {row["settled"]: row["issued_at"] for row in rows}

    async def next_sequence(self, subscription_id: str, period: Period) -> int:
        """Return the sequence the period's next document gets; one that a void document has is used up."""
        return await self._issued.next_sequence(subscription_id, period)

    async def taxed_before(self, invoice_ids: Sequence[str]) -> Mapping[Bucket, TaxedBefore]:
        """Return what invoices and all that was taken back of them came to, by what is rounded together."""
        return await read_taxed_before(self._connection, invoice_ids)

    async def take_number(self, series: str) -> int:
        """Return the next number of a series; it is used up only if the transaction commits, so no gap can appear."""
        rows = await self._rows(
            "INSERT INTO invoice_series (series, next_number) VALUES (%s, 2)"
            " ON CONFLICT (series) DO UPDATE SET next_number = invoice_series.next_number + 1"
            " RETURNING next_number - 1 AS number",
            (series,),
        )
        return int(rows[0]["number"])

    async def add(self, invoice: Invoice) -> None:
        """Store a finalized invoice and announce it, in this transaction."""
        draft, frozen = invoice.draft, invoice.exchange
        await self._connection.execute(
            _INSERT_INVOICE,
            (
                draft.invoice_id,
                invoice.tenant_id,
                draft.subscription_id,
                draft.period.start,
                draft.period.end,
                draft.sequence,
                invoice.status,
                invoice.number,
                draft.currency,
                draft.subtotal,
                invoice.tax,
                invoice.total,
                invoice.credits_applied,
                invoice.issued_at,
                invoice.due_at,
                invoice.issued_at if invoice.status == "paid" else None,
                Jsonb(dict(invoice.snapshot)),
                invoice.snapshot_sha256,
                invoice.engine_version,
                *((frozen.rate, frozen.currency, frozen.published_on, frozen.tax) if frozen else (None,) * 4),
                invoice.kind.value,
                invoice.origin.value,
                invoice.reason,
                invoice.replaces,
                invoice.asked_sha256,
            ),
        )
        await insert_lines(self._connection, draft.invoice_id, draft.lines)
        await add_invoice_taxes(self._connection, draft.invoice_id, draft.lines)
        await append_event(
            self._connection,
            INVOICE_FINALIZED,
            key=invoice.tenant_id,
            event_id=derive_id("evt", INVOICE_FINALIZED.name, draft.invoice_id),
            payload=encode_message(_announcement(invoice)),
            now=invoice.issued_at,
        )

    async def park(self, reason: str, now: datetime) -> None:
        """Let nothing be invoiced any more until a person has looked."""
        await self._connection.execute(
            "UPDATE tenants SET parked_reason = %s, parked_at = %s WHERE tenant_id = %s",
            (reason, now, self._buyer.tenant_id),
        )

    async def _rows(self, query: str, arguments: Any) -> list[dict[str, Any]]:
        return await (await self._connection.execute(query.encode(), arguments)).fetchall()


def _announcement(invoice: Invoice) -> InvoiceFinalized:
    draft = invoice.draft
    return InvoiceFinalized(
        invoice_id=draft.invoice_id,
        number=invoice.number,
        tenant_id=invoice.tenant_id,
        currency=draft.currency,
        amount_due=money_text(invoice.amount_due, draft.currency),
        period_start=format_instant(draft.period.start),
        period_end=format_instant(draft.period.end),
        issued_at=format_instant(invoice.issued_at),
        due_at=format_instant(invoice.due_at),
        kind=invoice.kind.value,
    )
