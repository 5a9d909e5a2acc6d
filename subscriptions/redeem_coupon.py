"""Redeems a coupon for a subscription."""

from __future__ import annotations

from datetime import datetime

from core.errors import Fault, InvalidInputError, NotFoundError
from core.ids import derive_id
from rating.domain.coupon import Redemption, overlap
from subscriptions.coupon_ports import CouponStore, Holder, OfferedCoupon


async def redeem_coupon(
    coupon_id: str,
    tenant_id: str,
    subscription_id: str | None = None,
    *,
    starts_at: datetime | None = None,
    store: CouponStore,
    now: datetime,
) -> tuple[Redemption, bool]:
    """Redeem a coupon; returns the redemption and whether it is new.

    The first billing period it covers is the one that holds `starts_at` (now if not given; never before now or before
    the subscription starts). Without `subscription_id` the tenant must have one open subscription. A coupon that
    already covers any of those periods for the subscription is returned as it is, so redeeming twice is once.

    Raises `NotFoundError` (no such coupon, tenant or subscription) or `InvalidInputError` with every reason against it:
    `coupon_archived`, `coupon_automatic`, `coupon_not_yet_valid`, `coupon_ended`, `coupon_used_up`,
    `coupon_used_up_by_tenant`, `coupon_already_held` (an earlier version), `coupon_not_for_plan`, `currency_mismatch`,
    `subscription_ended`, `subscription_needed`, `backdated`.
    """
    # Locked first: of many who redeem at once, each sees what those before have taken.
    offered = await store.newest_coupon(coupon_id, lock=True)
    if offered is None:
        raise NotFoundError(f"no coupon {coupon_id[:80]!r}")
    holder = await find_holder(tenant_id, subscription_id, store=store, now=now)
    if starts_at is not None and starts_at < now:
        raise InvalidInputError([Fault("backdated", "a coupon cannot begin in the past", "starts_at")])
    own = await store.redemptions(coupon_id=coupon_id, subscription_id=holder.subscription_id)
    coupon = offered.coupon
    number = sum(each.coupon.version == coupon.version for each in own) + 1
    redemption = Redemption(
        redemption_id=derive_id("red", coupon_id, str(coupon.version), holder.subscription_id, str(number)),
        coupon=coupon,
        tenant_id=tenant_id,
        subscription_id=holder.subscription_id,
        redeemed_at=now,
        starts_at=max(starts_at or now, holder.started_at, now),
    )
    rivals = [each for each in own if each.removed_at is None and overlap(each, redemption, holder.cycle)]
    same = [each for each in rivals if each.coupon.version == coupon.version]
    if same:
        return same[0], False
    faults = _reasons_against(offered, holder, now)
    if rivals:
        reason = f"version {rivals[0].coupon.version} of it still counts for this subscription: remove it first"
        faults.append(Fault("coupon_already_held", reason, "coupon"))
    if coupon.max_per_tenant is not None:
        of_tenant = await store.redemptions(coupon_id=coupon_id, tenant_id=tenant_id)
        if sum(each.coupon.version == coupon.version for each in of_tenant) >= coupon.max_per_tenant:
            reason = f"{tenant_id} has redeemed it {coupon.max_per_tenant} times, and it is good for no more"
            faults.append(Fault("coupon_used_up_by_tenant", reason, "coupon"))
    if faults:
        raise InvalidInputError(faults)
    await store.add_redemption(redemption)
    return redemption, True


async def find_holder(tenant_id: str, subscription_id: str | None, *, store: CouponStore, now: datetime) -> Holder:
    """Return the subscription asked for, or the tenant's only open one.

    Raises `NotFoundError`, or `InvalidInputError` (`subscription_needed`) if there are several or none.
    """
    if await store.currency_of(tenant_id) is None:
        raise NotFoundError(f"no tenant {tenant_id[:80]!r}")
    holders = await store.holders(tenant_id)
    if subscription_id is not None:
        named = [holder for holder in holders if holder.subscription_id == subscription_id]
        if not named:
            raise NotFoundError(f"{tenant_id} has no subscription {subscription_id[:80]!r}")
        return named[0]
    running = [holder for holder in holders if holder.ended_at is None or holder.ended_at > now]
    if len(running) != 1:
        ids = ", ".join(holder.subscription_id for holder in running) or "none"
        reason = f"name the subscription: {tenant_id} has {len(running)} open ones ({ids})"
        raise InvalidInputError([Fault("subscription_needed", reason, "subscription")])
    return running[0]


def _reasons_against(offered: OfferedCoupon, holder: Holder, now: datetime) -> list[Fault]:
    coupon, faults = offered.coupon, []
    if coupon.archived_at is not None:
        faults.append(Fault("coupon_archived", "it is not offered any more", "coupon"))
    if coupon.automatic:
        faults.append(Fault("coupon_automatic", "it counts for every subscription without being redeemed", "coupon"))
    if now < coupon.valid_from:
        faults.append(Fault("coupon_not_yet_valid", f"it can be redeemed from {coupon.valid_from} on", "coupon"))
    if coupon.valid_until is not None and now >= coupon.valid_until:
        faults.append(Fault("coupon_ended", f"it could be redeemed until {coupon.valid_until}", "coupon"))
    if coupon.max_redemptions is not None and offered.redeemed >= coupon.max_redemptions:
        reason = f"all {coupon.max_redemptions} have been redeemed"
        faults.append(Fault("coupon_used_up", reason, "coupon"))
    if coupon.currency not in (None, holder.currency):
        reason = f"it is in {coupon.currency}, the subscription is billed in {holder.currency}"
        faults.append(Fault("currency_mismatch", reason, "coupon"))
    held = holder.plans_from(now)
    if coupon.plans and held and not coupon.plans & held:
        reason = f"it is for {', '.join(sorted(coupon.plans))}, the subscription is to {', '.join(sorted(held))}"
        faults.append(Fault("coupon_not_for_plan", reason, "coupon"))
    if holder.ended_at is not None and holder.ended_at <= now:
        faults.append(Fault("subscription_ended", f"the subscription ended at {holder.ended_at}", "subscription"))
    return faults
