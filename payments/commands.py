"""Commands of payments: how tenants pay."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from core.clock import SystemClock
from core.errors import Fault, InvalidInputError, MeterbookError
from payments.adapters.postgres_store import PostgresPayments
from payments.adapters.stripe_provider import create_stripe_provider
from payments.ports import PaymentMethod
from payments.set_payment_method import set_payment_method
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings

app = typer.Typer(help="How tenants pay: saved methods at the payment provider, never card data.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `set` a command of its own even while it is the only one."""


@app.command("set")
def set_method(
    tenant: Annotated[str, typer.Argument(help="The tenant's id.")],
    method: Annotated[str, typer.Option(help="The provider's id of the method, such as pm_card_visa.")],
    provider: Annotated[str, typer.Option(help="Who takes the money.")] = "stripe",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Save a payment method for a tenant; its customer at the provider is made on first use."""
    try:
        saved = asyncio.run(_set_method(load_settings(), tenant, provider, method))
    except MeterbookError as error:
        # Faults name their own codes.
        typer.echo(str(error) if isinstance(error, InvalidInputError) else f"{error} [{error.code}]", err=True)
        raise typer.Exit(1) from None
    if as_json:
        fields = ("tenant_id", "provider", "customer_reference", "method_reference")
        typer.echo(json.dumps({name: getattr(saved, name) for name in fields}))
    else:
        typer.echo(
            f"{saved.tenant_id} pays by {saved.provider}: {saved.method_reference} of {saved.customer_reference}"
        )


async def _set_method(settings: Settings, tenant: str, provider: str, method: str) -> PaymentMethod:
    if provider != "stripe":
        raise InvalidInputError([Fault("unknown_provider", f"expected stripe, got {provider!r}", "--provider")])
    stripe = create_stripe_provider(settings)
    try:
        async with create_pool(settings, max_size=1) as pool:
            store = PostgresPayments(pool)
            return await set_payment_method(tenant, method, store=store, registrar=stripe, clock=SystemClock())
    finally:
        await stripe.close()
