"""What the HTTP API and the commands ask of saved methods, at the providers that are set up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from core.clock import Clock, SystemClock
from core.errors import Fault, InvalidInputError, NotFoundError, UnavailableError
from payments.adapters.paypal_provider import BY_APPROVAL, PayPalProvider, create_paypal_provider, has_paypal
from payments.adapters.postgres_store import PostgresPayments
from payments.adapters.stripe_provider import StripeProvider, create_stripe_provider
from payments.begin_method_setup import Registrar, begin_method_setup, list_saved_methods
from payments.domain.card_data import refuse_card_numbers
from payments.method_ports import SavedMethod
from payments.ports import PaymentMethod
from payments.remove_payment_method import remove_payment_method
from payments.set_payment_method import set_payment_method
from runtime.postgres import Pool
from runtime.settings import Settings

PROVIDERS = (StripeProvider.name, PayPalProvider.name)


class MethodDesk:
    """Implements `api.ports.MethodDesk`; `registrars` are the providers by name."""

    def __init__(self, pool: Pool, registrars: Mapping[str, Registrar], clock: Clock) -> None:
        self._store, self._registrars, self._clock = PostgresPayments(pool), registrars, clock

    async def list_methods(self, tenant_id: str) -> list[dict[str, Any]]:
        """Return what the tenant can pay by, at all providers; raises `NotFoundError` for an unknown tenant."""
        await self._check_tenant(tenant_id)
        default = await self._default(tenant_id)
        return [
            method_fields(name, method, default)
            for name, registrar in self._registrars.items()
            for method in await list_saved_methods(tenant_id, payers=self._store, registrar=registrar)
        ]

    async def begin_setup(self, tenant_id: str, kinds: Sequence[str], *, key: str) -> dict[str, Any]:
        """Return what opens the provider's own form in the payer's browser; the same key begins the same."""
        stripe = self._registrar(StripeProvider.name)
        setup = await begin_method_setup(tenant_id, kinds, key, payers=self._store, registrar=stripe)
        return {"setup": setup.reference, "client_secret": setup.client_secret}

    async def set_method(self, tenant_id: str, provider: str, method: str | None) -> dict[str, Any]:
        """Save a method that the provider holds and pay by it from now on; what is so already stays as it is."""
        refuse_card_numbers({"method": method or "", "tenant": tenant_id})
        registrar = self._registrar(provider)
        if method is None and provider != PayPalProvider.name:
            raise InvalidInputError([Fault("missing_method", "Stripe needs the id of a method", "method")])
        wanted = method or BY_APPROVAL
        default = await self._default(tenant_id)
        if default is None or (default.provider, default.method_reference) != (provider, wanted):
            default = await set_payment_method(
                tenant_id, wanted, store=self._store, registrar=registrar, clock=self._clock
            )
        return {
            "tenant_id": default.tenant_id,
            "provider": default.provider,
            "customer_reference": default.customer_reference,
            "method_reference": default.method_reference,
        }

    async def remove_method(self, tenant_id: str, provider: str, method: str) -> None:
        """Take a saved method away."""
        registrar = self._registrar(provider)
        await self._check_tenant(tenant_id)
        async with self._store.transaction() as unit:
            at_provider = await unit.method_at(tenant_id, provider)
        await remove_payment_method(tenant_id, method, default=at_provider, store=self._store, registrar=registrar)

    async def _check_tenant(self, tenant_id: str) -> None:
        if await self._store.find_payer(tenant_id) is None:
            raise NotFoundError(f"no tenant {tenant_id!r}")

    async def _default(self, tenant_id: str) -> PaymentMethod | None:
        async with self._store.transaction() as unit:
            return await unit.payment_method(tenant_id)

    def _registrar(self, provider: str) -> Registrar:
        if provider not in PROVIDERS:
            reason = f"expected {' or '.join(PROVIDERS)}, got {provider[:40]!r}"
            raise InvalidInputError([Fault("unknown_provider", reason, "provider")])
        if provider not in self._registrars:
            raise UnavailableError(f"{provider} is not set up here")
        return self._registrars[provider]


def method_fields(provider: str, method: SavedMethod, default: PaymentMethod | None) -> dict[str, Any]:
    """Return a saved method as JSON shows it; `is_default` is what invoices are paid by."""
    in_use = default is not None and (default.provider, default.method_reference) == (provider, method.reference)
    return {
        "provider": provider,
        "method": method.reference,
        "kind": method.kind,
        "brand": method.brand,
        "last4": method.last4,
        "expires": method.expires,
        "is_default": in_use,
    }


@asynccontextmanager
async def open_method_desk(settings: Settings, pool: Pool) -> AsyncIterator[MethodDesk]:
    """Open the desk at the providers that the settings set up; without one, only what is stored can be asked."""
    async with AsyncExitStack() as stack:
        registrars: dict[str, Registrar] = {}
        key = settings.stripe_methods_key or settings.stripe_api_key
        if key is not None:
            stripe = create_stripe_provider(settings.model_copy(update={"stripe_api_key": key}))
            stack.push_async_callback(stripe.close)
            registrars[stripe.name] = stripe
        if has_paypal(settings):
            paypal = create_paypal_provider(settings, SystemClock())
            stack.push_async_callback(paypal.close)
            registrars[paypal.name] = paypal
        yield MethodDesk(pool, registrars, SystemClock())
