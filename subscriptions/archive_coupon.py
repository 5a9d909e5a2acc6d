"""Stops offering a coupon."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from core.errors import NotFoundError
from rating.domain.coupon import Coupon
from subscriptions.coupon_ports import CouponStore


async def archive_coupon(coupon_id: str, *, store: CouponStore, now: datetime) -> tuple[Coupon, bool]:
    """Let nobody redeem the coupon any more; returns it and whether that is new.

    Who has redeemed it keeps it. An automatic coupon no longer counts from the billing period on that holds `now`.
    Raises `NotFoundError`.
    """
    found = await store.newest_coupon(coupon_id, lock=True)
    if found is None:
        raise NotFoundError(f"no coupon {coupon_id[:80]!r}")
    if found.coupon.archived_at is not None:
        return found.coupon, False
    await store.set_archived(found.coupon, now)
    return replace(found.coupon, archived_at=now), True
