"""Reads PayPal's orders, captures, refunds and events into our words. Pure; the one place that knows their JSON.

Source: PayPal's OpenAPI files "Orders" 2.13, "Payments" 2.5 and "Webhooks Management" 1.11, page "Webhook event names".
What an order says of its money is worth as much as where it was said: a look-up counts like a signed webhook, the
answer to our own call does not (`payments.domain.payment`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from core.errors import InvalidInputError
from core.money import Money
from payments.adapters.paypal_money import from_paypal_amount
from payments.domain.dispute import DisputeStatus
from payments.domain.payment import AUTHENTICATION_ABANDONED, Outcome, PaymentStatus, Refusal
from payments.domain.refund import RefundOutcome, RefundStatus
from payments.ports import DisputeNews, News, PaymentNews, RefundNews, StoredWebhook

# The payer must still approve; PAYER_ACTION_REQUIRED is what an order created with a payment source begins with.
_WAITS_FOR_PAYER = frozenset({"CREATED", "SAVED", "PAYER_ACTION_REQUIRED"})
_LINKS_FOR_PAYER = ("approve", "payer-action")
_CAPTURE_FAILURES = {"DECLINED": "capture_declined", "FAILED": "capture_failed"}
_CAPTURED = frozenset({"COMPLETED", "REFUNDED", "PARTIALLY_REFUNDED"})
_REFUNDS = {
    "PENDING": RefundStatus.PROCESSING,
    "COMPLETED": RefundStatus.SUCCEEDED,
    "FAILED": RefundStatus.FAILED,
    "CANCELLED": RefundStatus.CANCELED,
}


@dataclass(frozen=True, slots=True)
class PayPalCapture:
    """A capture of an order: PayPal's id, its status, the amount, and why it is pending or declined."""

    capture_id: str
    status: str
    amount: Money
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class PayPalRefund:
    """A refund of a capture; `custom_id` is our refund's id, None if somebody refunded by hand."""

    refund_id: str
    status: str
    amount: Money
    custom_id: str | None
    created_at: datetime | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class PayPalOrder:
    """An order with one purchase unit. `custom_id` is our payment's id, `approve_url` where the payer approves."""

    order_id: str
    status: str
    amount: Money | None
    custom_id: str | None
    approve_url: str | None
    created_at: datetime | None
    captures: tuple[PayPalCapture, ...] = ()
    refunds: tuple[PayPalRefund, ...] = ()


def read_order(order: Mapping[str, Any]) -> PayPalOrder:
    """Return an order; raises `ValueError` or `InvalidInputError` for what cannot be one of ours."""
    order_id, status = order.get("id"), order.get("status")
    if not isinstance(order_id, str) or not isinstance(status, str):
        raise ValueError("id or status is missing or no text")
    units = order.get("purchase_units") or []
    if not isinstance(units, list) or len(units) > 1 or not all(isinstance(unit, Mapping) for unit in units):
        raise ValueError("expected one purchase unit")
    unit: Mapping[str, Any] = units[0] if units else {}
    payments = unit.get("payments") or {}
    captures = tuple(read_capture(found) for found in _objects(payments, "captures"))
    return PayPalOrder(
        order_id=order_id,
        status=status,
        amount=from_paypal_amount(unit["amount"]) if "amount" in unit else None,
        custom_id=_text(unit.get("custom_id")),
        approve_url=_link(order, _LINKS_FOR_PAYER),
        created_at=_instant(order.get("create_time")),
        captures=captures,
        refunds=tuple(read_refund(found) for found in _objects(payments, "refunds")),
    )


def read_capture(capture: Mapping[str, Any]) -> PayPalCapture:
    """Return a capture; raises `ValueError` or `InvalidInputError`."""
    capture_id, status = capture.get("id"), capture.get("status")
    if not isinstance(capture_id, str) or not isinstance(status, str):
        raise ValueError("a capture's id or status is missing or no text")
    details = capture.get("status_details")
    reason = _text(details.get("reason")) if isinstance(details, Mapping) else None
    return PayPalCapture(capture_id, status, from_paypal_amount(capture.get("amount")), reason)


def read_refund(refund: Mapping[str, Any]) -> PayPalRefund:
    """Return a refund; raises `ValueError` or `InvalidInputError`."""
    refund_id, status = refund.get("id"), refund.get("status")
    if not isinstance(refund_id, str) or not isinstance(status, str):
        raise ValueError("a refund's id or status is missing or no text")
    details = refund.get("status_details")
    return PayPalRefund(
        refund_id=refund_id,
        status=status,
        amount=from_paypal_amount(refund.get("amount")),
        custom_id=_text(refund.get("custom_id")),
        created_at=_instant(refund.get("create_time")),
        reason=_text(details.get("reason")) if isinstance(details, Mapping) else None,
    )


def outcome_of_refund(refund: PayPalRefund) -> RefundOutcome:
    """Return what a refund says of itself; raises `ValueError` for a status PayPal does not have."""
    status = _REFUNDS.get(refund.status)
    if status is None:
        raise ValueError(f"unknown status {refund.status!r} of a refund")
    ended = status in {RefundStatus.FAILED, RefundStatus.CANCELED}
    code = f"refund_{status.value}" if ended else None
    return RefundOutcome(status, refund.refund_id, refund.amount, code, refund.reason if ended else None)


def own_refund_id(custom_id: str | None) -> str | None:
    """Return our refund's id; None for one made in PayPal's panel, which bears the payment's id or none."""
    return custom_id if custom_id is not None and custom_id.startswith("ref_") else None


def own_payment_id(custom_id: str | None) -> str | None:
    """Return our payment's id, None if it is none of ours."""
    return custom_id if custom_id is not None and custom_id.startswith("pay_") else None


def outcome_of_order(order: PayPalOrder) -> Outcome:
    """Return what an order says of its payment: who must act, what failed, or that the money is on its way."""
    if order.captures:
        capture = order.captures[-1]
        return outcome_of_capture(order.order_id, capture)
    if order.status == "APPROVED":
        return Outcome(PaymentStatus.PROCESSING, order.order_id, order.amount)
    if order.status in _WAITS_FOR_PAYER:
        return Outcome(PaymentStatus.REQUIRES_ACTION, order.order_id, order.amount)
    if order.status == "VOIDED":
        return Outcome(
            PaymentStatus.CANCELED, order.order_id, order.amount, AUTHENTICATION_ABANDONED, "PayPal voided it"
        )
    if order.status == "COMPLETED":
        return Outcome(PaymentStatus.PROCESSING, order.order_id, order.amount)
    raise ValueError(f"unknown status {order.status!r}")


def outcome_of_capture(order_id: str | None, capture: PayPalCapture) -> Outcome:
    """Return what a capture says of its payment."""
    if capture.status in _CAPTURE_FAILURES:
        code = _CAPTURE_FAILURES[capture.status]
        return Outcome(PaymentStatus.FAILED, order_id, capture.amount, code, capture.reason or capture.status)
    if capture.status == "PENDING":
        # A review, say; its webhook tells the end.
        return Outcome(PaymentStatus.PROCESSING, order_id, capture.amount)
    if capture.status not in _CAPTURED:
        raise ValueError(f"unknown status {capture.status!r} of a capture")
    return Outcome(PaymentStatus.SUCCEEDED, order_id, capture.amount)


class PayPalWebhookReader:
    """Implements `payments.ports.WebhookReader` for the events of orders, captures, refunds and disputes."""

    def read(self, webhook: StoredWebhook) -> News | Refusal | None:
        """Return the news, a refusal (`unreadable`, `malformed_event`), or None for types we do not act on."""
        event = read_event(webhook.body)
        if isinstance(event, Refusal):
            return event
        kind, resource, at = event["event_type"], event["resource"], _instant(event.get("create_time"))
        try:
            if kind in _ORDER_EVENTS:
                return _news_of_order(kind, resource, at)
            if kind in _CAPTURE_EVENTS:
                return _news_of_capture(kind, resource, at)
            if kind in _REFUND_EVENTS:
                return _news_of_refund(resource, at)
            if kind in _DISPUTE_EVENTS:
                return _news_of_dispute(resource, at)
        except (InvalidInputError, ValueError) as error:
            return Refusal("malformed_event", f"resource: {error}")
        return None


_ORDER_EVENTS = {
    # The payer agreed: from here on it is ours to capture.
    "CHECKOUT.ORDER.APPROVED": PaymentStatus.PROCESSING,
    # PayPal took the approval back because nothing captured it in time.
    "CHECKOUT.PAYMENT-APPROVAL.REVERSED": PaymentStatus.CANCELED,
    "CHECKOUT.ORDER.VOIDED": PaymentStatus.CANCELED,
}
_CAPTURE_EVENTS = {
    "PAYMENT.CAPTURE.COMPLETED": PaymentStatus.SUCCEEDED,
    "PAYMENT.CAPTURE.PENDING": PaymentStatus.PROCESSING,
    # "DENIED" on the newer page, "DECLINED" on the older; both are sent.
    "PAYMENT.CAPTURE.DENIED": PaymentStatus.FAILED,
    "PAYMENT.CAPTURE.DECLINED": PaymentStatus.FAILED,
}
# A refund by us, or one made in PayPal's panel; the resource is the refund. (REVERSED, a chargeback's capture, is told
# by the dispute.)
_REFUND_EVENTS = frozenset({"PAYMENT.CAPTURE.REFUNDED", "PAYMENT.REFUND.PENDING", "PAYMENT.REFUND.FAILED"})
_DISPUTE_EVENTS = frozenset({"CUSTOMER.DISPUTE.CREATED", "CUSTOMER.DISPUTE.UPDATED", "CUSTOMER.DISPUTE.RESOLVED"})
# Disputes API, `dispute_outcome.outcome_code`. With a payout PayPal pays the buyer itself.
_DISPUTE_OUTCOMES = {
    "RESOLVED_BUYER_FAVOUR": DisputeStatus.LOST,
    "RESOLVED_SELLER_FAVOUR": DisputeStatus.WON,
    "RESOLVED_WITH_PAYOUT": DisputeStatus.WON,
    "CANCELED_BY_BUYER": DisputeStatus.WON,
    "ACCEPTED": DisputeStatus.LOST,
    "DENIED": DisputeStatus.WON,
}


def read_event(body: bytes) -> dict[str, Any] | Refusal:
    """Return a webhook event with its type and resource, or why it is none."""
    try:
        event = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Refusal("unreadable", "the signed body is not JSON")
    if not isinstance(event, dict) or not isinstance(event.get("event_type"), str):
        return Refusal("malformed_event", "no event with a type")
    if not isinstance(event.get("resource"), dict):
        return Refusal("malformed_event", "resource is missing")
    return event


def _news_of_order(kind: str, resource: Mapping[str, Any], at: datetime | None) -> PaymentNews:
    if kind == "CHECKOUT.PAYMENT-APPROVAL.REVERSED":
        order_id, custom_id, amount = _reversed_order(resource)
    else:
        # The event's resource may lack a status, and may already show a capture that was made meanwhile.
        order = read_order({"status": "APPROVED", **resource})
        order_id, custom_id, amount = order.order_id, order.custom_id, order.amount
    status = _ORDER_EVENTS[kind]
    code, reason = (AUTHENTICATION_ABANDONED, kind) if status is PaymentStatus.CANCELED else (None, None)
    return PaymentNews(custom_id, Outcome(status, order_id, amount, code, reason), at)


def _reversed_order(resource: Mapping[str, Any]) -> tuple[str, str | None, Money | None]:
    # Page "Handle uncaptured payments": this resource has order_id and purchase_units, but no status.
    order_id = resource.get("order_id") or resource.get("id")
    if not isinstance(order_id, str):
        raise ValueError("order_id is missing or no text")
    units = resource.get("purchase_units")
    unit = units[0] if isinstance(units, list) and units and isinstance(units[0], Mapping) else {}
    return order_id, _text(unit.get("custom_id")), None


def _news_of_capture(kind: str, resource: Mapping[str, Any], at: datetime | None) -> PaymentNews:
    capture = read_capture({"status": "COMPLETED", **resource})
    status = _CAPTURE_EVENTS[kind]
    failed = status is PaymentStatus.FAILED
    outcome = Outcome(
        status,
        order_id_of_capture(resource),
        capture.amount,
        "capture_declined" if failed else None,
        (capture.reason or kind) if failed else None,
    )
    return PaymentNews(_text(resource.get("custom_id")), outcome, at)


def _news_of_refund(resource: Mapping[str, Any], at: datetime | None) -> RefundNews:
    refund = read_refund({"status": "COMPLETED", **resource})
    return RefundNews(
        refund_id=own_refund_id(refund.custom_id),
        # The event names the capture only; our own payment is known by the id that its capture bears.
        payment_reference=None,
        outcome=outcome_of_refund(refund),
        reason=_text(resource.get("note_to_payer")) or "",
        happened_at=at,
        payment_id=own_payment_id(refund.custom_id),
    )


def _news_of_dispute(resource: Mapping[str, Any], at: datetime | None) -> DisputeNews:
    reference = _text(resource.get("dispute_id"))
    transactions = list(_objects(resource, "disputed_transactions"))
    if reference is None or len(transactions) != 1:
        raise ValueError("expected a dispute_id and one disputed transaction")
    if resource.get("status") == "RESOLVED":
        outcome = resource.get("dispute_outcome")
        code = outcome.get("outcome_code") if isinstance(outcome, Mapping) else None
        if code not in _DISPUTE_OUTCOMES:
            raise ValueError(f"unknown outcome {code!r} of a dispute")
        status = _DISPUTE_OUTCOMES[code]
    elif resource.get("dispute_life_cycle_stage") == "INQUIRY":
        status = DisputeStatus.INQUIRY
    else:
        status = DisputeStatus.OPENED
    return DisputeNews(
        reference=reference,
        payment_reference=None,
        payment_id=own_payment_id(_text(transactions[0].get("custom"))),
        status=status,
        amount=from_paypal_amount(resource.get("dispute_amount")),
        reason=(_text(resource.get("reason")) or "").lower(),
        opened_at=_instant(resource.get("create_time")),
        evidence_due_at=_instant(resource.get("seller_response_due_date")),
        happened_at=at,
    )


def order_id_of_capture(capture: Mapping[str, Any]) -> str | None:
    """Return the order a capture belongs to, None if it does not say."""
    data = capture.get("supplementary_data")
    related = data.get("related_ids") if isinstance(data, Mapping) else None
    found = _text(related.get("order_id")) if isinstance(related, Mapping) else None
    return found or _last_segment(_link(capture, ("up",)), "/v2/checkout/orders/")


def _last_segment(url: str | None, before: str) -> str | None:
    if url is None or before not in url:
        return None
    found = url.rpartition(before)[2]
    return found if found.isalnum() else None


def _link(thing: Mapping[str, Any], relations: tuple[str, ...]) -> str | None:
    for link in _objects(thing, "links"):
        if link.get("rel") in relations and isinstance(link.get("href"), str):
            return str(link["href"])
    return None


def _objects(parent: Any, name: str) -> Iterator[Mapping[str, Any]]:
    found = parent.get(name) if isinstance(parent, Mapping) else None
    for item in found if isinstance(found, list) else []:
        if isinstance(item, Mapping):
            yield item


def _text(value: Any) -> str | None:
    # PostgreSQL takes no NUL, and no id of ours has one.
    return value if isinstance(value, str) and value and "\0" not in value else None


def _instant(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        return None
    return instant.astimezone(UTC) if instant.tzinfo is not None else None
