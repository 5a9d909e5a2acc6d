"""Opens the payment providers that are set up. Owns which settings make which provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from core.clock import SystemClock
from core.errors import Fault
from payments.adapters.paypal_provider import EVENTS_KEPT as PAYPAL_EVENTS_KEPT
from payments.adapters.paypal_provider import PayPalProvider, create_paypal_provider, has_paypal
from payments.adapters.stripe_events import EVENTS_KEPT as STRIPE_EVENTS_KEPT
from payments.adapters.stripe_provider import StripeProvider, create_stripe_provider
from payments.ports import ActionProvider, EventSource, PaymentProvider
from runtime.settings import InvalidSettingsError, Settings


@dataclass(frozen=True, slots=True)
class Providers:
    """The providers by name, and what each of them can do besides charging and refunding."""

    stripe: StripeProvider | None = None
    charging: dict[str, PaymentProvider] = field(default_factory=dict)
    with_actions: tuple[ActionProvider, ...] = ()
    event_sources: tuple[EventSource, ...] = ()
    # How long a provider lets its payers act at most, where it has a limit of its own.
    action_limits: dict[str, timedelta] = field(default_factory=dict)


@asynccontextmanager
async def open_providers(settings: Settings) -> AsyncIterator[Providers]:
    """Open what is set up, close it at the end; raises `InvalidSettingsError` if nothing is."""
    async with AsyncExitStack() as stack:
        opened: list[StripeProvider | PayPalProvider] = []
        stripe = None
        if settings.stripe_api_key is not None:
            stripe = create_stripe_provider(settings)
            stack.push_async_callback(stripe.close)
            opened.append(stripe)
        if has_paypal(settings):
            paypal = create_paypal_provider(settings, SystemClock())
            stack.push_async_callback(paypal.close)
            opened.append(paypal)
        if not opened:
            reason = "payments need Stripe's secret key, or PayPal's client id"
            raise InvalidSettingsError([Fault("missing_setting", reason, "METERBOOK_STRIPE_API_KEY")])
        limits = {PayPalProvider.name: timedelta(hours=settings.paypal_approval_hours)}
        yield Providers(stripe, {provider.name: provider for provider in opened}, tuple(opened), tuple(opened), limits)


# How far back the first sweep of a provider's events goes.
EVENT_HISTORY = {StripeProvider.name: STRIPE_EVENTS_KEPT, PayPalProvider.name: PAYPAL_EVENTS_KEPT}
