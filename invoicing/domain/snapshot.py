"""The snapshot: everything the document shows, as JSON. The PDF is made from this and nothing else.

Amounts and quantities are strings (RFC 8785 knows no decimals); formatting for people is the template's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from core.bank_account import transfer_details
from core.money import minor_units
from core.period import format_instant
from invoicing.domain.exchange import FrozenRate
from invoicing.domain.invoice import Buyer, DocumentKind, Draft
from invoicing.domain.lines import Line
from invoicing.domain.seller import Seller
from invoicing.domain.tax.taxed_lines import TaxGroup
from invoicing.domain.tax.treatment import rate_text
from invoicing.domain.usage_evidence import by_day
from rating.domain.price import plain

FORMAT = 3
# In the order in which the document shows them. What is taken off a charge stands beneath it.
_GROUPS = {
    "fixed": "Subscription",
    "licensed": "Subscription",
    "one_time": "One-time",
    "usage": "Usage",
    "minimum": "Commitment",
    "true_up": "Commitment",
    "coupon": "Coupons",
}
_ORDER = ("Subscription", "One-time", "Usage", "Commitment", "Coupons")
_BENEATH = frozenset({"discount", "maximum"})


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
    numbers_corrected: dict[str, str],
    time_zone: str = "UTC",
    credits_applied: Decimal = Decimal(0),
    kind: DocumentKind = DocumentKind.INVOICE,
    corrected_at: Mapping[str, datetime] | None = None,
    exchange: FrozenRate | None = None,
    amount_credited: Decimal = Decimal(0),
    reason: str = "",
) -> dict[str, Any]:
    """Return the snapshot. `plan` is id, name and version; `numbers_corrected` the printed number per invoice id.

    Dates are those of `time_zone`, whose days bound the billing period. The draft's tax must be determined; amounts
    have the books' sign. `corrected_at` has the dates of corrected invoices by id as far as they are known.
    """
    currency = draft.currency
    return {
        "format": FORMAT,
        "kind": kind.value,
        "language": buyer.language,
        "locale": "en_US",
        "time_zone": time_zone,
        "seller": seller.as_document(),
        "bill_to": _bill_to(buyer),
        "corrects": _corrects(numbers_corrected, corrected_at or {}),
        "reason": reason,
        "invoice": {
            "invoice_id": draft.invoice_id,
            "number": number,
            "sequence": draft.sequence,
            "corrects": sorted(set(numbers_corrected.values())),
            "currency": currency,
            "issued_at": format_instant(issued_at),
            "due_at": format_instant(due_at),
            "due_days": due_days,
            "period_start": format_instant(draft.period.start),
            "period_end": format_instant(draft.period.end),
        },
        # How to pay by transfer: reference and the seller's accounts in this currency; None where there is none.
        "transfer": transfer_details(number, draft.currency, seller.bank_accounts),
        "plan": plan,
        "groups": _groups(draft, numbers_corrected),
        **_sums(draft),
        "exchange_rate": exchange.as_document() if exchange else None,
        "credits_applied": money_text(credits_applied, currency),
        "amount_credited": money_text(amount_credited, currency),
        "amount_due": money_text(max(draft.total, Decimal(0)) - credits_applied - amount_credited, currency),
        "annex": _annex(draft, time_zone),
    }


def money_text(amount: Decimal, currency: str) -> str:
    """Write a rounded amount with all decimal places of its currency."""
    return f"{amount:.{minor_units(currency)}f}"


def _bill_to(buyer: Buyer) -> dict[str, Any]:
    return {
        "tenant_id": buyer.tenant_id,
        "name": buyer.name,
        "email": buyer.email,
        "address": [line for line in buyer.address.split("\n") if line],
        "country": buyer.country,
        "state": buyer.state,
        "postal_code": buyer.postal_code,
        "vat_number": buyer.vat_number,
        "is_business": buyer.is_business,
    }


def _corrects(numbers: Mapping[str, str], dates: Mapping[str, datetime]) -> list[dict[str, str | None]]:
    """Return the corrected invoices by number, with their dates as far as they are known."""
    by_number = {number: dates.get(invoice_id) for invoice_id, number in numbers.items()}
    return [
        {"number": number, "issued_at": format_instant(at) if at else None} for number, at in sorted(by_number.items())
    ]


def _sums(draft: Draft) -> dict[str, Any]:
    currency = draft.currency
    return {
        # Whether the lines' amounts hold their tax; `net` of a line never does.
        "tax_behavior": _behavior(draft),
        "subtotal": money_text(draft.subtotal, currency),
        "taxes": [_tax(group, currency) for group in draft.taxes],
        "tax": money_text(draft.tax, currency),
        "total": money_text(draft.total, currency),
    }


def _behavior(draft: Draft) -> str:
    """Return how the prices stand to tax; `mixed` where lines that correct were priced the other way."""
    found = {line.treatment.behavior.value for line in draft.lines if line.treatment is not None}
    return "mixed" if len(found) > 1 else next(iter(found), "exclusive")


def _tax(group: TaxGroup, currency: str) -> dict[str, str]:
    treatment = group.treatment
    return {
        "category": treatment.category.value,
        "rate": rate_text(treatment.rate),
        "place": treatment.place,
        "kind": treatment.kind,
        "base": money_text(group.base, currency),
        "tax": money_text(group.tax, currency),
        "reason_code": treatment.reason_code,
        "note_code": treatment.note_code,
        "note": treatment.note,
    }


def _taxed(lines: Sequence[Line], currency: str) -> dict[str, str | None]:
    """Return the tax fields of a row; a row of several lines that are taxed differently names no rate."""
    treatments = {line.treatment for line in lines}
    one = treatments.pop() if len(treatments) == 1 else None
    return {
        "net": money_text(sum((line.net for line in lines), Decimal(0)), currency),
        "tax_category": one.category.value if one else None,
        "tax_rate": rate_text(one.rate) if one else None,
        "tax_place": one.place if one else None,
        "tax_amount": money_text(sum((line.tax_amount for line in lines), Decimal(0)), currency),
    }


def _groups(draft: Draft, numbers_corrected: dict[str, str]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    place_of = {
        (line.plan_id, line.charge_id): _GROUPS[line.kind] for line in reversed(draft.lines) if line.kind in _GROUPS
    }
    for line in draft.lines:
        if line.kind == "coupon":
            continue
        name = _GROUPS.get(line.kind) or place_of.get((line.plan_id, line.charge_id), "Usage")
        groups.setdefault(name, []).append(_line(line, draft, numbers_corrected))
    if coupons := _coupons(draft, numbers_corrected):
        groups["Coupons"] = coupons
    return [{"name": name, "lines": groups[name]} for name in _ORDER if name in groups]


def _line(line: Line, draft: Draft, numbers_corrected: dict[str, str]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "description": line.description,
        "kind": line.kind,
        "meter_id": line.meter_id,
        "quantity": plain(line.quantity),
        "unit": line.unit,
        "unit_amount": None if line.unit_amount is None else plain(line.unit_amount),
        "per": line.per,
        "amount": money_text(line.amount, draft.currency),
        "corrects": numbers_corrected.get(line.corrects_invoice or ""),
        **_taxed([line], draft.currency),
    }
    if line.period is not None and line.period != draft.period:
        shown["period"] = {"start": format_instant(line.period.start), "end": format_instant(line.period.end)}
    if held := _held(line):
        shown["held"] = held
    return shown


def _held(line: Line) -> list[dict[str, str]]:
    """Return the stretches the line is for where they are not the whole of its period; none for what is due once."""
    if line.kind in ("one_time", "coupon") or line.evidence.get("settles") != line.evidence.get("period"):
        return []
    quantity = plain(line.quantity)
    parts = [
        one
        for one in line.evidence.get("held", ())
        if line.kind != "licensed" or one["quantity"] == quantity
        if line.kind == "usage" or one["state"] == "active"
    ]
    spans: list[list[str]] = []
    for start, _, end in (one["period"].partition("/") for one in parts):
        if spans and spans[-1][1] == start:
            spans[-1][1] = end
        else:
            spans.append([start, end])
    if len(spans) == 1 and "/".join(spans[0]) == line.evidence["period"]:
        return []
    return [{"start": start, "end": end} for start, end in spans]


def _coupons(draft: Draft, numbers_corrected: dict[str, str]) -> list[dict[str, Any]]:
    """Return one row per coupon and the time it is for: what it takes off each line is nobody's business to read."""
    found: dict[tuple[Any, ...], list[Line]] = {}
    for line in draft.lines:
        if line.kind == "coupon":
            taxed = line.treatment.group if line.treatment else None
            found.setdefault((line.evidence["coupon"]["redemption"], line.settles, taxed), []).append(line)
    rows = []
    for lines in found.values():
        corrected = next((line for line in lines if line.corrects_invoice), lines[0])
        row = _line(corrected, draft, numbers_corrected)
        total = sum((line.amount for line in lines), Decimal(0))
        row |= {
            "description": str(corrected.evidence["coupon"]["name"]),
            "meter_id": None,
            "quantity": "1",
            "amount": money_text(total, draft.currency),
            **_taxed(lines, draft.currency),
        }
        rows.append(row)
    return rows


def _annex(draft: Draft, time_zone: str) -> dict[str, Any]:
    """Usage by day for each meter and dimension values that a line bills; several parts of a charge share one table."""
    tables: dict[tuple[Any, ...], dict[str, Any]] = {}
    digests: dict[str, str] = {}
    zone = ZoneInfo(time_zone)
    for line in draft.lines:
        # What is given back by hand or taken back whole shows no usage: the invoice that billed it does.
        if line.meter_id is None or line.kind == "coupon" or "usage_digest" not in line.evidence:
            continue
        query = line.evidence.get("query", {}).get("window", "")
        digests[query] = line.evidence["usage_digest"]
        key = (line.meter_id, line.dimensions, query)
        if key in tables:
            continue
        measured = line.evidence.get("measured")
        if measured is not None:
            # Its days would not add up to it.
            tables[key] = _table(line, Decimal(measured["quantity"]), measured["events"], [])
            continue
        hours = line.evidence["hours"]
        days = by_day(((hour, Decimal(quantity), events) for hour, quantity, events in hours), zone)
        total = sum((quantity for _, quantity in days), Decimal(0))
        tables[key] = _table(line, total, sum(events for _, _, events in hours), days)
    return {"digest": _digest(digests), "tables": list(tables.values())}


def _digest(digests: dict[str, str]) -> str:
    """Return the digest of the usage; of several windows that of one line per window: windows, tab, digest."""
    if len(digests) <= 1:
        return next(iter(digests.values()), hashlib.sha256(b"").hexdigest())
    text = "".join(f"{window}\t{digests[window]}\n" for window in sorted(digests))
    return hashlib.sha256(text.encode()).hexdigest()


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
