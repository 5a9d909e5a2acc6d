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
from invoicing.adapters.stored_subscribed import read_subscribed
from invoicing.adapters.stored_tax import add_invoice_taxes, tax_values, read_taxed_before
from invoicing.domain.invoice import Buyer, Invoice
from invoicing.domain.lines import Billed, Line
from invoicing.domain.snapshot import money_text
from invoicing.domain.subscribed import Subscribed
from invoicing.domain.tax.taxed_lines import Bucket, TaxedBefore
from rating.adapters.postgres import read_plan_documents
from rating.adapters.postgres_credits import PostgresCreditLedger
from rating.rate_timeline import PlanReference
from runtime.outbox import append_event
from runtime.postgres import Connection, Pool
from runtime.stored_meters import read_meters

_TENANT = (
    "SELECT tenant_id, name, email, address, country, currency, parked_reason, time_zone, billing_anchor_day,"
    " state, postal_code, is_business, vat_number, vat_valid, vat_checked_at, tax_exempt, tax_exempt_code, language"
    " FROM tenants WHERE tenant_id = %s"
)
# One row per item: the line that billed it first, with the sums over all invoices. A line from before lines had periods
# settles its invoice's own, and its key does not name the plan version: it is that of the subscription's start.
_BILLED = (
    "WITH lines AS ("
    " SELECT CASE WHEN settles IS NULL THEN item_key || '|' || %(plan)s ELSE item_key END AS item_key, charge_id, kind,"
    " description, meter_id, dimensions, unit, unit_amount, price_digest, evidence, invoice_id, number, sequence,"
    " issued_at, quantity, exact_amount, amount, line.period_start, line.period_end, settles,"
    " coalesce(settles, invoices.period_start) AS settled"
    " FROM invoice_lines AS line JOIN invoices USING (invoice_id)"
    " WHERE subscription_id = %(subscription)s AND status NOT IN ('draft', 'void')"
    "), items AS ("
    " SELECT DISTINCT ON (item_key) item_key, charge_id, kind, description, meter_id, dimensions, unit, unit_amount,"
    " price_digest, evidence, invoice_id, number, period_start, period_end, settles,"
    " sum(quantity) OVER item AS quantity, sum(exact_amount) OVER item AS exact_amount,"
    " sum(amount) OVER item AS amount,"
    " last_value(settled) OVER (PARTITION BY item_key ORDER BY issued_at, sequence"
    " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS last_settled"
    " FROM lines WINDOW item AS (PARTITION BY item_key) ORDER BY item_key, issued_at, sequence"
    ")"
    " SELECT * FROM items WHERE last_settled = ANY(%(settling)s) OR item_key = ANY(%(item_keys)s)"
)
_INVOICED = (
    "SELECT settled, max(issued_at) AS issued_at FROM ("
    " SELECT period_start AS settled, issued_at FROM invoices"
    " WHERE subscription_id = %(subscription)s AND status NOT IN ('draft', 'void')"
    " UNION ALL"
    " SELECT settles, issued_at FROM invoice_lines JOIN invoices USING (invoice_id)"
    " WHERE subscription_id = %(subscription)s AND status NOT IN ('draft', 'void') AND settles < invoices.period_start"
    ") AS settled GROUP BY settled"
)
_INSERT_INVOICE = (
    "INSERT INTO invoices (invoice_id, tenant_id, subscription_id, period_start, period_end, sequence, status, number,"
    " currency, subtotal, tax, total, credits_applied, issued_at, due_at, paid_at, snapshot, snapshot_sha256,"
    " engine_version, exchange_rate, exchange_currency, exchange_date, exchange_tax)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)
_INSERT_LINE = (
    "INSERT INTO invoice_lines (invoice_id, position, item_key, charge_id, kind, description, meter_id, dimensions,"
    " quantity, unit, unit_amount, exact_amount, amount, corrects_invoice, price_digest, evidence, period_start,"
    " period_end, settles, tax_treatment, tax_amount, tax_origin)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)


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


async def _open(connection: Connection, query: str, tenant_id: str) -> PostgresAccount | None:
    row = await (await connection.execute(query.encode(), (tenant_id,))).fetchone()
    return PostgresAccount(connection, Buyer(**row)) if row else None


class PostgresAccount:
    """An `Account` within its transaction."""

    def __init__(self, connection: Connection, buyer: Buyer) -> None:
        self._connection, self._buyer = connection, buyer
        self._ledger = PostgresCreditLedger(connection)
        self._plans_at_start: dict[str, str] = {}

    @property
    def buyer(self) -> Buyer:
        """The tenant."""
        return self._buyer

    @property
    def ledger(self) -> PostgresCreditLedger:
        """The tenant's credits, moved in this transaction."""
        return self._ledger

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
        found = {}
        for row in await self._rows(_BILLED, asked):
            invoice_id, number, _ = row.pop("invoice_id"), row.pop("number"), row.pop("last_settled")
            start, end = row.pop("period_start"), row.pop("period_end")
            row["dimensions"] = tuple(sorted(row["dimensions"].items()))
            period = None if start is None else Period(start, end)
            line = Line(**row, per=row["evidence"].get("per", 1), period=period)
            found[line.item_key] = Billed(line, invoice_id, number)
        return found

    async def invoiced(self, subscription_id: str) -> dict[datetime, datetime]:
        """Return, by the start of each billing period that was invoiced, when that was done last."""
        rows = await self._rows(_INVOICED, {"subscription": subscription_id})
        return {row["settled"]: row["issued_at"] for row in rows}

    async def next_sequence(self, subscription_id: str, period: Period) -> int:
        """Return the sequence the period's next invoice gets."""
        rows = await self._rows(
            "SELECT coalesce(max(sequence), 0) + 1 AS next FROM invoices"
            " WHERE subscription_id = %s AND period_start = %s",
            (subscription_id, period.start),
        )
        return int(rows[0]["next"])

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
            ),
        )
        async with self._connection.cursor() as cursor:
            rows = [_line_row(draft.invoice_id, at, line) for at, line in enumerate(draft.lines, 1)]
            await cursor.executemany(_INSERT_LINE, rows)
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


def _line_row(invoice_id: str, position: int, line: Line) -> tuple[Any, ...]:
    return (
        invoice_id,
        position,
        line.item_key,
        line.charge_id,
        line.kind,
        line.description,
        line.meter_id,
        Jsonb(dict(line.dimensions)),
        line.quantity,
        line.unit,
        line.unit_amount,
        line.exact_amount,
        line.amount,
        line.corrects_invoice,
        line.price_digest,
        Jsonb(dict(line.evidence)),
        line.period.start if line.period else None,
        line.period.end if line.period else None,
        line.settles,
        *tax_values(line),
    )


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
    )
