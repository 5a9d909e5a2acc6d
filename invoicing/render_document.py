"""Renders everything a document is handed out as, from its snapshot: the PDF with the e-invoice inside, CII, UBL.

Pure in what matters: no clock, no store, no network; the same snapshot and mark give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from invoicing.adapters.facturx import EInvoice, write_e_invoice
from invoicing.adapters.pdf import render_pdf
from invoicing.document_words import load_words
from invoicing.domain.document import Mark, open_snapshot
from invoicing.domain.en16931 import NoEInvoice, Wording, e_invoice_terms


@dataclass(frozen=True, slots=True)
class Rendered:
    """A document's files. `refusal` says why there is no e-invoice where there is none.

    `glyphs_missing` are the characters that no font has, which the PDF shows as empty boxes.
    """

    pdf: bytes
    e_invoice: EInvoice | None
    refusal: str = ""
    glyphs_missing: str = ""


def render_document(snapshot: Mapping[str, Any], mark: Mark = "") -> Rendered:
    """Return the files of a document. One that is marked asks for no money, so it has no e-invoice."""
    e_invoice = NoEInvoice("marked", f"the document is marked {mark}") if mark else make_e_invoice(snapshot)
    if isinstance(e_invoice, NoEInvoice):
        pdf = render_pdf(snapshot, mark)
        return Rendered(pdf.content, None, f"{e_invoice.code}: {e_invoice.reason}", pdf.glyphs_missing)
    pdf = render_pdf(snapshot, mark, e_invoice.cii)
    return Rendered(pdf.content, e_invoice, glyphs_missing=pdf.glyphs_missing)


def make_e_invoice(snapshot: Mapping[str, Any]) -> EInvoice | NoEInvoice:
    """Return the e-invoice of a snapshot, or why there is none."""
    shown = open_snapshot(snapshot)
    words = load_words(shown["language"])
    wording = Wording(
        tax_note=words.tax_note if shown["taxes"] else lambda _: words.text("note_unknown"),
        credit_explained=words.text("credit_explained"),
        coupons=words.text("group_Coupons"),
        untaxed=words.text("note_unknown"),
    )
    terms = e_invoice_terms(shown, wording)
    return terms if isinstance(terms, NoEInvoice) else write_e_invoice(terms)
