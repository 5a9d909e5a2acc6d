"""Refunds through Stripe. Source: API reference, "Refunds"; page "Refund and cancel payments"."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import stripe

from core.errors import BrokenInvariantError, InvalidInputError
from payments.adapters.stripe_amounts import to_stripe_amount
from payments.adapters.stripe_client import PAGE, StripeAccount
from payments.adapters.stripe_errors import describe, is_missing, read_refused_refund
from payments.adapters.stripe_objects import read_refund, read_refund_news
from payments.domain.payment import Payment
from payments.domain.refund import Refund, RefundOutcome, RefundStatus
from payments.ports import RefundNews, UnknownOutcomeError


class StripeRefunds(StripeAccount):
    """The part of `PaymentProvider` that gives money back; implements `RefundLister` too."""

    async def refund(self, refund: Refund, payment: Payment) -> RefundOutcome:
        """Refund (a part of) the payment's intent, with the refund's id as idempotency key."""
        units = to_stripe_amount(refund.amount)
        if units is None:
            reason = f"Stripe takes no fraction of {refund.amount.currency}: {refund.amount}"
            return RefundOutcome(RefundStatus.FAILED, None, None, "amount_not_refundable", reason)
        parameters: dict[str, Any] = {
            "payment_intent": _reference_of(payment),
            "amount": units,
            "metadata": {
                "invoice_id": refund.invoice_id,
                "payment_id": refund.payment_id,
                "refund_id": refund.refund_id,
                "tenant_id": refund.tenant_id,
            },
        }
        try:
            made = await self._client.v1.refunds.create_async(
                parameters,  # type: ignore[arg-type]
                {"idempotency_key": refund.refund_id},
            )
        except stripe.StripeError as error:
            return read_refused_refund(error)
        try:
            return read_refund(made.to_dict())
        except (InvalidInputError, ValueError) as error:
            raise UnknownOutcomeError(f"Stripe's answer cannot be read: {error}") from error

    async def find_refund(self, refund: Refund, payment: Payment) -> RefundOutcome | None:
        """Find the refund of the payment's intent that carries our refund id."""
        for news in await self.list_refunds(payment):
            if news.refund_id == refund.refund_id:
                return news.outcome
        return None

    async def list_refunds(self, payment: Payment) -> Sequence[RefundNews]:
        """Return every refund of the payment's intent, oldest first."""
        found = []
        try:
            async for each in self._refunds_of(_reference_of(payment)):
                found.append(read_refund_news(each, None))
        except stripe.StripeError as error:
            if is_missing(error):
                return []
            raise UnknownOutcomeError(f"cannot look the refunds up: {describe(error)}") from error
        except (InvalidInputError, ValueError) as error:
            raise UnknownOutcomeError(f"Stripe's refunds cannot be read: {error}") from error
        return found[::-1]

    async def _refunds_of(self, intent: str) -> AsyncIterator[dict[str, Any]]:
        page = await self._client.v1.refunds.list_async({"payment_intent": intent, "limit": PAGE})
        async for refund in page.auto_paging_iter():
            yield refund.to_dict()


def _reference_of(payment: Payment) -> str:
    if payment.provider_reference is None:
        raise BrokenInvariantError(f"{payment.payment_id} has no payment intent to refund")
    return payment.provider_reference
