"""How a line's tax lies in PostgreSQL, for every reader and writer of `invoice_lines`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from core.errors import must_hold
from invoicing.domain.invoice import Draft
from invoicing.domain.lines import Line
from invoicing.domain.tax.taxed_lines import Bucket, TaxedBefore
from invoicing.domain.tax.treatment import GroupKey, TaxBehavior, TaxCategory, read_treatment
from runtime.postgres import Connection, plain_jsonb

# The columns of a line's tax, in the order of `tax_values`.
TAX_COLUMNS = "tax_treatment, tax_amount, tax_origin"
_COPY_TAXES = (
    "COPY invoice_taxes (invoice_id, category, rate, place, kind, base, tax, reason_code, note_code, note) FROM STDIN"
)
# An invoice's own lines, and what was taken back of them by any document that counts.
_TAXED_BEFORE = (
    "SELECT coalesce(tax_origin, invoice_id) AS origin, tax_category AS category, tax_rate AS rate,"
    " tax_treatment ->> 'place' AS place, tax_treatment ->> 'behavior' AS behavior,"
    " sum(amount) AS amount, sum(tax_amount) AS tax"
    " FROM invoice_lines JOIN invoices USING (invoice_id)"
    " WHERE status NOT IN ('draft', 'void')"
    " AND ((invoice_id = ANY(%(invoices)s) AND tax_origin IS NULL) OR tax_origin = ANY(%(invoices)s))"
    " GROUP BY 1, 2, 3, 4, 5"
)


def read_tax(row: dict[str, Any]) -> dict[str, Any]:
    """Take the columns of a line's tax out of a row and return them as fields of a `Line`."""
    treatment = read_treatment(row.pop("tax_treatment"))
    return {"treatment": treatment, "tax_amount": row.pop("tax_amount"), "tax_origin": row.pop("tax_origin")}


def tax_values(line: Line) -> tuple[Any, ...]:
    """Return the values of a line's tax columns; its tax must be determined."""
    must_hold(line.treatment is not None, f"the tax of {line.item_key} was not determined")
    document = line.treatment.as_document() if line.treatment else {}
    return (plain_jsonb(document), line.tax_amount, line.tax_origin)


async def write_taxes(connection: Connection, drafts: Iterable[Draft]) -> None:
    """Write documents' tax by category, rate and place."""
    async with connection.cursor() as cursor, cursor.copy(_COPY_TAXES) as copy:
        for draft in drafts:
            for group in draft.taxes:
                row = (
                    draft.invoice_id,
                    group.treatment.category.value,
                    group.treatment.rate,
                    group.treatment.place,
                    group.treatment.kind,
                    group.base,
                    group.tax,
                    group.treatment.reason_code,
                    group.treatment.note_code,
                    group.treatment.note,
                )
                await copy.write_row(row)


async def read_taxed_before(connection: Connection, invoice_ids: Sequence[str]) -> Mapping[Bucket, TaxedBefore]:
    """Return what invoices and all that was taken back of them came to, by what is rounded together."""
    if not invoice_ids:
        return {}
    rows = await (await connection.execute(_TAXED_BEFORE.encode(), {"invoices": list(invoice_ids)})).fetchall()
    found = {}
    for row in rows:
        group = GroupKey(TaxCategory(row["category"]), Decimal(row["rate"]), row["place"])
        bucket = Bucket(row["origin"], group, TaxBehavior(row["behavior"]))
        found[bucket] = TaxedBefore(row["amount"], row["tax"])
    return found
