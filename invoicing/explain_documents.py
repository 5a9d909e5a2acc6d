"""An explanation as a JSON document, and how anyone can check its digests without us. Amounts are decimal strings."""

from __future__ import annotations

from typing import Any

from core.event_time import format_event_time
from core.period import format_instant
from invoicing.domain.explanation import EventBehind, Explanation, Figures, hour_differences
from invoicing.domain.snapshot import money_text
from rating.domain.price import plain

RECIPE = (
    'price_digest: take the charge\'s document and the invoice\'s currency, {"charge": …, "currency": …}, write it as'
    " canonical JSON (RFC 8785), SHA-256, hexadecimal.",
    "plan digest: the plan version's whole document as canonical JSON (RFC 8785), SHA-256. With a contract the evidence"
    " names the digest of the plan with the contract's overrides laid over it.",
    "snapshot_sha256: the snapshot the PDF was made from as canonical JSON (RFC 8785), SHA-256.",
    "usage_digest: one line per meter, dimension values and hour of UTC of all the tenant's usage in the window, sorted"
    " by meter, dimension values, hour: meter, name=value pairs joined by U+001F, hour such as 2026-10-31T22, quantity"
    " as a plain decimal without trailing zeros, number of events; joined by tabs, each ended by a line feed; then one"
    " line per meter whose totals do not add up: meter, total, digest of its samples; then one per meter that is priced"
    " by quarter hours or single events: meter, slot or event, digest of its entries; all of it through SHA-256.",
    "samples_digest: one line per sample: name=value pairs joined by U+001F, microseconds since 1970 UTC, value, text,"
    " offset.index; joined by tabs; SHA-256 of each, sorted, those that end in zero bytes without these, concatenated,"
    " SHA-256 of that. A level from before the window is the first sample of its series, at 0, value, 0.0.",
    "amount: the steps give the exact amount; it is rounded half up once, to the currency's minor unit (ISO 4217).",
)


def explanation_document(found: Explanation) -> dict[str, Any]:
    """Return the explanation of one line."""
    invoice, line = found.invoice, found.line
    currency = invoice.currency
    return {
        "line": f"{invoice.number}/{found.position}",
        "invoice_id": invoice.invoice_id,
        "tenant_id": invoice.tenant_id,
        "subscription_id": invoice.subscription_id,
        "status": invoice.status,
        "issued_at": format_instant(invoice.issued_at),
        "period": str(invoice.period),
        "item_key": line.item_key,
        "description": line.description,
        "charge_id": line.charge_id,
        "kind": line.kind,
        "meter_id": line.meter_id,
        "dimensions": dict(line.dimensions),
        "unit": line.unit,
        "currency": currency,
        "plan": line.evidence.get("plan"),
        "price": line.evidence.get("charge"),
        "price_digest": line.price_digest,
        "usage_digest": line.evidence.get("usage_digest"),
        "query": line.evidence.get("query"),
        "engine_version": line.evidence.get("engine_version"),
        "steps": list(found.billed.steps),
        "tax": {
            **(line.treatment.as_document() if line.treatment else {}),
            "amount": money_text(line.tax_amount, currency),
            "origin": line.tax_origin,
        },
        "billed": _figures(found.billed, currency),
        "billed_before": _figures(found.billed_before, currency),
        "billed_in_all": _figures(found.billed_in_all, currency),
        "later_invoices": list(found.later_invoices),
        "derived": None
        if found.failure is not None
        else {
            "as_known_then": _derived(found.then, currency),
            "as_known_now": _derived(found.now, currency),
            "rollups_now": _derived(found.rollups, currency),
        },
        "checks": [{"code": check.code, "holds": check.holds, "said": check.said} for check in found.checks],
        "received_since": {
            "late": found.changes.late,
            "taken_out": found.changes.taken_out,
            "put_down": list(found.changes.put_down),
            "first": [event_document(behind) for behind in found.changes.first],
            "hours": [[hour, plain(then), plain(now)] for hour, then, now in hour_differences(found.then, found.now)],
        },
        "owed": money_text(found.owed, currency) if found.failure is None else None,
        "failure": found.failure,
        "outcome": found.outcome.name.lower(),
        "recipe": list(RECIPE),
    }


def event_document(behind: EventBehind) -> dict[str, Any]:
    """Return an event behind a line."""
    event, reading = behind.event, behind.reading
    taken = event.taken_out
    return {
        "state": behind.state.value,
        "source": event.source,
        "id": event.event_id,
        "type": event.event_type,
        "customer": event.customer,
        "time": format_event_time(event.time_us),
        "received_at": format_instant(event.received_at),
        "meter": reading.meter.meter_id,
        "dimensions": dict(reading.values),
        "quantity": reading.text or plain(reading.quantity),
        "place": f"{event.partition}/{event.offset}/{event.position}",
        "taken_out_by": f"{taken.kind} {taken.source} {taken.event_id}" if taken else None,
        "taken_out_at": format_instant(taken.received_at) if taken else None,
        "data": event.data,
    }


def _figures(figures: Figures, currency: str) -> dict[str, str]:
    return {
        "quantity": plain(figures.quantity),
        "exact_amount": plain(figures.exact_amount),
        "amount": money_text(figures.amount, currency),
    }


def _derived(figures: Figures, currency: str) -> dict[str, Any]:
    events = sum(count for _, _, count in figures.hours)
    return {
        **_figures(figures, currency),
        "usage_digest": figures.usage_digest or None,
        "events": events,
        "steps": list(figures.steps),
    }
