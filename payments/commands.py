"""Commands of payments: how tenants pay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Sequence
from typing import Annotated, Any, TypeVar

import typer

from core.clock import SystemClock
from core.errors import Fault, InvalidInputError, MeterbookError
from payments.adapters.paypal_provider import BY_APPROVAL, PayPalProvider, create_paypal_provider
from payments.adapters.postgres_store import PostgresPayments
from payments.adapters.stripe_provider import StripeProvider, create_stripe_provider
from payments.begin_method_setup import begin_method_setup, list_saved_methods
from payments.domain.card_data import refuse_card_numbers
from payments.method_ports import MethodSetup, SavedMethod
from payments.ports import PaymentMethod
from payments.set_payment_method import set_payment_method
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings

app = typer.Typer(help="How tenants pay: saved methods at the payment provider, never card data.", no_args_is_help=True)
T = TypeVar("T")


@app.command("set")
def set_method(
    tenant: Annotated[str, typer.Argument(help="The tenant's id.")],
    method: Annotated[
        str | None, typer.Option(help="The provider's id of the method, such as pm_card_visa; none for paypal.")
    ] = None,
    provider: Annotated[str, typer.Option(help="Who takes the money: stripe or paypal.")] = "stripe",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Save a payment method for a tenant; its customer at the provider is made on first use."""
    saved = _run(_set_method(load_settings(), tenant, provider, method))
    if as_json:
        fields = ("tenant_id", "provider", "customer_reference", "method_reference")
        typer.echo(json.dumps({name: getattr(saved, name) for name in fields}))
    else:
        typer.echo(
            f"{saved.tenant_id} pays by {saved.provider}: {saved.method_reference} of {saved.customer_reference}"
        )


@app.command("setup")
def begin_setup(
    tenant: Annotated[str, typer.Argument(help="The tenant's id.")],
    key: Annotated[str, typer.Option(help="Names this request: the same key begins the same set-up.")],
    kind: Annotated[list[str] | None, typer.Option(help="Such as card, sepa_debit; any offered without it.")] = None,
) -> None:
    """Begin to save a method in Stripe's own form; prints what opens the form in the payer's browser."""
    setup = _run(_begin_setup(load_settings(), tenant, tuple(kind or ()), key))
    typer.echo(json.dumps({"setup": setup.reference, "client_secret": setup.client_secret}))


@app.command("list")
def list_methods(tenant: Annotated[str, typer.Argument(help="The tenant's id.")]) -> None:
    """Print the methods that Stripe has saved for a tenant."""
    for method in _run(_list_methods(load_settings(), tenant)):
        expires = f", until {method.expires}" if method.expires else ""
        typer.echo(f"{method.reference}  {method.kind} {method.brand} ending in {method.last4}{expires}")


async def _begin_setup(settings: Settings, tenant: str, kinds: Sequence[str], key: str) -> MethodSetup:
    stripe = create_stripe_provider(settings)
    try:
        async with create_pool(settings, max_size=1) as pool:
            return await begin_method_setup(tenant, kinds, key, payers=PostgresPayments(pool), registrar=stripe)
    finally:
        await stripe.close()


async def _list_methods(settings: Settings, tenant: str) -> Sequence[SavedMethod]:
    stripe = create_stripe_provider(settings)
    try:
        async with create_pool(settings, max_size=1) as pool:
            return await list_saved_methods(tenant, payers=PostgresPayments(pool), registrar=stripe)
    finally:
        await stripe.close()


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except MeterbookError as error:
        # Faults name their own codes.
        typer.echo(str(error) if isinstance(error, InvalidInputError) else f"{error} [{error.code}]", err=True)
        raise typer.Exit(1) from None


async def _set_method(settings: Settings, tenant: str, provider: str, method: str | None) -> PaymentMethod:
    refuse_card_numbers({"method": method or "", "tenant": tenant})
    registrar: StripeProvider | PayPalProvider
    if provider == PayPalProvider.name:
        # Nothing is saved there: the payer approves each invoice.
        method = method or BY_APPROVAL
        registrar = create_paypal_provider(settings, SystemClock())
    elif provider == StripeProvider.name:
        registrar = create_stripe_provider(settings)
    else:
        reason = f"expected stripe or paypal, got {provider!r}"
        raise InvalidInputError([Fault("unknown_provider", reason, "--provider")])
    try:
        if method is None:
            raise InvalidInputError([Fault("missing_method", "Stripe needs the id of a method", "--method")])
        async with create_pool(settings, max_size=1) as pool:
            store = PostgresPayments(pool)
            return await set_payment_method(tenant, method, store=store, registrar=registrar, clock=SystemClock())
    finally:
        await registrar.close()
