"""Opens the payment providers that are set up. Owns which settings make which provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from core.errors import Fault
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


@asynccontextmanager
async def open_providers(settings: Settings) -> AsyncIterator[Providers]:
    """Open what is set up, close it at the end; raises `InvalidSettingsError` if nothing is."""
    if settings.stripe_api_key is None:
        raise InvalidSettingsError(
            [Fault("missing_setting", "payments need Stripe's secret key", "METERBOOK_STRIPE_API_KEY")]
        )
    stripe = create_stripe_provider(settings)
    try:
        yield Providers(stripe, {stripe.name: stripe}, (stripe,), (stripe,))
    finally:
        await stripe.close()


# How far back the first sweep of a provider's events goes.
EVENT_HISTORY = {StripeProvider.name: STRIPE_EVENTS_KEPT}
