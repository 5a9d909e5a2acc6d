"""3-D Secure through Stripe: where the payer must go, and what happens if the payer does not.

Source: page "Set up future payments", off-session payments (an authentication_required decline leaves the intent at
requires_payment_method, to be confirmed again with the payer present); page "3D Secure authentication flow", redirect:
confirming with a `return_url` gives `next_action.redirect_to_url.url`; API reference, "Cancel a PaymentIntent".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import stripe

from core.errors import BrokenInvariantError, InvalidInputError, UnavailableError
from core.ids import derive_id
from payments.adapters.stripe_client import StripeAccount
from payments.adapters.stripe_errors import describe, read_refused_charge
from payments.adapters.stripe_objects import read_intent, read_reference
from payments.domain.payment import Outcome, Payment, PaymentStatus
from payments.ports import ExhaustedKeyError, PaymentMethod, UnknownOutcomeError


class StripeActions(StripeAccount):
    """Implements `payments.ports.ActionProvider`."""

    async def request_action(self, payment: Payment, method: PaymentMethod) -> str | Outcome:
        """Return Stripe's page for the payer's bank, or what the intent is if nobody has to go there."""
        if self._return_url is None:
            raise UnavailableError("no return address for payers is set (METERBOOK_PAYMENT_RETURN_URL)")
        intent = await self._retrieve(payment)
        outcome = _read(intent)
        if outcome.status is not PaymentStatus.REQUIRES_ACTION:
            return outcome
        if intent.get("status") == "requires_payment_method":
            confirmed = await self._confirm(payment, method, self._return_url)
            if isinstance(confirmed, Outcome):
                return confirmed
            intent, outcome = confirmed, _read(confirmed)
        return _redirect_of(intent) or outcome

    async def abandon(self, payment: Payment) -> Outcome:
        """Cancel the intent as abandoned; one that went on meanwhile is returned as it is."""
        try:
            canceled = await self._client.v1.payment_intents.cancel_async(
                _reference_of(payment),
                {"cancellation_reason": "abandoned"},
                {"idempotency_key": derive_id("abandon", payment.payment_id)},
            )
        except stripe.InvalidRequestError:
            # Page "PaymentIntent lifecycle": one that is processing, succeeded or canceled cannot be canceled.
            return _read(await self._retrieve(payment))
        except stripe.StripeError as error:
            raise UnknownOutcomeError(f"cannot cancel: {describe(error)}") from error
        return _read(canceled.to_dict())

    async def _confirm(self, payment: Payment, method: PaymentMethod, return_url: str) -> dict[str, Any] | Outcome:
        try:
            confirmed = await self._client.v1.payment_intents.confirm_async(
                _reference_of(payment),
                {"payment_method": method.method_reference, "return_url": return_url},
                {"idempotency_key": derive_id("confirm", payment.payment_id, method.method_reference)},
            )
        except stripe.StripeError as error:
            try:
                return read_refused_charge(error)
            except ExhaustedKeyError as exhausted:
                raise UnknownOutcomeError(str(exhausted)) from error
        found: dict[str, Any] = confirmed.to_dict()
        return found

    async def _retrieve(self, payment: Payment) -> dict[str, Any]:
        try:
            intent = await self._client.v1.payment_intents.retrieve_async(_reference_of(payment))
        except stripe.StripeError as error:
            raise UnknownOutcomeError(f"cannot look the payment up: {describe(error)}") from error
        found: dict[str, Any] = intent.to_dict()
        return found


def _redirect_of(intent: Mapping[str, Any]) -> str | None:
    action = intent.get("next_action")
    redirect = action.get("redirect_to_url") if isinstance(action, Mapping) else None
    return read_reference(redirect, "url") if isinstance(redirect, Mapping) else None


def _read(intent: Mapping[str, Any]) -> Outcome:
    try:
        return read_intent(intent)
    except (InvalidInputError, ValueError) as error:
        raise UnknownOutcomeError(f"Stripe's answer cannot be read: {error}") from error


def _reference_of(payment: Payment) -> str:
    if payment.provider_reference is None:
        raise BrokenInvariantError(f"{payment.payment_id} waits for its payer without a payment intent")
    return payment.provider_reference
