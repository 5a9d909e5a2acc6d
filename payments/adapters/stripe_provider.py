"""Stripe behind the ports, through the `stripe` library: charges here, the rest in the parts beside it."""

from __future__ import annotations

from typing import Any

import stripe

from core.errors import Fault, InvalidInputError
from payments.adapters.stripe_actions import StripeActions
from payments.adapters.stripe_amounts import to_stripe_amount
from payments.adapters.stripe_catalogue import StripeCatalogue
from payments.adapters.stripe_client import PAGE
from payments.adapters.stripe_errors import describe, is_missing, read_refused_charge
from payments.adapters.stripe_events import StripeEventList
from payments.adapters.stripe_methods import StripeMethods
from payments.adapters.stripe_objects import read_intent
from payments.adapters.stripe_refunds import StripeRefunds
from payments.domain.payment import Outcome, Payment, PaymentStatus
from payments.ports import PaymentMethod, UnknownOutcomeError
from runtime.settings import InvalidSettingsError, Settings


class StripeProvider(StripeRefunds, StripeActions, StripeEventList, StripeMethods, StripeCatalogue):
    """Implements `PaymentProvider` and, by its parts, every other port of a provider."""

    async def charge(self, payment: Payment, method: PaymentMethod, description: str) -> Outcome:
        """Create and confirm a PaymentIntent off session, with the payment's id as idempotency key."""
        units = to_stripe_amount(payment.amount)
        if units is None:
            reason = f"Stripe takes no fraction of {payment.amount.currency}: {payment.amount}"
            return Outcome(PaymentStatus.FAILED, None, None, "amount_not_chargeable", reason)
        parameters: dict[str, Any] = {
            "amount": units,
            "currency": payment.amount.currency.lower(),
            "customer": method.customer_reference,
            "payment_method": method.method_reference,
            "confirm": True,
            "off_session": True,
            **self._methods(),
            "description": description,
            "metadata": {
                "invoice_id": payment.invoice_id,
                "payment_id": payment.payment_id,
                "tenant_id": payment.tenant_id,
            },
        }
        try:
            intent = await self._client.v1.payment_intents.create_async(
                parameters,  # type: ignore[arg-type]
                {"idempotency_key": payment.payment_id},
            )
        except stripe.StripeError as error:
            return read_refused_charge(error)
        return _read(intent)

    def _methods(self) -> dict[str, Any]:
        if self._return_url is None:
            # Nobody could be sent anywhere.
            return {"automatic_payment_methods": {"enabled": True, "allow_redirects": "never"}}
        # Page "Set up future payments", charge later: the address is used if the payer has to authenticate.
        return {"automatic_payment_methods": {"enabled": True}, "return_url": self._return_url}

    async def find_charge(self, payment: Payment, method: PaymentMethod) -> Outcome | None:
        """Find the customer's PaymentIntent with our payment id; the list is consistent, unlike Stripe's search."""
        started_at = int(payment.created_at.timestamp()) - 3_600
        try:
            if payment.provider_reference is not None:
                return _read(await self._client.v1.payment_intents.retrieve_async(payment.provider_reference))
            found = await self._client.v1.payment_intents.list_async(
                {"customer": method.customer_reference, "created": {"gte": started_at}, "limit": PAGE}
            )
            async for intent in found.auto_paging_iter():
                metadata = intent.to_dict().get("metadata") or {}
                if metadata.get("payment_id") == payment.payment_id:
                    return _read(intent)
        except stripe.StripeError as error:
            if is_missing(error):
                # A customer that does not exist has no charge.
                return None
            raise UnknownOutcomeError(f"cannot look the charge up: {describe(error)}") from error
        return None


def create_stripe_provider(settings: Settings) -> StripeProvider:
    """Build the provider from the settings; raises `InvalidSettingsError` without an API key."""
    if settings.stripe_api_key is None:
        raise InvalidSettingsError(
            [Fault("missing_setting", "payments need Stripe's secret key", "METERBOOK_STRIPE_API_KEY")]
        )
    key = settings.stripe_api_key.get_secret_value()
    return StripeProvider(key, settings.stripe_api_base, return_url=settings.payment_return_url)


def _read(intent: stripe.PaymentIntent) -> Outcome:
    try:
        return read_intent(intent.to_dict())
    except (InvalidInputError, ValueError) as error:
        raise UnknownOutcomeError(f"Stripe's answer cannot be read: {error}") from error
