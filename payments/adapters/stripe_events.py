"""Reads Stripe's webhook events: which type means what. Source: API reference 2026-10-28, "Events", "Event types".

The same bytes come signed by webhook and, for those that never came, from the list of events (`list_events`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
import stripe

from core.errors import InvalidInputError, UnavailableError
from payments.adapters.stripe_client import PAGE, StripeAccount
from payments.adapters.stripe_errors import describe
from payments.adapters.stripe_objects import (
    read_dispute,
    read_id,
    read_instant,
    read_intent,
    read_metadata,
    read_money,
    read_reference,
    read_refund_news,
    read_refund_total,
)
from payments.domain.payment import Outcome, PaymentStatus, Refusal
from payments.ports import MethodNews, News, PaymentNews, StoredWebhook

_INTENT_EVENTS = {
    "payment_intent.succeeded": "succeeded",
    "payment_intent.payment_failed": "requires_payment_method",
    "payment_intent.processing": "processing",
    "payment_intent.requires_action": "requires_action",
    "payment_intent.canceled": "canceled",
}
# Meterbook is the book of subscriptions and invoices; Stripe's own tell of something only if they name our payment.
_NOT_OURS = frozenset({"customer.subscription.updated", "customer.subscription.deleted"})
# API reference, "List all events": the last 30 days.
EVENTS_KEPT = timedelta(days=30)

Read = Callable[[Mapping[str, Any], Mapping[str, Any], "datetime | None"], "News | None"]


class StripeWebhookReader:
    """Implements `payments.ports.WebhookReader` for Stripe's snapshot events."""

    def read(self, webhook: StoredWebhook) -> News | Refusal | None:
        """Return the news, a refusal (`unreadable`, `malformed_event`), or None for types we do not act on."""
        try:
            event = msgspec.json.decode(webhook.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return Refusal("unreadable", "the signed body is not JSON")
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            return Refusal("malformed_event", "no event with a type")
        kind = event["type"]
        if kind not in _READERS:
            return None
        data = event.get("data")
        subject = data.get("object") if isinstance(data, dict) else None
        if not isinstance(subject, dict):
            return Refusal("malformed_event", "data.object is missing")
        try:
            return _READERS[kind](subject, event, read_instant(event.get("created")))
        except (InvalidInputError, ValueError) as error:
            return Refusal("malformed_event", f"data.object: {error}")


class StripeEventList(StripeAccount):
    """Implements `payments.ports.EventSource`."""

    async def list_events(self, since: datetime, until: datetime) -> AsyncIterator[StoredWebhook]:
        """Return the events created in [since, until) that we act on; Stripe keeps them for 30 days."""
        wanted: dict[str, Any] = {
            "created": {"gte": int(since.timestamp()), "lt": int(until.timestamp())},
            "limit": PAGE,
        }
        try:
            # Up to 20 types can be asked for at once; ours are more, so all are listed and sorted out here.
            page = await self._client.v1.events.list_async(wanted)  # type: ignore[arg-type]
            async for event in page.auto_paging_iter():
                if event.type in _READERS:
                    yield StoredWebhook(self.name, event.id, event.type, msgspec.json.encode(event.to_dict()))
        except stripe.StripeError as error:
            raise UnavailableError(f"cannot list Stripe's events: {describe(error)}") from error


def _payment_news(status: str) -> Read:
    def read(intent: Mapping[str, Any], _: Mapping[str, Any], at: datetime | None) -> News:
        return PaymentNews(read_metadata(intent, "payment_id"), read_intent(intent, status), at)

    return read


def _invoice_news(status: PaymentStatus, amount_field: str) -> Read:
    """Read a Stripe invoice that collects one of our payments: its metadata names it. Any other is of no concern."""

    def read(invoice: Mapping[str, Any], _: Mapping[str, Any], at: datetime | None) -> News | None:
        payment_id = read_metadata(invoice, "payment_id")
        if payment_id is None:
            return None
        failed = status is PaymentStatus.FAILED
        code, reason = ("invoice_payment_failed", "Stripe could not collect its invoice") if failed else (None, None)
        reference, amount = read_reference(invoice, "payment_intent"), read_money(invoice, amount_field)
        return PaymentNews(payment_id, Outcome(status, reference, amount, code, reason), at)

    return read


def _refund_news(refund: Mapping[str, Any], _: Mapping[str, Any], at: datetime | None) -> News:
    return read_refund_news(refund, at)


def _refund_total(charge: Mapping[str, Any], _: Mapping[str, Any], __: datetime | None) -> News | None:
    return read_refund_total(charge)


def _dispute_news(dispute: Mapping[str, Any], _: Mapping[str, Any], at: datetime | None) -> News:
    return read_dispute(dispute, at)


def _saved_method(setup: Mapping[str, Any], _: Mapping[str, Any], at: datetime | None) -> News | None:
    customer, method = read_reference(setup, "customer"), read_reference(setup, "payment_method")
    if customer is None or method is None:
        return None
    return MethodNews(read_metadata(setup, "tenant_id"), customer, method, is_usable=True, happened_at=at)


def _detached_method(method: Mapping[str, Any], event: Mapping[str, Any], at: datetime | None) -> News:
    data = event["data"]
    before = data.get("previous_attributes")
    customer = read_reference(before, "customer") if isinstance(before, Mapping) else None
    return MethodNews(None, customer, read_id(method), is_usable=False, happened_at=at)


def _changed_mandate(mandate: Mapping[str, Any], _: Mapping[str, Any], at: datetime | None) -> News | None:
    # API reference, Mandate `status`: an inactive mandate of a bank debit can no longer be used.
    if mandate.get("status") != "inactive":
        return None
    method = read_reference(mandate, "payment_method")
    return None if method is None else MethodNews(None, None, method, is_usable=False, happened_at=at)


def _nothing(_: Mapping[str, Any], __: Mapping[str, Any], ___: datetime | None) -> None:
    return None


_READERS: dict[str, Read] = {
    **{kind: _payment_news(status) for kind, status in _INTENT_EVENTS.items()},
    "invoice.payment_succeeded": _invoice_news(PaymentStatus.SUCCEEDED, "amount_paid"),
    "invoice.payment_failed": _invoice_news(PaymentStatus.FAILED, "amount_due"),
    "charge.refunded": _refund_total,
    "refund.created": _refund_news,
    "refund.updated": _refund_news,
    "refund.failed": _refund_news,
    "charge.refund.updated": _refund_news,
    "charge.dispute.created": _dispute_news,
    "charge.dispute.updated": _dispute_news,
    "charge.dispute.closed": _dispute_news,
    "charge.dispute.funds_withdrawn": _dispute_news,
    "charge.dispute.funds_reinstated": _dispute_news,
    "setup_intent.succeeded": _saved_method,
    "payment_method.detached": _detached_method,
    "mandate.updated": _changed_mandate,
    **dict.fromkeys(_NOT_OURS, _nothing),
}
EVENT_TYPES = tuple(sorted(_READERS))
