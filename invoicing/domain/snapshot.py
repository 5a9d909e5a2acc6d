"""The snapshot: everything the document shows, as JSON. The PDF is made from this and nothing else.

Amounts and quantities are strings (RFC 8785 knows no decimals); formatting for people is the template's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.money import minor_units
from core.period import format_instant
from invoicing.domain.invoice import Buyer, Draft
from invoicing.domain.lines import Line
from invoicing.domain.seller import Seller
from invoicing.domain.usage_evidence import UsageEvidence, by_day
from rating.domain.price import plain

FORMAT = 1
_GROUPS = {"fixed": "Subscription", "one_time": "One-time", "minimum": "Commitment", "usage": "Usage"}


def build_snapshot(
    draft: Draft,
    *,
    number: str,
    issued_at: datetime,
    due_at: datetime,
    due_days: int,
    seller: Seller,
    buyer: Buyer,
    plan: dict[str, Any],
    evidence: UsageEvidence,
    numbers_corrected: dict[str, str],
) -> dict[str, Any]:
    """Return the snapshot. `plan` is id, name and version; `numbers_corrected` the printed number per invoice id."""
    return {
        "format": FORMAT,
        "locale": "en_US",
        "seller": seller.as_document(),
        "bill_to": {
            "tenant_id": buyer.tenant_id,
            "name": buyer.name,
            "email": buyer.email,
            "address": [line for line in buyer.address.split("\n") if line],
            "country": buyer.country,
        },
        "invoice": {
            "invoice_id": draft.invoice_id,
            "number": number,
            "sequence": draft.sequence,
            "corrects": sorted(set(numbers_corrected.values())),
            "currency": draft.currency,
            "issued_at": format_instant(issued_at),
            "due_at": format_instant(due_at),
            "due_days": due_days,
            "period_start": format_instant(draft.period.start),
            "period_end": format_instant(draft.period.end),
        },
        "plan": plan,
        "groups": _groups(draft, numbers_corrected),
        "subtotal": money_text(draft.total, draft.currency),
        "tax": money_text(Decimal(0), draft.currency),
        "total": money_text(draft.total, draft.currency),
        "annex": _annex(draft.lines, evidence),
    }


def money_text(amount: Decimal, currency: str) -> str:
    """Write a rounded amount with all decimal places of its currency."""
    return f"{amount:.{minor_units(currency)}f}"


def _groups(draft: Draft, numbers_corrected: dict[str, str]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in draft.lines:
        groups.setdefault(_GROUPS[line.kind], []).append(_line(line, draft.currency, numbers_corrected))
    order = [name for name in ("Subscription", "One-time", "Usage", "Commitment") if name in groups]
    return [{"name": name, "lines": groups[name]} for name in order]


def _line(line: Line, currency: str, numbers_corrected: dict[str, str]) -> dict[str, Any]:
    return {
        "description": line.description,
        "meter_id": line.meter_id,
        "quantity": plain(line.quantity),
        "unit": line.unit,
        "unit_amount": None if line.unit_amount is None else plain(line.unit_amount),
        "per": line.per,
        "amount": money_text(line.amount, currency),
        "corrects": numbers_corrected.get(line.corrects_invoice or ""),
    }


def _annex(lines: Sequence[Line], evidence: UsageEvidence) -> dict[str, Any]:
    """Usage by day for each meter and dimension values that a line bills; several parts of a charge share one table."""
    tables: dict[tuple[str, Any], dict[str, Any]] = {}
    for line in lines:
        if line.meter_id is None or (line.meter_id, line.dimensions) in tables:
            continue
        hours = evidence.by_hour(line.meter_id, line.dimensions)
        measured = evidence.measured_total(line.meter_id, line.dimensions)
        if measured is not None:
            # Its days would not add up to it.
            tables[line.meter_id, line.dimensions] = _table(line, measured.quantity, measured.events, [])
            continue
        total, events = sum((quantity for _, quantity, _ in hours), Decimal(0)), sum(events for _, _, events in hours)
        tables[line.meter_id, line.dimensions] = _table(line, total, events, by_day(hours))
    return {"digest": evidence.digest, "tables": [tables[key] for key in tables]}


def _table(line: Line, total: Decimal, events: int, days: list[tuple[str, Decimal]]) -> dict[str, Any]:
    return {
        "meter_id": line.meter_id,
        "title": line.description.split(" — ")[0],
        "dimensions": [value for _, value in line.dimensions if value],
        "unit": line.unit,
        "total": plain(total),
        "events": str(events),
        "days": [[day, plain(quantity)] for day, quantity in days],
    }
