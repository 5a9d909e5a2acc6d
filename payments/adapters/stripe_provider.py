"""Stripe behind the ports, through the `stripe` library. Owns which of its errors leave the outcome unknown."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

import stripe

from core.errors import Fault, InvalidInputError, UnavailableError
from core.ids import derive_id
from payments.adapters.stripe_intent import read_error, read_intent, to_stripe_amount
from payments.adapters.stripe_transport import Httpx2Client
from payments.domain.payment import AUTHENTICATION_REQUIRED, Outcome, Payment, PaymentStatus
from payments.ports import ExhaustedKeyError, Payer, PaymentMethod, UnknownOutcomeError
from runtime.settings import InvalidSettingsError, Settings

_TIMEOUT_SECONDS = 15.0
_PAGE = 100


class StripeProvider:
    """Implements `PaymentProvider` and `CustomerRegistrar`."""

    name: ClassVar[str] = "stripe"

    def __init__(self, api_key: str, api_base: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._transport = Httpx2Client(timeout_seconds)
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": api_base.rstrip("/")},
            http_client=self._transport,
            # The caller repeats with the same key and looks up first; two layers of retries would only hide that.
            max_network_retries=0,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close_async()

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
            # Nobody is there to follow a redirect.
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
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
            return _read_refusal(error)
        return _read(intent)

    async def find_charge(self, payment: Payment, method: PaymentMethod) -> Outcome | None:
        """Find the customer's PaymentIntent with our payment id; the list is consistent, unlike Stripe's search."""
        started_at = int(payment.created_at.timestamp()) - 3_600
        try:
            found = await self._client.v1.payment_intents.list_async(
                {"customer": method.customer_reference, "created": {"gte": started_at}, "limit": _PAGE}
            )
            async for intent in found.auto_paging_iter():
                metadata = intent.to_dict().get("metadata") or {}
                if metadata.get("payment_id") == payment.payment_id:
                    return _read(intent)
        except stripe.StripeError as error:
            if isinstance(error, stripe.InvalidRequestError) and error.code == "resource_missing":
                # A customer that does not exist has no charge.
                return None
            raise UnknownOutcomeError(f"cannot look the charge up: {_describe(error)}") from error
        return None

    async def create_customer(self, payer: Payer) -> str:
        """Create the tenant's customer; the same tenant, name and e-mail give the same customer."""
        try:
            customer = await self._client.v1.customers.create_async(
                {"name": payer.name, "email": payer.email, "metadata": {"tenant_id": payer.tenant_id}},
                {"idempotency_key": derive_id("customer", payer.tenant_id, payer.name, payer.email)},
            )
        except stripe.StripeError as error:
            _refuse(error)
        return customer.id

    async def attach_method(self, tenant_id: str, customer_reference: str, method: str) -> str:
        """Attach a PaymentMethod to the customer and return its own id."""
        try:
            attached = await self._client.v1.payment_methods.attach_async(
                method,
                {"customer": customer_reference},
                {"idempotency_key": derive_id("attach", tenant_id, customer_reference, method)},
            )
        except stripe.StripeError as error:
            _refuse(error)
        return attached.id


def create_stripe_provider(settings: Settings) -> StripeProvider:
    """Build the provider from the settings; raises `InvalidSettingsError` without an API key."""
    if settings.stripe_api_key is None:
        raise InvalidSettingsError(
            [Fault("missing_setting", "payments need Stripe's secret key", "METERBOOK_STRIPE_API_KEY")]
        )
    return StripeProvider(settings.stripe_api_key.get_secret_value(), settings.stripe_api_base)


def _read(intent: stripe.PaymentIntent) -> Outcome:
    try:
        return read_intent(intent.to_dict())
    except (InvalidInputError, ValueError) as error:
        raise UnknownOutcomeError(f"Stripe's answer cannot be read: {error}") from error


def _read_refusal(error: stripe.StripeError) -> Outcome:
    """Return the outcome of a charge that Stripe refused, or raise if the refusal leaves it open."""
    status = error.http_status
    if status is not None and status >= 500 and _is_replayed(error):
        raise ExhaustedKeyError(f"Stripe repeats a stored error for this key: {_describe(error)}") from error
    if isinstance(error, stripe.CardError):
        return _read_decline(error)
    if isinstance(error, stripe.InvalidRequestError) and status is not None and 400 <= status < 500 and status != 409:
        code, reason = read_error(_error_object(error))
        return Outcome(PaymentStatus.FAILED, None, None, code or "invalid_request", reason or _describe(error))
    # Timeouts, cut connections, 5xx, 409 (our first request still runs), 429, a wrong key of ours (401, 403), and
    # other parameters under our key (the tenant's method changed meanwhile): nothing is known of the charge.
    raise UnknownOutcomeError(_describe(error)) from error


def _read_decline(error: stripe.CardError) -> Outcome:
    body = _error_object(error)
    code, reason = read_error(body)
    intent = body.get("payment_intent")
    reference = intent.get("id") if isinstance(intent, dict) else None
    waits = code == AUTHENTICATION_REQUIRED
    return Outcome(PaymentStatus.REQUIRES_ACTION if waits else PaymentStatus.FAILED, reference, None, code, reason)


def _refuse(error: stripe.StripeError) -> NoReturn:
    if isinstance(error, stripe.CardError | stripe.InvalidRequestError):
        code, reason = read_error(_error_object(error))
        raise InvalidInputError([Fault(code or "refused_by_provider", reason or _describe(error))]) from error
    raise UnavailableError(f"Stripe: {_describe(error)}") from error


def _error_object(error: stripe.StripeError) -> dict[str, Any]:
    body = error.json_body
    found = body.get("error") if isinstance(body, dict) else None
    return found if isinstance(found, dict) else {}


def _is_replayed(error: stripe.StripeError) -> bool:
    # API reference, "Idempotent requests": a stored result comes back with this header.
    headers = {str(name).lower(): str(value).lower() for name, value in dict(error.headers or {}).items()}
    return headers.get("idempotent-replayed") == "true"


def _describe(error: stripe.StripeError) -> str:
    return f"{type(error).__name__} {error.http_status or 'without an answer'}: {error.user_message or error}"[:300]
