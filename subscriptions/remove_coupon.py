"""Takes a coupon from a subscription."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from core.errors import Fault, InvalidInputError, NotFoundError
from rating.domain.coupon import Redemption
from subscriptions.coupon_ports import CouponStore
from subscriptions.redeem_coupon import find_holder


async def remove_coupon(
    coupon_id: str, tenant_id: str, subscription_id: str | None = None, *, store: CouponStore, now: datetime
) -> tuple[list[Redemption], bool]:
    """Let the coupon no longer count from the billing period on that holds `now`; returns what was redeemed and
    whether anything was removed now.

    Periods before keep it, and a removed redemption still counts towards the coupon's limits. Raises `NotFoundError`
    (never redeemed for this subscription) or `InvalidInputError` (`coupon_automatic`, `subscription_needed`).
    """
    offered = await store.newest_coupon(coupon_id, lock=True)
    if offered is None:
        raise NotFoundError(f"no coupon {coupon_id[:80]!r}")
    if offered.coupon.automatic:
        reason = "it counts for every subscription until it is archived"
        raise InvalidInputError([Fault("coupon_automatic", reason, "coupon")])
    holder = await find_holder(tenant_id, subscription_id, store=store, now=now)
    own = await store.redemptions(coupon_id=coupon_id, subscription_id=holder.subscription_id)
    if not own:
        raise NotFoundError(f"{holder.subscription_id} has not redeemed coupon {coupon_id!r}")
    removed = []
    for redemption in own:
        if redemption.removed_at is None:
            await store.set_removed(redemption, now)
            redemption = replace(redemption, removed_at=now)
            removed.append(redemption)
    return removed or own, bool(removed)
