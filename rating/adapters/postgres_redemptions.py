"""Coupons that count for a subscription, from PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rating.domain.coupon import Coupon, Duration, Redemption, redeem_automatically
from rating.domain.timeline import SubscriptionStart
from runtime.postgres import Connection

COUPON_COLUMNS = (
    "coupon.coupon_id, coupon.version, coupon.name, percent_off, amount_off, currency, duration, periods, valid_from,"
    " valid_until, max_redemptions, max_per_tenant, automatic, plans, meters, charges, minimum_amount, priority,"
    " exclusive, archived_at"
)
REDEMPTION_COLUMNS = "redemption_id, tenant_id, subscription_id, redeemed_at, starts_at, removed_at"
_OF_SUBSCRIPTIONS = (
    f"SELECT {COUPON_COLUMNS}, {REDEMPTION_COLUMNS} FROM coupon_redemptions"  # noqa: S608
    " JOIN coupons AS coupon ON coupon.coupon_id = coupon_redemptions.coupon_id AND version = coupon_version"
    " WHERE subscription_id = ANY(%s) ORDER BY redemption_id"
)
_AUTOMATIC = f"SELECT {COUPON_COLUMNS} FROM coupons AS coupon WHERE automatic ORDER BY coupon_id, version"  # noqa: S608


async def read_redemptions(connection: Connection, starts: Iterable[SubscriptionStart]) -> dict[str, list[Redemption]]:
    """Return by subscription the coupons ever redeemed for it and those that count for it automatically.

    Which of them cover a period says `rating.domain.coupon.covers`.
    """
    asked = {one.subscription_id: one for one in starts}
    found: dict[str, list[Redemption]] = {one: [] for one in asked}
    for row in await (await connection.execute(_OF_SUBSCRIPTIONS.encode(), (list(asked),))).fetchall():
        found[row["subscription_id"]].append(read_redemption_row(row))
    automatic = await (await connection.execute(_AUTOMATIC.encode())).fetchall()
    coupons = [read_coupon_row(row) for row in automatic]
    for subscription_id, start in asked.items():
        for coupon in coupons:
            redemption = redeem_automatically(coupon, start.tenant_id, subscription_id, start.started_at)
            if redemption is not None:
                found[subscription_id].append(redemption)
    return found


def read_coupon_row(row: dict[str, Any]) -> Coupon:
    """Return a coupon from a row of `COUPON_COLUMNS`."""
    limits = {name: frozenset(row[name]) for name in ("plans", "meters", "charges")}
    return Coupon(**{**row, **limits, "duration": Duration(row["duration"])})


def read_redemption_row(row: dict[str, Any]) -> Redemption:
    """Return a redemption with its coupon from a row of both columns."""
    own = {name: row.pop(name) for name in REDEMPTION_COLUMNS.split(", ")}
    return Redemption(coupon=read_coupon_row(row), **own)
