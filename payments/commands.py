"""Commands of payments: how tenants pay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, TypeVar

import typer

from core.errors import InvalidInputError, MeterbookError
from payments.method_desk import MethodDesk, open_method_desk
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
    saved = _run(_at_desk(load_settings(), lambda desk: desk.set_method(tenant, provider, method)))
    if as_json:
        typer.echo(json.dumps(saved))
        return
    of = f"{saved['method_reference']} of {saved['customer_reference']}"
    typer.echo(f"{saved['tenant_id']} pays by {saved['provider']}: {of}")


@app.command("setup")
def begin_setup(
    tenant: Annotated[str, typer.Argument(help="The tenant's id.")],
    key: Annotated[str, typer.Option(help="Names this request: the same key begins the same set-up.")],
    kind: Annotated[list[str] | None, typer.Option(help="Such as card, sepa_debit; any offered without it.")] = None,
) -> None:
    """Begin to save a method in Stripe's own form; prints what opens the form in the payer's browser."""
    setup = _run(_at_desk(load_settings(), lambda desk: desk.begin_setup(tenant, tuple(kind or ()), key=key)))
    typer.echo(json.dumps(setup))


@app.command("list")
def list_methods(
    tenant: Annotated[str, typer.Argument(help="The tenant's id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Print what a tenant can pay by."""
    found = _run(_at_desk(load_settings(), lambda desk: desk.list_methods(tenant)))
    if as_json:
        typer.echo(json.dumps(found))
        return
    for method in found:
        ending = f" ending in {method['last4']}" if method["last4"] else ""
        expires = f", until {method['expires']}" if method["expires"] else ""
        default = "  (default)" if method["is_default"] else ""
        typer.echo(f"{method['method']}  {method['kind']} {method['brand']}{ending}{expires}{default}")


@app.command("remove")
def remove_method(
    tenant: Annotated[str, typer.Argument(help="The tenant's id.")],
    method: Annotated[str, typer.Argument(help="The provider's id of the method, as `list` prints it.")],
    provider: Annotated[str, typer.Option(help="Where it is saved: stripe or paypal.")] = "stripe",
) -> None:
    """Take a saved method away; the default only when it is the last one."""
    _run(_at_desk(load_settings(), lambda desk: desk.remove_method(tenant, provider, method)))
    typer.echo(f"{tenant}: {method} is removed")


async def _at_desk(settings: Settings, ask: Callable[[MethodDesk], Awaitable[T]]) -> T:
    async with create_pool(settings, max_size=1) as pool, open_method_desk(settings, pool) as desk:
        return await ask(desk)


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except MeterbookError as error:
        # Faults name their own codes.
        typer.echo(str(error) if isinstance(error, InvalidInputError) else f"{error} [{error.code}]", err=True)
        raise typer.Exit(1) from None
