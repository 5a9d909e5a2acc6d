"""A line's tax worked out again from what is stored: its share by its rate, and the document's sums of its lines."""

from __future__ import annotations

from collections.abc import Iterator

from invoicing.domain.lines import Line
from invoicing.domain.snapshot import money_text
from invoicing.domain.stored_invoice import StoredInvoice
from invoicing.domain.tax.document_taxes import taxes_of
from invoicing.domain.tax.taxed_lines import TaxableLine, tax_lines
from invoicing.domain.tax.treatment import TaxTreatment, rate_text


def describe_tax(line: Line, currency: str) -> str:
    """Say how a line is taxed, in one sentence."""
    treatment, amount = line.treatment, money_text(line.tax_amount, currency)
    if treatment is None:
        return "its tax was not determined"
    where = f" in {treatment.place}" if treatment.place else ""
    if not treatment.rate:
        return f"no tax{where} (category {treatment.category.value}){': ' + treatment.note if treatment.note else ''}"
    base, within = money_text(line.net, currency), ", within the price" if line.tax_is_within else ""
    taken = f", of the tax of {line.tax_origin}" if line.tax_origin else ""
    return f"{rate_text(treatment.rate)} %{where} of {base} {currency}: {amount}{within}{taken}"


def tax_findings(invoice: StoredInvoice, line: Line) -> Iterator[tuple[str, bool, str]]:
    """Yield (code, whether it holds, sentence) of the line's tax share and of the document's sums."""
    currency = invoice.currency
    own: list[tuple[Line, TaxTreatment]] = [
        (one, one.treatment) for _, one in invoice.lines if one.tax_origin is None and one.treatment is not None
    ]
    again = tax_lines([TaxableLine(one.amount, treatment) for one, treatment in own], currency)
    for (one, _), taxed in zip(own, again.lines, strict=True):
        if one is line:
            holds = taxed.tax == line.tax_amount
            said = describe_tax(line, currency)
            other = f", which comes to {money_text(taxed.tax, currency)}"
            yield "tax_share", holds, said if holds else said + other
    printed = invoice.snapshot.get("taxes")
    if printed is not None:
        stored = [
            (
                group.treatment.category.value,
                rate_text(group.treatment.rate),
                group.treatment.place,
                money_text(group.base, currency),
                money_text(group.tax, currency),
            )
            for group in taxes_of([one for _, one in invoice.lines])
        ]
        shown = [(one["category"], one["rate"], one["place"], one["base"], one["tax"]) for one in printed]
        holds = stored == shown
        said = "the lines' tax adds up to that on the document, by rate and place"
        yield "taxes_add_up", holds, said if holds else "the lines' tax does not add up to that on the document"
