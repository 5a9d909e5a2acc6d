"""What the API says about quotas. Owns the JSON of usage, entitlements, grants and reservations; no float in it."""

from __future__ import annotations

from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from typing import Any

from core.meters import Meter
from core.period import format_instant
from core.quantity import format_scaled, unscale
from quotas.check_entitlement import Standing
from quotas.domain.balance import Drawn
from quotas.domain.entitlement import Entitlement
from quotas.domain.grant import Grant
from quotas.domain.reading import Reading
from quotas.domain.reservation import Reservation
from quotas.domain.span import Span


def answer_usage(tenant: str, meter: Meter, span: Span, reading: Reading, limit: Entitlement | None) -> dict[str, Any]:
    """Return live usage; `limit`, `remaining` and `percent` are null without a limit of this span, `used` where the
    meter cannot be read by it.
    """
    used = None if reading.quantity is None else unscale(reading.quantity)
    bound = limit.limit if limit is not None and used is not None else None
    return {
        "tenant_id": tenant,
        "meter": meter.meter_id,
        "unit": meter.unit,
        "aggregation": meter.aggregation,
        "period": span.name,
        "window": answer_window(reading),
        "used": None if reading.quantity is None else format_scaled(reading.quantity),
        "limit": None if bound is None else _text(bound),
        "remaining": None if bound is None or used is None else _text(max(bound - used, Decimal(0))),
        "percent": None if bound is None or used is None else _percent(used, bound),
        "hard": limit.hard if limit is not None and bound is not None else None,
        "events": reading.events,
        "as_of": _instant(reading.as_of),
        "stale": reading.is_stale,
    }


def answer_window(reading: Reading) -> dict[str, str]:
    """Return the half-open window that a reading covers."""
    return {"start": format_instant(reading.window.start), "end": format_instant(reading.window.end)}


def answer_entitlement(tenant: str, entitlement: Entitlement, refusal: str | None) -> dict[str, Any]:
    """Return a boolean or static entitlement; `reason` is the code of why it may not be used."""
    access = {"has_access": refusal is None, "reason": refusal}
    return {**_head(tenant, entitlement), **access, "value": entitlement.value}


def answer_standing(
    tenant: str, standing: Standing, meter: Meter, span: Span, reserved: Decimal | None, refusal: str | None
) -> dict[str, Any]:
    """Return a metered entitlement; `balance` is what is left beside what is reserved (null: no limit).

    `reserved` is null while it cannot be known, and the answer stale then.
    """
    entitlement, balance = standing.entitlement, standing.balance
    limit, left = entitlement.limit, standing.left
    over = max(standing.used - limit, Decimal(0)) if limit is not None else Decimal(0)
    return {
        **_head(tenant, entitlement),
        "has_access": refusal is None,
        "reason": refusal,
        "meter": meter.meter_id,
        "unit": meter.unit,
        "period": span.name,
        "window": answer_window(standing.reading),
        "usage": _text(standing.used),
        "limit": None if limit is None else _text(limit),
        "hard": entitlement.hard,
        "balance": None if left is None else _text(max(left - (reserved or Decimal(0)), Decimal(0))),
        "overage": _text(over if balance is None else balance.overage),
        "reserved": None if reserved is None else _text(reserved),
        "sources": [] if balance is None else [_source(source) for source in balance.sources],
        "as_of": _instant(standing.reading.as_of),
        "stale": standing.reading.is_stale or reserved is None,
    }


def answer_grant(tenant: str, feature: str, grant: Grant) -> dict[str, Any]:
    """Return a grant."""
    return {
        "grant_id": grant.grant_id,
        "tenant_id": tenant,
        "feature": feature,
        "amount": _text(grant.amount),
        "priority": grant.priority,
        "effective_at": format_instant(grant.effective_at),
        "expires_at": _instant(grant.expires_at),
        "recurrence": grant.recurrence,
        "rollover_min": _text(grant.rollover_min),
        "rollover_max": _text(grant.rollover_max),
        "reason": grant.reason,
        "created_at": format_instant(grant.created_at),
    }


def answer_reservation(reservation: Reservation) -> dict[str, Any]:
    """Return a reservation; `event` is the identity that the usage event must have."""
    return {
        "reservation_id": reservation.reservation_id,
        "tenant_id": reservation.tenant_id,
        "meter": reservation.meter_id,
        "amount": _text(reservation.amount),
        "status": reservation.status,
        "event": {"source": reservation.source, "id": reservation.event_id},
        "created_at": format_instant(reservation.created_at),
        "expires_at": format_instant(reservation.expires_at),
    }


def _head(tenant: str, entitlement: Entitlement) -> dict[str, Any]:
    feature = entitlement.feature
    return {"tenant_id": tenant, "feature": feature.feature_id, "kind": feature.kind, "origin": entitlement.origin}


def _source(source: Drawn) -> dict[str, Any]:
    return {
        "source": source.source,
        "priority": source.priority,
        "amount": _text(source.amount),
        "gave": _text(source.gave),
        "left": _text(source.left),
        "expires_at": _instant(source.expires_at),
    }


def _percent(used: Decimal, limit: Decimal) -> str:
    if not limit:
        return "100.00" if used else "0.00"
    # Cut, not rounded: 100.00 is said only when the limit is reached.
    return f"{(used * 100 / limit).quantize(Decimal('0.01'), rounding=ROUND_DOWN):f}"


def _instant(instant: datetime | None) -> str | None:
    return None if instant is None else format_instant(instant)


def _text(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
