"""`meterbook tenant`: add and list tenants with their plans."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from core.clock import SystemClock
from core.errors import Fault, InvalidInputError
from core.period import format_instant
from rating.domain.subscription import Subscription
from rating.domain.timeline import Held
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings
from subscriptions.adapters.postgres import PostgresSubscriptionStore
from subscriptions.create_tenant import create_tenant
from subscriptions.domain.tenant import Tenant
from subscriptions.subscribe_tenant import subscribe_tenant
from subscriptions.update_tenant import update_tenant

app = typer.Typer(help="Tenants and the plans they are on.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def add(
    tenant_id: Annotated[str, typer.Argument(help="Letters, digits, . _ -; names the tenant in events for ever.")],
    name: Annotated[str, typer.Option(help="The name on the invoice.")],
    email: Annotated[str, typer.Option(help="Where invoices go.")],
    plan: Annotated[str, typer.Option(help="The plan, by its id in the catalogue.")],
    country: Annotated[str, typer.Option(help="ISO 3166 code, such as DE.")] = "US",
    currency: Annotated[str, typer.Option(help="ISO 4217 code; the plan must be priced in it.")] = "USD",
    address: Annotated[str, typer.Option(help="Lines separated by newlines or |.")] = "",
    override: Annotated[str, typer.Option(help="A contract's overrides: JSON, or a file with JSON.")] = "{}",
    started: Annotated[
        str | None, typer.Option(help="When the subscription starts (ISO 8601, UTC); today if not given.")
    ] = None,
    time_zone: Annotated[str, typer.Option(help="IANA name, such as Europe/Berlin; decides days and months.")] = "UTC",
    billing_anchor_day: Annotated[
        int, typer.Option(help="Day of the month on which billing periods begin, 1 to 31.")
    ] = 1,
    state: Annotated[str, typer.Option(help="State or province, without the country: CA.")] = "",
    postal_code: Annotated[str, typer.Option(help="Postal code.")] = "",
    consumer: Annotated[bool, typer.Option("--consumer", help="Buys as a private person.")] = False,
    vat_number: Annotated[str, typer.Option(help="VAT number; its form is checked now, its use by VIES later.")] = "",
    tax_exempt: Annotated[str, typer.Option(help="Why no tax is charged, as it stands on invoices.")] = "",
    tax_exempt_code: Annotated[str, typer.Option(help="The exemption's VATEX code, if it has one.")] = "",
    language: Annotated[str, typer.Option(help="Of its documents: en, es, pt or de.")] = "en",
    as_json: AsJson = False,
) -> None:
    """Create a tenant and subscribe it to a plan; doing so twice changes nothing."""
    lines = address.replace("|", "\n")
    tenant = Tenant(
        tenant_id=tenant_id,
        name=name,
        email=email,
        country=country,
        currency=currency,
        address=lines,
        time_zone=time_zone,
        billing_anchor_day=billing_anchor_day,
        state=state,
        postal_code=postal_code,
        is_business=not consumer,
        vat_number=vat_number,
        tax_exempt=tax_exempt,
        tax_exempt_code=tax_exempt_code,
        language=language,
    )
    started_at = _read_start(started)
    subscription, is_new = asyncio.run(
        add_tenant(load_settings(), tenant, plan, overrides=read_overrides(override), started_at=started_at)
    )
    if as_json:
        typer.echo(json.dumps({**_as_document(tenant, [subscription]), "new": is_new}))
        return
    version = f"{subscription.plan_id} version {subscription.plan_version}"
    typer.echo(
        f"{tenant_id}: {version} since {format_instant(subscription.started_at)}{'' if is_new else ' (as before)'}"
    )


@app.command()
def update(
    tenant_id: Annotated[str, typer.Argument(help="The tenant.")],
    name: Annotated[str | None, typer.Option(help="The name on the invoice.")] = None,
    email: Annotated[str | None, typer.Option(help="Where invoices go.")] = None,
    country: Annotated[str | None, typer.Option(help="ISO 3166 code, such as DE.")] = None,
    address: Annotated[str | None, typer.Option(help="Lines separated by newlines or |.")] = None,
    state: Annotated[str | None, typer.Option(help="State or province, without the country: CA.")] = None,
    postal_code: Annotated[str | None, typer.Option(help="Postal code.")] = None,
    business: Annotated[bool | None, typer.Option("--business/--consumer", help="How the tenant buys.")] = None,
    vat_number: Annotated[str | None, typer.Option(help='VAT number; "" takes it away.')] = None,
    tax_exempt: Annotated[str | None, typer.Option(help='Why no tax is charged; "" ends the exemption.')] = None,
    tax_exempt_code: Annotated[str | None, typer.Option(help="The exemption's VATEX code.")] = None,
    language: Annotated[str | None, typer.Option(help="Of its documents: en, es, pt or de.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a tenant's particulars; invoices that were issued keep the old ones."""
    given = {
        "name": name,
        "email": email,
        "country": country,
        "address": None if address is None else address.replace("|", "\n"),
        "state": state,
        "postal_code": postal_code,
        "is_business": business,
        "vat_number": vat_number,
        "tax_exempt": tax_exempt,
        "tax_exempt_code": tax_exempt_code,
        "language": language,
    }
    changes = {field: value for field, value in given.items() if value is not None}
    tenant = asyncio.run(change_tenant(load_settings(), tenant_id, changes))
    typer.echo(json.dumps(asdict(tenant)) if as_json else f"{tenant_id}: {', '.join(changes) or 'nothing'} changed")


@app.command(name="list")
def list_tenants(as_json: AsJson = False) -> None:
    """List all tenants with their plans."""
    found = asyncio.run(read_tenants(load_settings()))
    if as_json:
        typer.echo(json.dumps([_as_document(tenant, subscriptions) for tenant, subscriptions in found]))
        return
    for tenant, subscriptions in found:
        held = [_held_now(one) for one in subscriptions if _is_open(one)]
        plan = ", ".join(f"{one.plan_id} v{one.plan_version}" for one in held) or "no plan"
        typer.echo(f"{tenant.tenant_id:<24} {plan:<32} {tenant.currency} {tenant.country} {tenant.name}")


async def add_tenant(
    settings: Settings, tenant: Tenant, plan_id: str, *, overrides: dict[str, Any], started_at: datetime
) -> tuple[Subscription, bool]:
    """Create the tenant and its subscription, both or neither; tells whether the subscription is new."""
    async with create_pool(settings, max_size=1) as pool, pool.connection() as connection, connection.transaction():
        store = PostgresSubscriptionStore(connection)
        await create_tenant(tenant, store=store, now=SystemClock().now())
        return await subscribe_tenant(
            tenant.tenant_id, plan_id, overrides=overrides, started_at=started_at, store=store, clock=SystemClock()
        )


async def change_tenant(settings: Settings, tenant_id: str, changes: Mapping[str, object]) -> Tenant:
    """Change a tenant's particulars in a transaction of its own."""
    async with create_pool(settings, max_size=1) as pool, pool.connection() as connection, connection.transaction():
        return await update_tenant(tenant_id, changes, store=PostgresSubscriptionStore(connection))


async def read_tenants(settings: Settings) -> list[tuple[Tenant, list[Subscription]]]:
    """Return all tenants with their subscriptions."""
    async with create_pool(settings, max_size=1) as pool, pool.connection() as connection:
        return await PostgresSubscriptionStore(connection).tenants()


def read_overrides(text: str) -> dict[str, Any]:
    """Read overrides from JSON or from a file; raises `InvalidInputError` (`invalid_json`, `unreadable_file`)."""
    if not text.lstrip().startswith("{"):
        try:
            text = Path(text).read_text()
        except (OSError, ValueError) as error:
            raise InvalidInputError([Fault("unreadable_file", str(error), "override")]) from None
    try:
        overrides = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError([Fault("invalid_json", str(error), "override")]) from None
    if not isinstance(overrides, dict):
        raise InvalidInputError([Fault("invalid_type", "expected a JSON object", "override")])
    return overrides


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError(f"a key stands twice among {', '.join(name for name, _ in pairs)}")
    return dict(pairs)


def _read_start(text: str | None) -> datetime:
    if text is None:
        return SystemClock().now().replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            [Fault("invalid_time", f"expected 2026-10-01 or ISO 8601, got {text!r}", "started")]
        ) from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _is_open(subscription: Subscription) -> bool:
    ended_at = subscription.ended_at
    return bool(subscription.timeline().phases) and (ended_at is None or ended_at > SystemClock().now())


def _held_now(subscription: Subscription) -> Held:
    """Return what is held now; before the start, what it will begin with."""
    return subscription.timeline().at(SystemClock().now()) or subscription.start.held


def _as_document(tenant: Tenant, subscriptions: list[Subscription]) -> dict[str, Any]:
    open_ones = [one for one in subscriptions if _is_open(one)]
    first = open_ones[0] if open_ones else None
    return {
        "tenant_id": tenant.tenant_id,
        "name": tenant.name,
        "email": tenant.email,
        "country": tenant.country,
        "currency": tenant.currency,
        "time_zone": tenant.time_zone,
        "billing_anchor_day": tenant.billing_anchor_day,
        "state": tenant.state,
        "postal_code": tenant.postal_code,
        "is_business": tenant.is_business,
        "vat_number": tenant.vat_number,
        "tax_exempt": tenant.tax_exempt,
        "tax_exempt_code": tenant.tax_exempt_code,
        "language": tenant.language,
        "subscription_id": first.subscription_id if first else None,
        "plan_id": _held_now(first).plan_id if first else None,
        "plan_version": _held_now(first).plan_version if first else None,
        "started_at": format_instant(first.started_at) if first else None,
        "subscriptions": [one.subscription_id for one in open_ones],
    }
