"""Coupons: what takes a percentage or an amount off, for which periods, in which order. Pure.

Which periods a redemption covers follows from the redemption and the billing cycle alone, so proposing a period again,
however much later, gives the same lines; nothing is counted down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Protocol

from core.errors import must_hold
from core.ids import derive_id
from core.money import allocate, round_to_minor
from core.period import Period
from rating.domain.net_lines import ZERO, LineAmount, net_amounts, sum_of

# What a minimum or a commitment tops up is owed whatever was used: no coupon lowers it.
NOT_DISCOUNTED = frozenset({"minimum", "true_up"})
PRIORITY_DEFAULT = 100


class Duration(Enum):
    """For how many billing periods a redeemed coupon counts; the values are Stripe's."""

    ONCE = "once"
    REPEATING = "repeating"
    FOREVER = "forever"


class BillingCycle(Protocol):
    """A subscription's billing periods, end to end; equal ones have equal periods."""

    def __hash__(self) -> int: ...

    def period_at(self, instant: datetime) -> Period:
        """Return the billing period that holds the instant."""
        ...


@dataclass(frozen=True, slots=True)
class Coupon:
    """A version of a coupon. It never changes, except that it can be archived.

    Exactly one of `percent_off` (above 0, at most 100) and `amount_off` (per billing period, in `currency`) is set.
    `periods` is set for `REPEATING`. `[valid_from, valid_until)` is when it can be redeemed; an `automatic` coupon is
    redeemed by nobody and counts for every subscription from the later of `valid_from` and the subscription's start,
    until it is archived. Empty `plans`, `meters` and `charges` mean no limit: a line must be of one of `plans`, and of
    one of `meters` or `charges`. Below `minimum_amount` (in `currency`) of such lines in a period nothing is taken off.
    """

    coupon_id: str
    name: str
    valid_from: datetime
    percent_off: Decimal | None = None
    amount_off: Decimal | None = None
    currency: str | None = None
    duration: Duration = Duration.ONCE
    periods: int | None = None
    valid_until: datetime | None = None
    max_redemptions: int | None = None
    max_per_tenant: int | None = None
    automatic: bool = False
    plans: frozenset[str] = frozenset()
    meters: frozenset[str] = frozenset()
    charges: frozenset[str] = frozenset()
    minimum_amount: Decimal | None = None
    priority: int = PRIORITY_DEFAULT
    exclusive: bool = False
    version: int = 1
    archived_at: datetime | None = None

    def takes_off(self, line: LineAmount) -> bool:
        """Tell whether the coupon may lower this line."""
        if line.kind in NOT_DISCOUNTED or (self.plans and line.plan_id not in self.plans):
            return False
        if not self.meters and not self.charges:
            return True
        return line.meter_id in self.meters or line.charge_id in self.charges


@dataclass(frozen=True, slots=True)
class Redemption:
    """A coupon redeemed for a subscription; the first period it covers is the one that holds `starts_at`.

    Removed, it no longer covers the period that holds `removed_at`, nor any after it.
    """

    redemption_id: str
    coupon: Coupon
    tenant_id: str
    subscription_id: str
    redeemed_at: datetime
    starts_at: datetime
    removed_at: datetime | None = None

    @property
    def stacking_order(self) -> tuple[int, bool, datetime, str]:
        """Lower priority number first, then percentages before amounts, then what was redeemed earlier, then the id."""
        return (self.coupon.priority, self.coupon.percent_off is None, self.redeemed_at, self.redemption_id)


@dataclass(frozen=True, slots=True)
class Share:
    """What a coupon takes off one line: negative, in whole minor units."""

    key: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class CouponLine:
    """What one redeemed coupon takes off a period: `amount` is negative and the sum of its shares.

    `base` is what the coupon found left of the lines it is for, `exact_amount` the same as `amount` before it was
    rounded. `steps` is the sum written out.
    """

    redemption_id: str
    coupon_id: str
    coupon_version: int
    name: str
    base: Decimal
    exact_amount: Decimal
    amount: Decimal
    shares: tuple[Share, ...]
    steps: tuple[str, ...]


def redeem_automatically(
    coupon: Coupon, tenant_id: str, subscription_id: str, started_at: datetime
) -> Redemption | None:
    """Return the redemption an automatic coupon stands for; None for a subscription that began too late for it."""
    must_hold(coupon.automatic, f"coupon {coupon.coupon_id} is to be redeemed by somebody")
    starts_at = max(coupon.valid_from, started_at)
    if any(end is not None and starts_at >= end for end in (coupon.valid_until, coupon.archived_at)):
        return None
    redemption_id = derive_id("red", coupon.coupon_id, str(coupon.version), subscription_id)
    return Redemption(redemption_id, coupon, tenant_id, subscription_id, starts_at, starts_at)


def covered_until(redemption: Redemption, cycle: BillingCycle) -> datetime | None:
    """Return the end of the last period that the coupon's duration lets a redemption cover; None for ever."""
    if redemption.coupon.duration is Duration.FOREVER:
        return None
    *_, end = _covered_ends(redemption, cycle)
    return end


def covers(redemption: Redemption, period: Period, cycle: BillingCycle) -> bool:
    """Tell whether a redemption counts for the billing period that holds the start of `period`."""
    whole = _period_at(cycle, period.start)
    ends = (redemption.removed_at, redemption.coupon.archived_at if redemption.coupon.automatic else None)
    if any(end is not None and end < whole.end for end in ends):
        return False
    if whole.start < _period_at(cycle, redemption.starts_at).start:
        return False
    if redemption.coupon.duration is Duration.FOREVER:
        return True
    return any(whole.start < end for end in _covered_ends(redemption, cycle))


def overlap(one: Redemption, other: Redemption, cycle: BillingCycle) -> bool:
    """Tell whether two redemptions of a subscription, neither removed, cover a period in common."""
    starts = [cycle.period_at(each.starts_at).start for each in (one, other)]
    ends = [covered_until(each, cycle) for each in (one, other)]
    return all(end is None or start < end for start, end in zip(starts[::-1], ends, strict=True))


def as_known_at(redemptions: Iterable[Redemption], known_at: datetime) -> list[Redemption]:
    """Return the redemptions as they were known at an instant.

    Later ones are not there, and what was removed or archived later is not yet.
    """
    return [
        replace(
            redemption,
            removed_at=_if_known(redemption.removed_at, known_at),
            coupon=replace(redemption.coupon, archived_at=_if_known(redemption.coupon.archived_at, known_at)),
        )
        for redemption in redemptions
        if redemption.redeemed_at <= known_at
    ]


def apply_coupons(
    lines: Sequence[LineAmount],
    redemptions: Iterable[Redemption],
    period: Period,
    currency: str,
    *,
    cycle: BillingCycle,
) -> list[CouponLine]:
    """Return what coupons take off the lines of a billing period, in the order in which they were applied.

    `lines` are all lines of the period before coupons, `redemptions` the subscription's, in any order: those that do
    not cover the period are left out here. Each coupon looks at what the one before left of the lines it is for; all
    together never take more than is there. An exclusive coupon is applied alone: never after another, and nothing
    after it. An amount not used up in a period is gone; a repeating coupon has it again in the next.
    """
    must_hold(all(line.kind != "coupon" for line in lines), "coupons are applied to lines that have none")
    left = net_amounts([line for line in lines if line.kind not in NOT_DISCOUNTED], currency)
    before = dict(left)
    by_key = {line.key: line for line in lines}
    applied: list[CouponLine] = []
    for redemption in sorted(redemptions, key=lambda each: each.stacking_order):
        coupon = redemption.coupon
        if coupon.currency not in (None, currency) or not covers(redemption, period, cycle):
            continue
        if coupon.exclusive and applied:
            continue
        keys = [key for key in left if coupon.takes_off(by_key[key])]
        if coupon.minimum_amount is not None and sum_of(before[key] for key in keys) < coupon.minimum_amount:
            continue
        line = _take_off(redemption, {key: left[key] for key in keys}, currency)
        if line is None:
            continue
        applied.append(line)
        for share in line.shares:
            left[share.key] += share.amount
            must_hold(left[share.key] >= 0, f"coupon {coupon.coupon_id} took a line below zero")
        if coupon.exclusive:
            break
    return applied


def _if_known(at: datetime | None, known_at: datetime) -> datetime | None:
    return at if at is not None and at <= known_at else None


@lru_cache(maxsize=10_000)
def _period_at(cycle: BillingCycle, instant: datetime) -> Period:
    """Return a cycle's period; remembered, because a run asks for the same few bounds for every subscription."""
    return cycle.period_at(instant)


def _covered_ends(redemption: Redemption, cycle: BillingCycle) -> Iterator[datetime]:
    """Yield the ends of the periods a redemption covers, from the first on."""
    end = redemption.starts_at
    for _ in range(redemption.coupon.periods or 1):
        end = _period_at(cycle, end).end
        yield end


def _take_off(redemption: Redemption, left: dict[str, Decimal], currency: str) -> CouponLine | None:
    coupon, base = redemption.coupon, sum_of(left.values())
    exact, step = _discount(coupon, base)
    amount = round_to_minor(exact, currency)
    if amount == ZERO:
        return None
    shares = zip(left, allocate(-amount, list(left.values()), currency), strict=True)
    return CouponLine(
        redemption_id=redemption.redemption_id,
        coupon_id=coupon.coupon_id,
        coupon_version=coupon.version,
        name=coupon.name,
        base=base,
        exact_amount=-exact,
        amount=-amount,
        shares=tuple(Share(key, share) for key, share in shares if share),
        steps=(step,),
    )


def _discount(coupon: Coupon, base: Decimal) -> tuple[Decimal, str]:
    """Return what the coupon takes off `base`, exactly, and the sum in words."""
    if coupon.percent_off is not None:
        exact = base * coupon.percent_off / 100
        return exact, f"{coupon.percent_off:f} % of {base:f} = {exact:f}"
    must_hold(coupon.amount_off is not None, f"coupon {coupon.coupon_id} takes nothing off")
    amount_off = coupon.amount_off or ZERO
    exact = min(amount_off, base)
    short = "" if exact == amount_off else f" = {exact:f}, all there is"
    return exact, f"{amount_off:f} off {base:f}{short}"
