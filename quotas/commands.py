"""`meterbook entitlements` and `meterbook grants`: what tenants may use, for people at a terminal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, TypeVar
from uuid import uuid4

import typer

from core.clock import Clock, SystemClock
from core.errors import Fault, InvalidInputError
from core.ids import derive_id
from core.meters import Registry
from core.period import format_instant
from quotas.add_grant import add_grant
from quotas.desk import QuotaDesk, check_metered, open_quota_desk
from quotas.domain.entitlement import Entitlement, EntitlementPeriod, Feature, FeatureKind
from quotas.domain.grant import Grant, Recurrence
from quotas.domain.reservation import plain
from quotas.give_entitlement import give_entitlement
from quotas.ports import TenantBook
from runtime.postgres import create_pool
from runtime.registry import RegistryCache
from runtime.settings import Settings, load_settings

T = TypeVar("T")
entitlement_app = typer.Typer(help="Features, and what plans and tenants have of them.", no_args_is_help=True)
grant_app = typer.Typer(help="Amounts on top of a limit.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@entitlement_app.command()
def feature(
    feature_id: Annotated[str, typer.Argument(help="Letters, digits, . _ -")],
    kind: Annotated[str, typer.Option(help="metered, boolean or static.")],
    name: Annotated[str | None, typer.Option(help="For people; the id if not given.")] = None,
    meter: Annotated[str | None, typer.Option(help="What a metered feature counts.")] = None,
) -> None:
    """Add a feature, or give it another name."""
    if kind not in ("metered", "boolean", "static"):
        raise InvalidInputError([Fault("invalid_kind", "expected metered, boolean or static", "kind")])
    known: FeatureKind = kind  # type: ignore[assignment]

    async def work(desk: QuotaDesk, registry: Registry, clock: Clock) -> None:
        made = Feature(feature_id, name or feature_id, known, meter)
        await give_entitlement(made, None, books=desk.entitlements, clock=clock)

    _run(work)
    typer.echo(f"{feature_id}: {kind}")


@entitlement_app.command()
def give(
    feature_id: Annotated[str, typer.Argument(help="A feature, or a meter by its own name.")],
    tenant: Annotated[str | None, typer.Option(help="To this tenant ...")] = None,
    plan: Annotated[str | None, typer.Option(help="... or to all who are on this plan.")] = None,
    limit: Annotated[str | None, typer.Option(help="Metered: how much per period; none: no limit.")] = None,
    hard: Annotated[bool, typer.Option(help="Metered: stop what goes beyond, instead of only telling.")] = False,
    period: Annotated[
        str, typer.Option(help="Metered: month, billing, year, or rolling:24h (1 to 744 hours).")
    ] = "month",
    value: Annotated[str | None, typer.Option(help="Boolean: true or false; static: any JSON.")] = None,
) -> None:
    """Give a feature to a tenant or a plan, in place of what it had."""
    kind, hours = _read_period(period)

    async def work(desk: QuotaDesk, registry: Registry, clock: Clock) -> None:
        known = await _find_feature(desk, registry, feature_id)
        given = Entitlement(
            known,
            "tenant" if tenant is not None else "plan",
            None if limit is None else _decimal(limit, "limit"),
            hard,
            kind,
            hours,
            None if value is None else _json(value),
        )
        await give_entitlement(known, given, tenant=tenant, plan=plan, books=desk.entitlements, clock=clock)

    _run(work)
    typer.echo(f"{feature_id}: given to {tenant or plan}")


@entitlement_app.command(name="show")
def show(
    tenant: Annotated[str, typer.Argument(help="The tenant.")],
    as_json: AsJson = False,
) -> None:
    """List what a tenant has, and where it stands."""

    async def work(desk: QuotaDesk, registry: Registry, clock: Clock) -> list[dict[str, Any]]:
        book = await desk.entitlements.of_tenant(tenant)
        return [await _describe(desk, registry, tenant, book, each) for each in book.entitlements.values()]

    rows = _run(work)
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        if row["kind"] != "metered":
            typer.echo(f"{row['feature']:<32} {row['origin']:<7} {json.dumps(row['value'])}{_refused(row)}")
            continue
        of = "no limit" if row["limit"] is None else f"of {row['limit']} ({'hard' if row['hard'] else 'soft'})"
        left = "" if row["balance"] is None else f", {row['balance']} left"
        typer.echo(f"{row['feature']:<32} {row['origin']:<7} {row['usage']} {of} {row['period']}{left}{_refused(row)}")


@grant_app.command()
def add(
    tenant: Annotated[str, typer.Argument(help="The tenant.")],
    feature_id: Annotated[str, typer.Argument(metavar="FEATURE", help="A metered feature, or a meter.")],
    amount: Annotated[str, typer.Argument(help="In the meter's unit.")],
    priority: Annotated[int, typer.Option(help="0 to 255; lower is burned first.")] = 100,
    effective: Annotated[
        str | None, typer.Option(help="ISO 8601, a whole hour; the running hour if not given.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="ISO 8601, a whole hour; never if not given.")] = None,
    recurrence: Annotated[str, typer.Option(help="none, monthly or yearly: filled up again.")] = "none",
    rollover_min: Annotated[str, typer.Option(help="At least this is left after a reset.")] = "0",
    rollover_max: Annotated[str, typer.Option(help="At most this is left after a reset.")] = "0",
    reason: Annotated[str, typer.Option(help="Why, for whoever looks later.")] = "",
    key: Annotated[str | None, typer.Option(help="The same key gives the grant only once.")] = None,
    as_json: AsJson = False,
) -> None:
    """Give a tenant an amount on top of its limit."""
    if recurrence not in ("none", "monthly", "yearly"):
        raise InvalidInputError([Fault("invalid_recurrence", "expected none, monthly or yearly", "recurrence")])
    again: Recurrence = recurrence  # type: ignore[assignment]

    async def work(desk: QuotaDesk, registry: Registry, clock: Clock) -> Grant:
        now = clock.now()
        grant = Grant(
            derive_id("grant", tenant, key or str(uuid4())),
            _decimal(amount, "amount"),
            priority,
            now.replace(minute=0, second=0, microsecond=0) if effective is None else _instant(effective, "effective"),
            None if expires is None else _instant(expires, "expires"),
            again,
            _decimal(rollover_min, "rollover_min"),
            _decimal(rollover_max, "rollover_max"),
            now,
            reason,
        )
        return await add_grant(
            grant,
            tenant=tenant,
            feature_id=feature_id,
            registry=registry,
            books=desk.entitlements,
            is_dated=effective is not None,
        )

    made = _run(work)
    typer.echo(json.dumps(_document(feature_id, made)) if as_json else _line(feature_id, made))


@grant_app.command(name="list")
def list_grants(
    tenant: Annotated[str, typer.Argument(help="The tenant.")],
    feature_id: Annotated[str | None, typer.Option("--feature", help="Only of this feature.")] = None,
    as_json: AsJson = False,
) -> None:
    """List a tenant's grants that were not voided."""

    async def work(desk: QuotaDesk, registry: Registry, clock: Clock) -> list[tuple[str, Grant]]:
        return await desk.entitlements.list_grants(tenant, feature_id)

    found = _run(work)
    if as_json:
        typer.echo(json.dumps([_document(*each) for each in found]))
        return
    for each in found:
        typer.echo(_line(*each))


@grant_app.command()
def void(grant_id: Annotated[str, typer.Argument(help="The grant.")]) -> None:
    """Take a grant back as if it had never been."""

    async def work(desk: QuotaDesk, registry: Registry, clock: Clock) -> None:
        await desk.entitlements.void_grant(grant_id, clock.now())

    _run(work)
    typer.echo(f"{grant_id}: voided")


async def with_desk(settings: Settings, work: Callable[[QuotaDesk, Registry, Clock], Awaitable[T]]) -> T:
    """Run work at a desk on the settings' engines."""
    clock = SystemClock()
    async with create_pool(settings, max_size=2) as pool, open_quota_desk(settings, pool, clock) as desk:
        registry = await RegistryCache(pool, clock, refresh_seconds=settings.registry_refresh_seconds).refresh()
        return await work(desk, registry.registry, clock)


def _run(work: Callable[[QuotaDesk, Registry, Clock], Awaitable[T]]) -> T:
    return asyncio.run(with_desk(load_settings(), work))


async def _find_feature(desk: QuotaDesk, registry: Registry, feature_id: str) -> Feature:
    """Return a feature; a meter becomes one by its own name when it is given for the first time."""
    known = await desk.entitlements.find_feature(feature_id)
    if known is not None:
        return known
    if feature_id not in registry.by_id:
        raise InvalidInputError([Fault("unknown_feature", f"no feature and no meter {feature_id[:80]!r}", "feature")])
    return Feature(feature_id, feature_id, "metered", feature_id)


async def _describe(
    desk: QuotaDesk, registry: Registry, tenant: str, book: TenantBook, entitlement: Entitlement
) -> dict[str, Any]:
    feature = entitlement.feature
    row: dict[str, Any] = {"feature": feature.feature_id, "kind": feature.kind, "origin": entitlement.origin}
    if feature.kind != "metered":
        return {**row, "reason": desk.refusal(book, entitlement), "value": entitlement.value}
    meter = check_metered(entitlement, registry)
    standing = await desk.standing(tenant, book, entitlement, registry)
    reserved = await desk.reserved(tenant, meter.meter_id)
    left = standing.left
    return {
        **row,
        "reason": desk.refusal(book, entitlement, standing, reserved),
        "period": entitlement.period if entitlement.rolling_hours is None else f"rolling:{entitlement.rolling_hours}h",
        "usage": plain(standing.used),
        "limit": None if entitlement.limit is None else plain(entitlement.limit),
        "hard": entitlement.hard,
        "balance": None if left is None else plain(left),
        "stale": standing.reading.is_stale,
    }


def _refused(row: dict[str, Any]) -> str:
    return "" if row["reason"] is None else f"  no access: {row['reason']}"


def _read_period(text: str) -> tuple[EntitlementPeriod, int | None]:
    if text in ("month", "billing", "year"):
        return text, None  # type: ignore[return-value]
    hours = text.removeprefix("rolling:").removesuffix("h")
    if text.startswith("rolling:") and hours.isdigit():
        return "rolling", int(hours)
    raise InvalidInputError([Fault("invalid_period", "expected month, billing, year or rolling:24h", "period")])


def _decimal(text: str, name: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise InvalidInputError([Fault("invalid_amount", f"expected a decimal, got {text[:40]!r}", name)]) from None


def _instant(text: str, name: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError([Fault("invalid_time", f"expected ISO 8601, got {text[:40]!r}", name)]) from None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise InvalidInputError([Fault("invalid_value", f"expected JSON, got {text[:40]!r}", "value")]) from None


def _document(feature_id: str, grant: Grant) -> dict[str, Any]:
    return {
        "grant_id": grant.grant_id,
        "feature": feature_id,
        "amount": plain(grant.amount),
        "priority": grant.priority,
        "effective_at": format_instant(grant.effective_at),
        "expires_at": None if grant.expires_at is None else format_instant(grant.expires_at),
        "recurrence": grant.recurrence,
        "rollover_min": plain(grant.rollover_min),
        "rollover_max": plain(grant.rollover_max),
        "reason": grant.reason,
    }


def _line(feature_id: str, grant: Grant) -> str:
    until = "for good" if grant.expires_at is None else f"until {format_instant(grant.expires_at)}"
    since = format_instant(grant.effective_at)
    return (
        f"{grant.grant_id}  {feature_id:<24} {plain(grant.amount):>14}  from {since} {until}  {grant.reason}".rstrip()
    )
