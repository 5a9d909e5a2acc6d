"""Coupons in memory: for tests that need no PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime

from core.errors import must_hold
from rating.domain.coupon import Coupon, Redemption
from subscriptions.coupon_ports import Holder, OfferedCoupon


@dataclass
class MemoryCouponStore:
    """Behaves like `PostgresCouponStore`, for one caller at a time."""

    plans: set[str] = field(default_factory=set)
    meters: set[str] = field(default_factory=set)
    currencies: dict[str, str] = field(default_factory=dict)
    held: list[Holder] = field(default_factory=list)
    offered: list[OfferedCoupon] = field(default_factory=list)
    redeemed: list[Redemption] = field(default_factory=list)

    async def currency_of(self, tenant_id: str) -> str | None:
        return self.currencies.get(tenant_id)

    async def unknown_plans(self, plan_ids: Collection[str]) -> set[str]:
        return set(plan_ids) - self.plans

    async def unknown_meters(self, meter_ids: Collection[str]) -> set[str]:
        return set(meter_ids) - self.meters

    async def holders(self, tenant_id: str) -> list[Holder]:
        return [holder for holder in self.held if holder.tenant_id == tenant_id]

    async def newest_coupon(self, coupon_id: str, *, lock: bool = False) -> OfferedCoupon | None:
        return (await self.coupons(coupon_id) or [None])[-1]

    async def coupons(self, coupon_id: str | None = None) -> list[OfferedCoupon]:
        found = [each for each in self.offered if coupon_id in (None, each.coupon.coupon_id)]
        return sorted(found, key=lambda each: (each.coupon.coupon_id, each.coupon.version))

    async def add_coupon(self, coupon: Coupon, now: datetime) -> bool:
        if any(_key(each.coupon) == _key(coupon) for each in self.offered):
            return False
        self.offered.append(OfferedCoupon(coupon, 0, now))
        return True

    async def set_archived(self, coupon: Coupon, now: datetime) -> None:
        self._change(coupon, archived_at=now)
        self.redeemed = [
            replace(each, coupon=replace(each.coupon, archived_at=now)) if _key(each.coupon) == _key(coupon) else each
            for each in self.redeemed
        ]

    async def redemptions(
        self, *, coupon_id: str | None = None, tenant_id: str | None = None, subscription_id: str | None = None
    ) -> list[Redemption]:
        found = [
            each
            for each in self.redeemed
            if coupon_id in (None, each.coupon.coupon_id)
            and tenant_id in (None, each.tenant_id)
            and subscription_id in (None, each.subscription_id)
        ]
        return sorted(found, key=lambda each: (each.redeemed_at, each.redemption_id))

    async def add_redemption(self, redemption: Redemption) -> None:
        must_hold(all(each.redemption_id != redemption.redemption_id for each in self.redeemed), "redeemed before")
        for at, each in enumerate(self.offered):
            if _key(each.coupon) == _key(redemption.coupon):
                most = each.coupon.max_redemptions
                must_hold(most is None or each.redeemed < most, "redeemed more often than the coupon allows")
                self.offered[at] = replace(each, redeemed=each.redeemed + 1)
        self.redeemed.append(redemption)

    async def set_removed(self, redemption: Redemption, now: datetime) -> None:
        self.redeemed = [
            replace(each, removed_at=now) if each.redemption_id == redemption.redemption_id else each
            for each in self.redeemed
        ]

    def _change(self, coupon: Coupon, archived_at: datetime) -> None:
        self.offered = [
            replace(each, coupon=replace(each.coupon, archived_at=archived_at))
            if _key(each.coupon) == _key(coupon)
            else each
            for each in self.offered
        ]


def _key(coupon: Coupon) -> tuple[str, int]:
    return (coupon.coupon_id, coupon.version)
