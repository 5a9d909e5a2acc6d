"""`meterbook coupon`: offer, redeem and remove coupons."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, TypeVar

import typer

from core.clock import SystemClock
from core.errors import NotFoundError
from core.period import format_instant
from rating.domain.coupon import Coupon, Duration, Redemption
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings
from subscriptions.adapters.postgres_coupons import PostgresCouponStore
from subscriptions.archive_coupon import archive_coupon
from subscriptions.coupon_ports import OfferedCoupon
from subscriptions.create_coupon import create_coupon
from subscriptions.domain.coupon_wish import read_instant
from subscriptions.redeem_coupon import redeem_coupon
from subscriptions.remove_coupon import remove_coupon
from subscriptions.show_table import show_table

T = TypeVar("T")
app = typer.Typer(help="Coupons: percentages and amounts off, and who redeemed them.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
CouponId = Annotated[str, typer.Argument(metavar="COUPON", help="The coupon's id, such as WELCOME20.")]
_HEADINGS = ("coupon", "v", "takes off", "of", "prio", "redeemed", "from", "until", "status")
TenantId = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant.")]
SubscriptionId = Annotated[
    str | None, typer.Option("--subscription", help="Which subscription; the tenant's only open one if not given.")
]


@app.command()
def create(
    coupon_id: CouponId,
    name: Annotated[str | None, typer.Option(help="What the invoice calls it; the id if not given.")] = None,
    percent_off: Annotated[str | None, typer.Option(help="Percent off, up to 100 ...")] = None,
    amount_off: Annotated[str | None, typer.Option(help="... or an amount off each billing period.")] = None,
    currency: Annotated[str | None, typer.Option(help="Of the amounts (ISO 4217).")] = None,
    duration: Annotated[str, typer.Option(help="once, repeating or forever.")] = "once",
    duration_in_periods: Annotated[int | None, typer.Option(help="Repeating: for how many billing periods.")] = None,
    max_redemptions: Annotated[int | None, typer.Option(help="How often it can be redeemed in all.")] = None,
    max_per_tenant: Annotated[int | None, typer.Option(help="How often by one tenant.")] = None,
    valid_from: Annotated[str | None, typer.Option(help="Redeemable from (ISO 8601, UTC); now if not given.")] = None,
    valid_until: Annotated[str | None, typer.Option(help="Redeemable until, that instant not included.")] = None,
    automatic: Annotated[bool, typer.Option(help="Counts for every subscription, without being redeemed.")] = False,
    plan: Annotated[list[str] | None, typer.Option(help="Only lines of this plan; may be repeated.")] = None,
    meter: Annotated[list[str] | None, typer.Option(help="Only lines of this meter; may be repeated.")] = None,
    charge: Annotated[list[str] | None, typer.Option(help="Only lines of this charge; may be repeated.")] = None,
    minimum_amount: Annotated[str | None, typer.Option(help="Only if its lines come to this in a period.")] = None,
    priority: Annotated[int, typer.Option(help="0 to 255; lower is applied first.")] = 100,
    exclusive: Annotated[bool, typer.Option(help="Never together with another coupon.")] = False,
    as_json: AsJson = False,
) -> None:
    """Offer a coupon; it never changes. Once archived, the same id can be offered anew as the next version."""
    given = {
        "name": name,
        "percent_off": percent_off,
        "amount_off": amount_off,
        "currency": currency,
        "duration": duration,
        "duration_in_periods": duration_in_periods,
        "max_redemptions": max_redemptions,
        "max_per_tenant": max_per_tenant,
        "valid_from": valid_from,
        "valid_until": valid_until,
        "automatic": automatic,
        "plans": plan or [],
        "meters": meter or [],
        "charges": charge or [],
        "minimum_amount": minimum_amount,
        "priority": priority,
        "exclusive": exclusive,
    }
    document = {field: value for field, value in given.items() if value is not None}

    async def work(store: PostgresCouponStore, now: datetime) -> tuple[Coupon, bool]:
        return await create_coupon(coupon_id, document, store=store, now=now)

    coupon, is_new = _run(work)
    if as_json:
        typer.echo(json.dumps({**describe_coupon(coupon), "new": is_new}))
        return
    typer.echo(f"{coupon.coupon_id} v{coupon.version}: {_terms(coupon)}{'' if is_new else ' (as before)'}")


@app.command(name="list")
def list_coupons(
    archived: Annotated[bool, typer.Option("--all", help="Archived ones and earlier versions too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List coupons."""

    async def work(store: PostgresCouponStore, now: datetime) -> tuple[list[OfferedCoupon], datetime]:
        found = await store.coupons()
        return [each for each in found if archived or each.coupon.archived_at is None], now

    found, now = _run(work)
    if as_json:
        typer.echo(json.dumps([_document(each, now) for each in found]))
        return
    if not found:
        typer.echo("no coupons")
        return
    show_table(_HEADINGS, [_row(each, now) for each in found], right=("v", "prio", "redeemed"), folded=("of",))


@app.command()
def show(coupon_id: CouponId, as_json: AsJson = False) -> None:
    """Show a coupon's versions and who redeemed it."""

    async def work(store: PostgresCouponStore, now: datetime) -> tuple[list[OfferedCoupon], list[Redemption], datetime]:
        return await store.coupons(coupon_id), await store.redemptions(coupon_id=coupon_id), now

    found, redemptions, now = _run(work)
    if not found:
        raise NotFoundError(f"no coupon {coupon_id[:80]!r}")
    if as_json:
        versions = [_document(each, now) for each in found]
        typer.echo(
            json.dumps({"versions": versions, "redemptions": [describe_redemption(each) for each in redemptions]})
        )
        return
    show_table(_HEADINGS, [_row(each, now) for each in found], right=("v", "prio", "redeemed"), folded=("of",))
    if redemptions:
        show_table(
            ["tenant", "subscription", "v", "redeemed", "counts from", "removed"],
            [
                (
                    each.tenant_id,
                    each.subscription_id,
                    str(each.coupon.version),
                    _when(each.redeemed_at),
                    _when(each.starts_at),
                    _when(each.removed_at),
                )
                for each in redemptions
            ],
            right=("v",),
        )


@app.command()
def redeem(
    coupon_id: CouponId,
    tenant_id: TenantId,
    subscription: SubscriptionId = None,
    starts_at: Annotated[
        str | None,
        typer.Option("--from", help="The first billing period is the one that holds this; now if not given."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Redeem a coupon for a subscription; doing so twice changes nothing."""
    start = None if starts_at is None else read_instant(starts_at, "starts_at")

    async def work(store: PostgresCouponStore, now: datetime) -> tuple[Redemption, bool]:
        return await redeem_coupon(coupon_id, tenant_id, subscription, starts_at=start, store=store, now=now)

    redemption, is_new = _run(work)
    if as_json:
        typer.echo(json.dumps({**describe_redemption(redemption), "new": is_new}))
        return
    again = "" if is_new else " (as before)"
    typer.echo(
        f"{tenant_id}: {redemption.coupon.coupon_id} for {redemption.subscription_id},"
        f" {_terms(redemption.coupon)}, from the billing period of {_when(redemption.starts_at)}{again}"
    )


@app.command()
def remove(
    coupon_id: CouponId, tenant_id: TenantId, subscription: SubscriptionId = None, as_json: AsJson = False
) -> None:
    """Take a coupon from a subscription, from the present billing period on."""

    async def work(store: PostgresCouponStore, now: datetime) -> tuple[list[Redemption], bool]:
        return await remove_coupon(coupon_id, tenant_id, subscription, store=store, now=now)

    found, is_new = _run(work)
    if as_json:
        typer.echo(json.dumps({"redemptions": [describe_redemption(each) for each in found], "new": is_new}))
        return
    typer.echo(f"{tenant_id}: {coupon_id} removed{'' if is_new else ' (as before)'}")


@app.command()
def archive(coupon_id: CouponId, as_json: AsJson = False) -> None:
    """Offer a coupon no more; who has redeemed it keeps it."""

    async def work(store: PostgresCouponStore, now: datetime) -> tuple[Coupon, bool]:
        return await archive_coupon(coupon_id, store=store, now=now)

    coupon, is_new = _run(work)
    if as_json:
        typer.echo(json.dumps({**describe_coupon(coupon), "new": is_new}))
        return
    typer.echo(f"{coupon.coupon_id} v{coupon.version}: archived{'' if is_new else ' (as before)'}")


async def with_coupons(
    settings: Settings, work: Callable[[PostgresCouponStore, datetime], Awaitable[T]], now: datetime
) -> T:
    """Run work on the settings' store in one transaction."""
    async with create_pool(settings, max_size=1) as pool, pool.connection() as connection, connection.transaction():
        return await work(PostgresCouponStore(connection), now)


def describe_coupon(coupon: Coupon) -> dict[str, Any]:
    """Return a coupon as JSON has it: amounts as strings, instants as ISO 8601."""
    return {
        "coupon_id": coupon.coupon_id,
        "version": coupon.version,
        "name": coupon.name,
        "percent_off": _text(coupon.percent_off),
        "amount_off": _text(coupon.amount_off),
        "currency": coupon.currency,
        "duration": coupon.duration.value,
        "duration_in_periods": coupon.periods,
        "max_redemptions": coupon.max_redemptions,
        "max_per_tenant": coupon.max_per_tenant,
        "valid_from": format_instant(coupon.valid_from),
        "valid_until": coupon.valid_until and format_instant(coupon.valid_until),
        "automatic": coupon.automatic,
        "plans": sorted(coupon.plans),
        "meters": sorted(coupon.meters),
        "charges": sorted(coupon.charges),
        "minimum_amount": _text(coupon.minimum_amount),
        "priority": coupon.priority,
        "exclusive": coupon.exclusive,
        "archived_at": coupon.archived_at and format_instant(coupon.archived_at),
    }


def describe_redemption(redemption: Redemption) -> dict[str, Any]:
    """Return a redemption as JSON has it."""
    return {
        "redemption_id": redemption.redemption_id,
        "coupon_id": redemption.coupon.coupon_id,
        "version": redemption.coupon.version,
        "tenant_id": redemption.tenant_id,
        "subscription_id": redemption.subscription_id,
        "redeemed_at": format_instant(redemption.redeemed_at),
        "starts_at": format_instant(redemption.starts_at),
        "removed_at": redemption.removed_at and format_instant(redemption.removed_at),
    }


def _document(offered: OfferedCoupon, now: datetime) -> dict[str, Any]:
    return {
        **describe_coupon(offered.coupon),
        "redeemed": offered.redeemed,
        "created_at": format_instant(offered.created_at),
        "status": _status(offered, now),
    }


def _row(offered: OfferedCoupon, now: datetime) -> tuple[str, ...]:
    coupon = offered.coupon
    most = "" if coupon.max_redemptions is None else f" of {coupon.max_redemptions}"
    return (
        coupon.coupon_id,
        str(coupon.version),
        _terms(coupon),
        _limits(coupon),
        str(coupon.priority) + (" alone" if coupon.exclusive else ""),
        "-" if coupon.automatic else f"{offered.redeemed}{most}",
        _when(coupon.valid_from),
        _when(coupon.valid_until),
        _status(offered, now),
    )


def _status(offered: OfferedCoupon, now: datetime) -> str:
    coupon = offered.coupon
    if coupon.archived_at is not None:
        return "archived"
    if now < coupon.valid_from:
        return "scheduled"
    if coupon.valid_until is not None and now >= coupon.valid_until:
        return "ended"
    if coupon.max_redemptions is not None and offered.redeemed >= coupon.max_redemptions:
        return "used up"
    return "automatic" if coupon.automatic else "offered"


def _terms(coupon: Coupon) -> str:
    off = f"{coupon.percent_off:f} %" if coupon.percent_off is not None else f"{coupon.amount_off:f} {coupon.currency}"
    return f"{off} {f'{coupon.periods} periods' if coupon.duration is Duration.REPEATING else coupon.duration.value}"


def _limits(coupon: Coupon) -> str:
    limits = [
        f"{name} {', '.join(sorted(values))}"
        for name, values in (("plan", coupon.plans), ("meter", coupon.meters), ("charge", coupon.charges))
        if values
    ]
    if coupon.minimum_amount is not None:
        limits.append(f"from {coupon.minimum_amount:f} {coupon.currency}")
    return "; ".join(limits) or "everything"


def _when(instant: datetime | None) -> str:
    return "" if instant is None else instant.strftime("%Y-%m-%d %H:%M")


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"


def _run(work: Callable[[PostgresCouponStore, datetime], Awaitable[T]]) -> T:
    return asyncio.run(with_coupons(load_settings(), work, SystemClock().now()))
