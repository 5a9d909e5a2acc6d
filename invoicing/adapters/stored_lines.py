"""Invoice lines as rows: written once, read the same way by whoever needs them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from core.period import Period
from invoicing.adapters.stored_tax import TAX_COLUMNS, read_tax, tax_values
from invoicing.domain.invoice import Draft
from invoicing.domain.lines import Line
from runtime.postgres import Connection, plain_jsonb

_COLUMNS = (
    "item_key, charge_id, kind, description, meter_id, dimensions, quantity, unit, unit_amount, exact_amount, amount,"
    " corrects_invoice, price_digest, evidence, period_start, period_end, settles, adjusts, subscription_id, "
    + TAX_COLUMNS
)
# As they are read beside the columns of `invoices`, of which some have the same names: the lines are called `line`.
LINE_COLUMNS = ", ".join(f"line.{name.strip()}" for name in _COLUMNS.split(","))
_COPY = f"COPY invoice_lines (invoice_id, position, {_COLUMNS}) FROM STDIN"


async def write_lines(connection: Connection, drafts: Iterable[Draft]) -> None:
    """Write the lines of documents, each document's by position from 1."""
    async with connection.cursor() as cursor, cursor.copy(_COPY.encode()) as copy:
        for draft in drafts:
            for position, line in enumerate(draft.lines, 1):
                await copy.write_row(_row(draft.invoice_id, position, line))


def read_line(row: dict[str, Any]) -> Line:
    """Return the line of a row with the columns of a line and nothing else; takes the row apart."""
    tax = read_tax(row)
    dimensions = tuple(sorted(row.pop("dimensions").items()))
    start, end = row.pop("period_start"), row.pop("period_end")
    period = None if start is None else Period(start, end)
    return Line(**row, **tax, dimensions=dimensions, per=row["evidence"].get("per", 1), period=period)


def _row(invoice_id: str, position: int, line: Line) -> tuple[Any, ...]:
    return (
        invoice_id,
        position,
        line.item_key,
        line.charge_id,
        line.kind,
        line.description,
        line.meter_id,
        plain_jsonb(dict(line.dimensions)),
        line.quantity,
        line.unit,
        line.unit_amount,
        line.exact_amount,
        line.amount,
        line.corrects_invoice,
        line.price_digest,
        plain_jsonb(dict(line.evidence)),
        line.period.start if line.period else None,
        line.period.end if line.period else None,
        line.settles,
        line.adjusts,
        line.subscription_id,
        *tax_values(line),
    )
