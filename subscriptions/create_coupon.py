"""Offers a coupon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from core.errors import ConflictError, Fault, InvalidInputError
from rating.domain.coupon import Coupon
from subscriptions.coupon_ports import CouponStore, SaleFacts
from subscriptions.domain.coupon_wish import read_coupon


class CouponExistsError(ConflictError):
    """There is a coupon of this id with other terms; archive it to offer the next version."""

    code = "coupon_exists"


async def create_coupon(
    coupon_id: str, document: Mapping[str, Any], *, store: CouponStore, now: datetime
) -> tuple[Coupon, bool]:
    """Store the coupon a document describes (see `read_coupon`); returns it and whether it is new.

    A coupon never changes: asking for the terms it has returns it, other terms are refused while it is offered
    (`CouponExistsError`) and make the next version once it is archived. Raises `InvalidInputError` with every fault.
    """
    wanted = read_coupon(coupon_id, document, now)
    await check_limits(store, plans=wanted.plans, meters=wanted.meters)
    existing = await store.newest_coupon(coupon_id, lock=True)
    version = 1
    if existing is not None and existing.coupon.archived_at is None:
        is_dated = "valid_from" in document
        return _same_or_refuse(existing.coupon, wanted, is_dated=is_dated), False
    if existing is not None:
        version = existing.coupon.version + 1
    coupon = replace(wanted, version=version)
    if not await store.add_coupon(coupon, now):
        # Somebody else offered it between our look and our writing.
        raise CouponExistsError(f"somebody else has just made a coupon {coupon_id!r}: ask again")
    return coupon, True


async def check_limits(facts: SaleFacts, *, plans: frozenset[str], meters: frozenset[str]) -> None:
    """Raise `InvalidInputError` (`unknown_plan`, `unknown_meter`) naming every plan and meter that does not exist."""
    faults = [
        Fault("unknown_plan", f"no plan is called {plan_id[:80]!r}", "plans")
        for plan_id in sorted(await facts.unknown_plans(plans))
    ]
    faults += [
        Fault("unknown_meter", f"no meter is called {meter_id[:80]!r}", "meters")
        for meter_id in sorted(await facts.unknown_meters(meters))
    ]
    if faults:
        raise InvalidInputError(faults)


def _same_or_refuse(existing: Coupon, wanted: Coupon, *, is_dated: bool) -> Coupon:
    # When it was made is not part of what was asked for, unless a date was.
    dated = wanted if is_dated else replace(wanted, valid_from=existing.valid_from)
    if replace(dated, version=existing.version) != existing:
        raise CouponExistsError(
            f"there is a coupon {existing.coupon_id!r} with other terms: archive it to offer the next version"
        )
    return existing
