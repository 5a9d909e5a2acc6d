"""Finalized invoices and what they were made from, in PostgreSQL: reading only, nothing is locked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.meters import Meter
from core.period import Period
from invoicing.adapters.stored_subscribed import read_subscribed
from invoicing.adapters.stored_tax import read_tax
from invoicing.domain.lines import Line
from invoicing.domain.stored_invoice import BilledShare, LineReference, StoredInvoice, StoredPlan
from invoicing.domain.subscribed import Subscribed
from runtime.postgres import Pool
from runtime.stored_meters import read_meters

_INVOICES = (
    "SELECT invoice_id, number, tenant_id, subscription_id, period_start, period_end, sequence, status, currency,"
    " subtotal, issued_at, snapshot, snapshot_sha256 FROM invoices WHERE number IS NOT NULL AND {} ORDER BY issued_at,"
    " sequence, number"
)
_BY_NAME = _INVOICES.format("(number = %(name)s OR invoice_id = %(name)s)")
_BY_ITEM = _INVOICES.format("invoice_id IN (SELECT invoice_id FROM invoice_lines WHERE item_key = %(name)s)")
_LINES = (
    "SELECT invoice_id, position, item_key, charge_id, kind, description, meter_id, dimensions, quantity, unit,"
    " unit_amount, exact_amount, amount, corrects_invoice, price_digest, evidence, period_start, period_end, settles,"
    " adjusts, subscription_id, tax_treatment, tax_amount, tax_origin FROM invoice_lines"
    " WHERE invoice_id = ANY(%s) ORDER BY invoice_id, position"
)
_SHARES = (
    "SELECT item_key, invoice_id, number, issued_at, quantity, exact_amount, amount FROM ("
    " SELECT CASE WHEN settles IS NULL THEN item_key || '|' || %(plan)s ELSE item_key END AS item_key,"
    " invoice_id, number, issued_at, sequence, quantity, exact_amount, amount"
    " FROM invoice_lines AS line JOIN invoices USING (invoice_id)"
    " WHERE coalesce(line.subscription_id, invoices.subscription_id) = %(subscription)s"
    " AND status NOT IN ('draft', 'void') AND NOT adjusts) AS shares"
    " WHERE item_key = ANY(%(item_keys)s) ORDER BY issued_at, sequence, number"
)
_PLAN = "SELECT plan_id, version, document, digest FROM plan_versions WHERE plan_id = %s AND version = %s"


class PostgresArchive:
    """`InvoiceArchive` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def invoices(self, reference: LineReference) -> list[StoredInvoice]:
        """Return the invoices with the line that is asked for, by issue."""
        query, name = (
            (_BY_ITEM, reference.item_key) if reference.item_key is not None else (_BY_NAME, reference.invoice)
        )
        found = await self._rows(query, {"name": name})
        lines: dict[str, list[tuple[int, Line]]] = {row["invoice_id"]: [] for row in found}
        for row in await self._rows(_LINES, (list(lines),)):
            lines[row.pop("invoice_id")].append((row.pop("position"), _line(row)))
        return [_invoice(row, lines[row["invoice_id"]]) for row in found]

    async def shares(self, subscription_id: str, item_keys: Sequence[str], plan: str) -> list[BilledShare]:
        """Return what was billed of these items, by issue."""
        asked = {"subscription": subscription_id, "item_keys": list(item_keys), "plan": plan}
        return [BilledShare(**row) for row in await self._rows(_SHARES, asked)]

    async def plan(self, plan_id: str, version: int) -> StoredPlan | None:
        """Return a plan version as it is stored now."""
        rows = await self._rows(_PLAN, (plan_id, version))
        return StoredPlan(**rows[0]) if rows else None

    async def subscribed(self, subscription_id: str) -> Subscribed | None:
        """Return the subscription with all that its invoices depend on."""
        async with self._pool.connection() as connection:
            found = await read_subscribed(connection, subscription_ids=[subscription_id])
        return found[0] if found else None

    async def meters(self) -> dict[str, Meter]:
        """Return all meters by id."""
        async with self._pool.connection() as connection:
            return await read_meters(connection)

    async def _rows(self, query: str, arguments: Any) -> list[dict[str, Any]]:
        async with self._pool.connection() as connection:
            return await (await connection.execute(query.encode(), arguments)).fetchall()


def _invoice(row: dict[str, Any], lines: list[tuple[int, Line]]) -> StoredInvoice:
    period = Period(row.pop("period_start"), row.pop("period_end"))
    return StoredInvoice(**row, period=period, lines=tuple(lines))


def _line(row: dict[str, Any]) -> Line:
    dimensions = tuple(sorted(row.pop("dimensions").items()))
    start, end = row.pop("period_start"), row.pop("period_end")
    period = None if start is None else Period(start, end)
    tax = read_tax(row)
    return Line(**row, **tax, dimensions=dimensions, per=row["evidence"].get("per", 1), period=period)
