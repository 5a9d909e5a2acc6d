"""What the lines of a document come to by rate and by place, once their tax is determined."""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import must_hold
from invoicing.domain.lines import Line
from invoicing.domain.tax.taxed_lines import LineTax, TaxGroup, group_taxes


def taxes_of(lines: Sequence[Line]) -> tuple[TaxGroup, ...]:
    """Return a document's tax by category, rate and place, highest rate first.

    Raises `BrokenInvariantError` for a line whose tax was not determined.
    """
    taxed = []
    for line in lines:
        must_hold(line.treatment is not None, f"the tax of {line.item_key} was not determined")
        if line.treatment is not None:
            taxed.append(LineTax(line.treatment, line.net, line.tax_amount))
    return group_taxes(taxed)
