"""PayPal behind the ports. Owns which of its refusals end a payment, and that an order is captured once.

A payment here is an order (intent CAPTURE) that its payer approves and we capture. Nothing but our capture takes money,
so an order that nobody captures costs nobody anything. Source: PayPal's "Orders" 2.13 and "Payments" 2.5 API reference.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from core.clock import Clock
from core.errors import Fault, InvalidInputError, UnavailableError
from payments.adapters.paypal_client import PayPalClient, PayPalRefusal
from payments.adapters.paypal_money import to_paypal_amount
from payments.adapters.paypal_order import (
    PayPalOrder,
    outcome_of_order,
    outcome_of_refund,
    own_refund_id,
    read_order,
    read_refund,
)
from payments.domain.payment import AUTHENTICATION_ABANDONED, Outcome, Payment, PaymentStatus
from payments.domain.refund import Refund, RefundOutcome, RefundStatus
from payments.method_ports import MethodSetup, SavedMethod
from payments.paypal_ports import CaptureAnswer
from payments.ports import Payer, PaymentMethod, RefundNews, StoredWebhook, UnknownOutcomeError
from runtime.settings import InvalidSettingsError, Settings

_ORDERS, _CAPTURES = "/v2/checkout/orders", "/v2/payments/captures"
_EVENTS, _VERIFY = "/v1/notifications/webhooks-events", "/v1/notifications/verify-webhook-signature"
_PAGE = "100"
_DESCRIPTION_MAX = 127
# The payer has not approved, or must go back to PayPal: their turn, not a failure.
_PAYERS_TURN = frozenset({"ORDER_NOT_APPROVED", "PAYER_ACTION_REQUIRED", "ORDER_IS_PENDING_APPROVAL"})
_GONE = frozenset({"ORDER_EXPIRED", "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID"})
# "Webhooks Events dashboard": events of the last 30 days can be listed.
EVENTS_KEPT = timedelta(days=30)
# Method of a tenant who pays by PayPal: nothing is saved there, every invoice is approved anew.
BY_APPROVAL = "approval"


class PayPalProvider:
    """Implements `PaymentProvider`, `RefundLister`, `ActionProvider`, `EventSource`, `CustomerRegistrar`.

    And of `payments.paypal_ports` the `OrderCapturer` and the `SignatureJudge`.
    """

    name: ClassVar[str] = "paypal"

    def __init__(self, client: PayPalClient, return_url: str) -> None:
        self._client, self._return_url = client, return_url

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def charge(self, payment: Payment, method: PaymentMethod, description: str) -> Outcome:
        """Create the order that the payer is to approve, with the payment's id as PayPal-Request-Id."""
        amount = to_paypal_amount(payment.amount)
        if amount is None:
            reason = f"PayPal does not take {payment.amount}"
            return Outcome(PaymentStatus.FAILED, None, None, "amount_not_chargeable", reason)
        context = {
            "user_action": "PAY_NOW",
            "shipping_preference": "NO_SHIPPING",
            # No e-cheques, which stay pending for days.
            "payment_method_preference": "IMMEDIATE_PAYMENT_REQUIRED",
            "return_url": self._return_url,
            "cancel_url": self._return_url,
        }
        body = {
            "intent": "CAPTURE",
            "purchase_units": [
                {
                    "amount": amount,
                    "custom_id": payment.payment_id,
                    # PayPal refuses a second capture with the same one, where the account is set so (the default).
                    "invoice_id": payment.invoice_id,
                    "description": description[:_DESCRIPTION_MAX],
                }
            ],
            "payment_source": {"paypal": {"experience_context": context}},
        }
        try:
            found = await self._client.post(_ORDERS, body=body, request_id=payment.payment_id)
        except PayPalRefusal as refusal:
            _reraise_ours(refusal)
            return Outcome(PaymentStatus.FAILED, None, None, refusal.code, str(refusal))
        return outcome_of_order(_own(found, payment))

    async def find_charge(self, payment: Payment, method: PaymentMethod | None = None) -> Outcome | None:
        """Look the order up; None if its creation was never answered.

        PayPal lists no orders, so such an order cannot be found. It needs no finding: nobody was sent its link, and it
        will not be captured, because only the order written down is.
        """
        if payment.provider_reference is None:
            return None
        order = await self._show(payment)
        if order is None:
            if payment.status is PaymentStatus.PROCESSING:
                raise UnknownOutcomeError(f"PayPal does not know order {payment.provider_reference} any more")
            return _expired(payment)
        return outcome_of_order(order)

    async def request_action(self, payment: Payment, method: PaymentMethod | None = None) -> str | Outcome:
        """Return where the payer approves, or what became of the order."""
        order = await self._show(payment)
        if order is None:
            return _expired(payment)
        outcome = outcome_of_order(order)
        if outcome.status is not PaymentStatus.REQUIRES_ACTION:
            return outcome
        if order.approve_url is None:
            raise UnknownOutcomeError(f"PayPal gives no link to approve order {order.order_id}")
        return order.approve_url

    async def abandon(self, payment: Payment) -> Outcome:
        """Give an order up that its payer left. PayPal can cancel none; not capturing it is the cancellation."""
        order = await self._show(payment)
        outcome = outcome_of_order(order) if order is not None else _expired(payment)
        return _expired(payment) if outcome.status is PaymentStatus.REQUIRES_ACTION else outcome

    async def capture(self, payment: Payment) -> CaptureAnswer:
        """Take the money of an approved order. Asking again is harmless: PayPal captures an order once."""
        if payment.provider_reference is None:
            raise UnknownOutcomeError(f"{payment.payment_id} has no order to capture")
        try:
            found = await self._client.post(
                _ORDERS, payment.provider_reference, "capture", body=None, request_id=f"{payment.payment_id}-capture"
            )
        except PayPalRefusal as refusal:
            _reraise_ours(refusal)
            return await self._read_refused_capture(payment, refusal)
        order = _own(found, payment)
        if not order.captures:
            raise UnknownOutcomeError(f"PayPal's answer names no capture of order {order.order_id}")
        return CaptureAnswer(outcome_of_order(order), order.captures[-1].capture_id)

    async def _read_refused_capture(self, payment: Payment, refusal: PayPalRefusal) -> CaptureAnswer:
        # ORDER_ALREADY_CAPTURED, and DUPLICATE_INVOICE_ID too, may be the echo of an earlier call of ours whose
        # PayPal-Request-Id was forgotten (6 hours): the order itself knows.
        order = await self._show(payment)
        if order is not None and order.captures:
            return CaptureAnswer(outcome_of_order(order), order.captures[-1].capture_id)
        if order is None or refusal.issue in _GONE:
            return CaptureAnswer(_expired(payment))
        reference = payment.provider_reference
        if refusal.issue in _PAYERS_TURN:
            return CaptureAnswer(Outcome(PaymentStatus.REQUIRES_ACTION, reference, None, refusal.code, str(refusal)))
        return CaptureAnswer(Outcome(PaymentStatus.FAILED, reference, None, refusal.code, str(refusal)))

    async def refund(self, refund: Refund, payment: Payment) -> RefundOutcome:
        """Give (a part of) the captured amount back, with the refund's id as PayPal-Request-Id (kept 45 days)."""
        amount = to_paypal_amount(refund.amount)
        if amount is None:
            return RefundOutcome(
                RefundStatus.FAILED, None, None, "amount_not_refundable", f"PayPal does not take {refund.amount}"
            )
        order = await self._show(payment)
        if order is None or not order.captures:
            return RefundOutcome(RefundStatus.FAILED, None, None, "nothing_captured", "PayPal has no capture to refund")
        body = {"amount": amount, "custom_id": refund.refund_id}
        try:
            found = await self._client.post(
                _CAPTURES, order.captures[-1].capture_id, "refund", body=body, request_id=refund.refund_id
            )
        except PayPalRefusal as refusal:
            _reraise_ours(refusal)
            earlier = await self.find_refund(refund, payment)
            return earlier or RefundOutcome(RefundStatus.FAILED, None, None, refusal.code, str(refusal))
        try:
            return outcome_of_refund(read_refund(found))
        except (ValueError, InvalidInputError) as error:
            raise UnknownOutcomeError(f"PayPal's answer to a refund cannot be read: {error}") from error

    async def find_refund(self, refund: Refund, payment: Payment) -> RefundOutcome | None:
        """Look the refund up among those of the order, by the id we gave it."""
        order = await self._show(payment)
        for found in order.refunds if order is not None else ():
            if found.custom_id == refund.refund_id or found.refund_id == refund.provider_reference:
                return outcome_of_refund(found)
        return None

    async def list_refunds(self, payment: Payment) -> Sequence[RefundNews]:
        """Return every refund of the order, those made in PayPal's own panel included."""
        order = await self._show(payment)
        return [
            RefundNews(
                refund_id=own_refund_id(found.custom_id),
                payment_reference=payment.provider_reference,
                outcome=outcome_of_refund(found),
                reason="",
                happened_at=found.created_at,
                payment_id=payment.payment_id,
            )
            for found in (order.refunds if order is not None else ())
        ]

    async def list_events(self, since: datetime, until: datetime) -> AsyncIterator[StoredWebhook]:
        """Return the events of [since, until) as their webhooks would have brought them, in no order."""
        query: dict[str, str] | None = {
            "page_size": _PAGE,
            "start_time": _rfc3339(since),
            "end_time": _rfc3339(until),
        }
        while query is not None:
            try:
                page = await self._client.get(_EVENTS, query=query)
            except PayPalRefusal as refusal:
                raise UnavailableError(f"PayPal lists no events: {refusal}") from refusal
            for event in page.get("events") or []:
                if not isinstance(event, dict) or not isinstance(event.get("id"), str):
                    raise UnavailableError("PayPal lists an event without an id")
                kind = event.get("event_type")
                kept = {name: value for name, value in event.items() if name not in {"transmissions", "status"}}
                yield StoredWebhook(
                    self.name, event["id"], kind if isinstance(kind, str) else "unreadable", json.dumps(kept).encode()
                )
            query = _next_page(page)

    async def create_customer(self, payer: Payer) -> str:
        """Return how the tenant is named here: PayPal keeps no customers for us."""
        return payer.tenant_id

    async def attach_method(self, tenant_id: str, customer_reference: str, method: str) -> str:
        """Accept the one method there is; `InvalidInputError` for another."""
        if method != BY_APPROVAL:
            raise InvalidInputError(
                [Fault("unknown_method", f"PayPal payers approve each invoice: {BY_APPROVAL!r}", "--method")]
            )
        return method

    async def begin_setup(
        self, tenant_id: str, customer_reference: str, kinds: Sequence[str], request_key: str
    ) -> MethodSetup:
        """Refuse: payers approve each invoice at PayPal, and nothing is saved."""
        raise InvalidInputError([Fault("unknown_method", "nothing is saved at PayPal: payers approve each invoice")])

    async def list_methods(self, customer_reference: str) -> Sequence[SavedMethod]:
        """Return the one way there is."""
        return [SavedMethod(BY_APPROVAL, PayPalProvider.name, "PayPal", "", None)]

    async def detach_method(self, method: str) -> None:
        """Nothing is saved at PayPal that could be taken away."""

    async def confirms(self, content: bytes) -> bool:
        """Tell whether PayPal calls a webhook's signature good (`verify-webhook-signature`)."""
        try:
            found = await self._client.post_raw(_VERIFY, content=content)
        except PayPalRefusal:
            # "400 VALIDATION_ERROR" for headers that are not PayPal's: not proven is refused.
            return False
        return found.get("verification_status") == "SUCCESS"

    async def _show(self, payment: Payment) -> PayPalOrder | None:
        reference = payment.provider_reference
        if reference is None:
            return None
        try:
            found = await self._client.get(_ORDERS, reference)
        except PayPalRefusal as refusal:
            _reraise_ours(refusal)
            if refusal.status == 404:
                return None
            raise UnknownOutcomeError(f"PayPal does not show order {reference}: {refusal}") from refusal
        return _own(found, payment)


def create_paypal_provider(settings: Settings, clock: Clock) -> PayPalProvider:
    """Build the provider from the settings; raises `InvalidSettingsError` naming every one that is missing."""
    client_id, secret = settings.paypal_client_id, settings.paypal_client_secret
    return_url = settings.payment_return_url
    if client_id is None or secret is None or return_url is None:
        given = {"PAYPAL_CLIENT_ID": client_id, "PAYPAL_CLIENT_SECRET": secret, "PAYMENT_RETURN_URL": return_url}
        raise InvalidSettingsError(
            [
                Fault("missing_setting", "payments by PayPal need it", f"METERBOOK_{name}")
                for name, value in given.items()
                if value is None
            ]
        )
    client = PayPalClient(client_id, secret.get_secret_value(), settings.paypal_api_base, clock)
    return PayPalProvider(client, return_url)


def has_paypal(settings: Settings) -> bool:
    """Tell whether payments by PayPal are set up."""
    return settings.paypal_client_id is not None


def _own(found: dict[str, Any], payment: Payment) -> PayPalOrder:
    """Return the answer as an order of this payment; one that cannot be read or is another's says nothing of it."""
    try:
        order = read_order(found)
        outcome_of_order(order)
    except (ValueError, InvalidInputError) as error:
        raise UnknownOutcomeError(f"PayPal's answer cannot be read: {error}") from error
    if order.custom_id is not None and order.custom_id != payment.payment_id:
        raise UnknownOutcomeError(f"PayPal answers with an order of {order.custom_id}, not of {payment.payment_id}")
    return order


def _expired(payment: Payment) -> Outcome:
    reason = "the payer did not approve in time"
    return Outcome(PaymentStatus.CANCELED, payment.provider_reference, None, AUTHENTICATION_ABANDONED, reason)


def _reraise_ours(refusal: PayPalRefusal) -> None:
    """Raise for 403: our account may not do this, which says nothing of the payment and is ours to repair."""
    if refusal.status == 403:
        raise UnknownOutcomeError(f"PayPal does not let this account do it: {refusal}") from refusal


def _next_page(page: dict[str, Any]) -> dict[str, str] | None:
    """Return the query of the next page; only its query is used, so a link can lead to no other host."""
    for link in page.get("links") or []:
        if isinstance(link, dict) and link.get("rel") == "next" and isinstance(link.get("href"), str):
            return dict(parse_qsl(urlsplit(link["href"]).query))
    return None


def _rfc3339(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
