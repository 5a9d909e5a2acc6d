"""What coupons and credits need from a store."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from rating.credit_ledger import CreditLedger
from rating.domain.coupon import Coupon, Redemption
from rating.domain.cycle import Cycle
from rating.domain.timeline import Phase


@dataclass(frozen=True, slots=True)
class Holder:
    """A subscription as coupons see it: whose it is, how its time is cut into billing periods, and its currency."""

    tenant_id: str
    subscription_id: str
    currency: str
    cycle: Cycle
    started_at: datetime
    ended_at: datetime | None
    phases: tuple[Phase, ...]

    def plans_from(self, instant: datetime) -> set[str]:
        """Return the plans, add-ons among them, that are held then or later, as far as is known."""
        held = [phase.held for phase in self.phases if phase.end is None or phase.end > instant]
        return {one.plan_id for one in held} | {add_on.plan_id for one in held for add_on in one.add_ons}


class SaleFacts(Protocol):
    """What is sold, and to whom."""

    async def currency_of(self, tenant_id: str) -> str | None:
        """Return the currency a tenant pays in, None if there is no such tenant."""
        ...

    async def unknown_plans(self, plan_ids: Collection[str]) -> set[str]:
        """Return those that are no plan."""
        ...

    async def unknown_meters(self, meter_ids: Collection[str]) -> set[str]:
        """Return those that are no meter."""
        ...

    async def holders(self, tenant_id: str) -> list[Holder]:
        """Return a tenant's subscriptions, ended ones too, by start."""
        ...


@dataclass(frozen=True, slots=True)
class OfferedCoupon:
    """A coupon with how often it was redeemed and when it was made."""

    coupon: Coupon
    redeemed: int
    created_at: datetime


class CouponStore(SaleFacts, Protocol):
    """Coupons and their redemptions, within one transaction."""

    async def newest_coupon(self, coupon_id: str, *, lock: bool = False) -> OfferedCoupon | None:
        """Return a coupon's newest version, None if there is none; `lock` lets others redeem it only afterwards."""
        ...

    async def coupons(self, coupon_id: str | None = None) -> list[OfferedCoupon]:
        """Return all versions of all coupons, or of one, by id and version."""
        ...

    async def add_coupon(self, coupon: Coupon, now: datetime) -> bool:
        """Store a new version unless there is one of this number; tells whether it was new."""
        ...

    async def set_archived(self, coupon: Coupon, now: datetime) -> None:
        """Note that a version is archived."""
        ...

    async def redemptions(
        self, *, coupon_id: str | None = None, tenant_id: str | None = None, subscription_id: str | None = None
    ) -> list[Redemption]:
        """Return redemptions, removed ones too, by when they were redeemed; automatic coupons have none."""
        ...

    async def add_redemption(self, redemption: Redemption) -> None:
        """Store a redemption and count it."""
        ...

    async def set_removed(self, redemption: Redemption, now: datetime) -> None:
        """Note that a redemption is removed."""
        ...


@dataclass(frozen=True, slots=True)
class LedgerCheck:
    """What was found when the whole ledger was added up.

    `accounts` is each account's debits less credits by (account, currency); per currency they add up to zero. `faults`
    says in words what does not hold.
    """

    grants: int
    entries: int
    accounts: dict[tuple[str, str], Decimal]
    faults: tuple[str, ...]


class CreditBooks(Protocol):
    """The ledger of all tenants."""

    def transaction(self) -> AbstractAsyncContextManager[CreditLedger]:
        """Open the ledger in a transaction that commits unless the block raises."""
        ...

    async def check(self) -> LedgerCheck:
        """Add the ledger up."""
        ...
