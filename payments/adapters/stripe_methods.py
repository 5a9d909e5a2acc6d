"""Customers and saved methods at Stripe. Source: API reference, "Customers", "SetupIntents", "PaymentMethods".

Card and bank data are entered in Stripe's own form with the client secret; here are only references, brand and last
four digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import stripe

from core.ids import derive_id
from payments.adapters.stripe_client import PAGE, StripeAccount
from payments.adapters.stripe_errors import refuse
from payments.method_ports import MethodSetup, SavedMethod
from payments.ports import Payer

# Page "Payment methods": those that can be saved and charged later without the payer; wallets are saved as cards.
SETUP_KINDS = ("acss_debit", "au_becs_debit", "bacs_debit", "card", "link", "sepa_debit", "us_bank_account")


class StripeMethods(StripeAccount):
    """Implements `payments.ports.CustomerRegistrar` and `payments.method_ports.MethodRegistrar`."""

    async def create_customer(self, payer: Payer) -> str:
        """Create the tenant's customer; the same tenant, name and e-mail give the same customer."""
        try:
            customer = await self._client.v1.customers.create_async(
                {"name": payer.name, "email": payer.email, "metadata": {"tenant_id": payer.tenant_id}},
                {"idempotency_key": derive_id("customer", payer.tenant_id, payer.name, payer.email)},
            )
        except stripe.StripeError as error:
            refuse(error)
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
            refuse(error)
        return attached.id

    async def begin_setup(
        self, tenant_id: str, customer_reference: str, kinds: Sequence[str], request_key: str
    ) -> MethodSetup:
        """Create a SetupIntent for later charges without the payer; without `kinds` whatever the account offers."""
        parameters: dict[str, Any] = {
            "customer": customer_reference,
            "usage": "off_session",
            "metadata": {"tenant_id": tenant_id},
        }
        if kinds:
            parameters["payment_method_types"] = list(kinds)
        else:
            parameters["automatic_payment_methods"] = {"enabled": True}
        try:
            setup = await self._client.v1.setup_intents.create_async(
                parameters,  # type: ignore[arg-type]
                {"idempotency_key": derive_id("setup", tenant_id, request_key)},
            )
        except stripe.StripeError as error:
            refuse(error)
        return MethodSetup(setup.id, setup.client_secret or "")

    async def detach_method(self, method: str) -> None:
        """Detach a PaymentMethod from its customer (API reference, "Detach a PaymentMethod")."""
        try:
            await self._client.v1.payment_methods.detach_async(method)
        except stripe.StripeError as error:
            refuse(error)

    async def list_methods(self, customer_reference: str) -> Sequence[SavedMethod]:
        """Return the customer's saved methods, the newest first."""
        try:
            page = await self._client.v1.customers.payment_methods.list_async(customer_reference, {"limit": PAGE})
            return [_read_method(method.to_dict()) async for method in page.auto_paging_iter()]
        except stripe.StripeError as error:
            refuse(error)


def _read_method(method: Mapping[str, Any]) -> SavedMethod:
    kind = str(method["type"])
    details = method.get(kind) or {}
    expires = f"{details['exp_year']}-{details['exp_month']:02d}" if details.get("exp_year") else None
    brand = details.get("brand") or details.get("bank_name") or details.get("bank_code") or details.get("country")
    return SavedMethod(str(method["id"]), kind, str(brand or ""), str(details.get("last4") or ""), expires)
