"""Reads Stripe's PaymentIntents and webhook events into our words. Pure; the one place that knows their JSON.

Source: Stripe API reference 2026-10-28, "PaymentIntents", "Events", page "PaymentIntent lifecycle".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from core.errors import InvalidInputError
from core.money import Money, from_minor, minor_units, to_minor
from payments.domain.payment import AUTHENTICATION_REQUIRED, Outcome, PaymentStatus, Refusal
from payments.ports import PaymentNews, StoredWebhook

_STATUS = {
    "requires_payment_method": PaymentStatus.FAILED,
    "requires_confirmation": PaymentStatus.PROCESSING,
    "requires_action": PaymentStatus.REQUIRES_ACTION,
    "requires_capture": PaymentStatus.PROCESSING,
    "processing": PaymentStatus.PROCESSING,
    "succeeded": PaymentStatus.SUCCEEDED,
    "canceled": PaymentStatus.CANCELED,
}
_EVENTS = {
    "payment_intent.succeeded": "succeeded",
    "payment_intent.payment_failed": "requires_payment_method",
    "payment_intent.processing": "processing",
    "payment_intent.requires_action": "requires_action",
    "payment_intent.canceled": "canceled",
}
_LATEST_INSTANT = 253_402_300_799
# Where Stripe counts in other units than ISO 4217 ("Supported currencies", zero-decimal currencies and special cases):
# ariary without their fifths, krónur and Ugandan shillings in hundredths that must be whole.
_STRIPES_PLACES = {"ISK": 2, "MGA": 0, "UGX": 2}


def to_stripe_amount(amount: Money) -> int | None:
    """Return an amount in the integer units Stripe counts in; None if it has a fraction of them."""
    more = _STRIPES_PLACES.get(amount.currency, minor_units(amount.currency)) - minor_units(amount.currency)
    units = to_minor(amount.amount, amount.currency)
    if more >= 0:
        return int(units * 10**more)
    whole, rest = divmod(units, 10**-more)
    return None if rest else whole


def from_stripe_amount(units: int, currency: str) -> Money:
    """Return Stripe's integer units as money; raises `InvalidInputError` (`unknown_currency`)."""
    places = _STRIPES_PLACES.get(currency)
    if places is None:
        return Money(from_minor(units, currency), currency)
    return Money(Decimal(units).scaleb(-places), currency)


def read_intent(intent: Mapping[str, Any], status: str | None = None) -> Outcome:
    """Return what a PaymentIntent says; `status` overrides its own. Raises `InvalidInputError` or `ValueError`.

    An amount is told where money is named: received if it succeeded, else what it asks for.
    """
    state = status or intent.get("status")
    if state not in _STATUS:
        raise ValueError(f"unknown status {state!r}")
    reference, currency = intent.get("id"), intent.get("currency")
    minor = intent.get("amount_received" if state == "succeeded" else "amount")
    if not isinstance(reference, str) or not isinstance(currency, str) or type(minor) is not int:
        raise ValueError("id, currency or amount is missing or no text and integer")
    code, reason = read_error(intent.get("last_payment_error")) if state != "succeeded" else (None, None)
    ours = _STATUS[state]
    if ours is PaymentStatus.FAILED and code == AUTHENTICATION_REQUIRED:
        ours = PaymentStatus.REQUIRES_ACTION
    if ours is PaymentStatus.CANCELED:
        code, reason = "canceled", str(intent.get("cancellation_reason") or "")
    currency = currency.upper()
    return Outcome(ours, reference, from_stripe_amount(minor, currency), code, reason)


def read_error(error: Any) -> tuple[str | None, str | None]:
    """Return code and sentence of a Stripe error object; the issuer's decline code stands in brackets."""
    if not isinstance(error, Mapping):
        return None, None
    code, message, decline = (error.get(name) for name in ("code", "message", "decline_code"))
    kind = str(code or error.get("type") or "unknown_error")
    reason = str(message or kind)
    return kind, f"{reason} ({decline})" if decline and decline != code else reason


class StripeWebhookReader:
    """Implements `payments.ports.WebhookReader` for Stripe's snapshot events."""

    def read(self, webhook: StoredWebhook) -> PaymentNews | Refusal | None:
        """Return the news, a refusal (`unreadable`, `malformed_event`), or None for types we do not act on."""
        try:
            event = msgspec.json.decode(webhook.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return Refusal("unreadable", "the signed body is not JSON")
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            return Refusal("malformed_event", "no event with a type")
        if event["type"] not in _EVENTS:
            return None
        data = event.get("data")
        intent = data.get("object") if isinstance(data, dict) else None
        if not isinstance(intent, dict):
            return Refusal("malformed_event", "data.object is missing")
        try:
            outcome = read_intent(intent, _EVENTS[event["type"]])
        except (InvalidInputError, ValueError) as error:
            return Refusal("malformed_event", f"data.object: {error}")
        metadata = intent.get("metadata")
        payment_id = metadata.get("payment_id") if isinstance(metadata, dict) else None
        return PaymentNews(
            payment_id=payment_id if isinstance(payment_id, str) and "\0" not in payment_id else None,
            outcome=outcome,
            happened_at=_instant(event.get("created")),
        )


def _instant(seconds: Any) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if type(seconds) is int and 0 < seconds <= _LATEST_INSTANT else None
