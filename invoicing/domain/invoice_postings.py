"""What a finalized document moves in the ledger (`ledger.domain.postings`). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from invoicing.domain.invoice import DocumentKind, Invoice
from invoicing.domain.lines import Line
from ledger.domain import postings
from ledger.domain.postings import Entries

_ZERO = Decimal(0)


def postings_of(
    invoice: Invoice, *, applied: Decimal = _ZERO, returned: Decimal = _ZERO, written_off: Decimal = _ZERO
) -> Entries:
    """Return the entry of an invoice or a credit note.

    Of a credit note, `applied` is what it takes off open invoices, `written_off` how much of that off those given up,
    and `returned` what goes back to credits that they had drawn, all positive.
    """
    draft = invoice.draft
    taxes = taxes_by_place(draft.lines)
    of = (draft.invoice_id, invoice.tenant_id, draft.currency)
    if invoice.kind is DocumentKind.CREDIT_NOTE:
        return postings.of_credit_note(
            *of,
            subtotal=draft.subtotal,
            taxes=taxes,
            applied=applied,
            returned=returned,
            written_off=written_off,
            at=invoice.issued_at,
        )
    return postings.of_invoice(*of, subtotal=draft.subtotal, taxes=taxes, at=invoice.issued_at)


def taxes_by_place(lines: Iterable[Line]) -> dict[str, Decimal]:
    """Return the lines' tax shares by place; a line without a place has no tax."""
    taxes: dict[str, Decimal] = {}
    for line in lines:
        if line.treatment is not None and line.tax_amount:
            taxes[line.treatment.place] = taxes.get(line.treatment.place, _ZERO) + line.tax_amount
    return taxes
