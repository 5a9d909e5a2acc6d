"""How a previewed invoice looks at a terminal and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from core.period import format_instant
from invoicing.domain.snapshot import money_text
from invoicing.domain.tax.treatment import rate_text
from invoicing.preview_invoice import Preview, shown_period
from rating.domain.price import plain


def preview_document(preview: Preview) -> dict[str, Any]:
    """Return the preview as JSON; amounts and quantities are strings."""
    currency = preview.currency
    return {
        "subscription_id": preview.subscription_id,
        "period": preview.name,
        "period_start": format_instant(preview.period.start),
        "period_end": format_instant(preview.period.end),
        "currency": currency,
        "lines": [
            {
                "description": line.description,
                "kind": line.kind,
                "charge_id": line.charge_id,
                "meter_id": line.meter_id,
                "quantity": plain(line.quantity),
                "unit": line.unit,
                "amount": money_text(line.amount, currency),
                "tax_amount": money_text(line.tax_amount, currency),
                "tax_rate": rate_text(line.treatment.rate) if line.treatment else None,
                "tax_category": line.treatment.category.value if line.treatment else None,
                "period": str(line.period),
                "corrects_invoice": line.corrects_invoice,
                "steps": line.evidence.get("steps", []),
            }
            for line in preview.lines
        ],
        "subtotal": money_text(preview.subtotal, currency),
        "taxes": [
            {
                "category": group.treatment.category.value,
                "rate": rate_text(group.treatment.rate),
                "place": group.treatment.place,
                "base": money_text(group.base, currency),
                "tax": money_text(group.tax, currency),
                "note": group.treatment.note,
            }
            for group in preview.taxes
        ],
        "tax": money_text(preview.tax, currency),
        "total": money_text(preview.total, currency),
        "credits_applied": money_text(preview.credits_applied, currency),
        "amount_due": money_text(preview.amount_due, currency),
    }


def print_preview(preview: Preview, console: Console | None = None) -> None:
    """Print the lines as a table, and what would be due."""
    console = console or Console()
    currency = preview.currency
    table = Table(title=f"Next invoice of {preview.name} ({shown_period(preview)})", title_justify="left", box=None)
    table.add_column("Line", overflow="fold")
    table.add_column("Quantity", justify="right")
    table.add_column(f"Amount ({currency})", justify="right")
    for line in preview.lines:
        quantity = f"{plain(line.quantity)} {line.unit}".strip() if line.unit or line.kind == "licensed" else ""
        name = line.description
        if line.period is not None and line.period != preview.period:
            name += f" [{str(line.period).replace('T00:00:00Z', '')}]"
        if line.corrects_invoice:
            name += " (difference)"
        table.add_row(_as_text(name), quantity, money_text(line.amount, currency))
    table.add_section()
    for group in preview.taxes:
        if group.tax:
            said = (
                f"Tax {rate_text(group.treatment.rate)} % {group.treatment.place} of {money_text(group.base, currency)}"
            )
            table.add_row(said, "", money_text(group.tax, currency))
        elif group.treatment.note:
            table.add_row(_as_text(group.treatment.note), "", "")
    table.add_row("Total", "", money_text(preview.total, currency))
    if preview.credits_applied:
        table.add_row("Credit applied", "", money_text(-preview.credits_applied, currency))
    table.add_row("Due", "", money_text(preview.amount_due, currency), style="bold")
    console.print(table)
    if preview.total < 0:
        console.print("Less is owed than was invoiced: it would be given back by a credit note.")


def _as_text(name: str) -> str:
    """Return a text in which brackets mean nothing to the terminal's markup."""
    return name.replace("[", r"\[")
