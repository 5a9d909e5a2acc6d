"""Subscribes a tenant to a plan, beside what it holds already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from core.calendar import Calendar
from core.clock import Clock
from core.errors import Fault, InvalidInputError, NotFoundError
from core.ids import derive_id
from core.period import format_instant
from rating.domain.cycle import Cycle, Interval, calendar_cycle, start_cycle
from rating.domain.digest import digest_of
from rating.domain.price import plain
from rating.domain.proration import Convention
from rating.domain.subscription import Request, Subscription
from rating.domain.timeline import ONE, AddOn, Change, ChangeKind, Held, State, SubscriptionStart, cut_to_minute
from subscriptions.change_plan import find_plan
from subscriptions.domain.tenant import Tenant
from subscriptions.ports import SubscriptionStore
from subscriptions.record_changes import Asked, Outcome, check_and_project, check_request, check_same
from subscriptions.renew_subscription import term_end

TRIAL_DAYS_MAX = 730
# Periods begin with the day the subscription starts on, not on the tenant's own anchor day.
ANCHOR_AT_START = "start"


@dataclass(frozen=True, slots=True)
class NewSubscription:
    """What is asked for.

    `started_at` is when it begins, None for now. `anchor` is a local day on which a period begins, `ANCHOR_AT_START`,
    or None for the tenant's own anchor day. `trial_days` are whole local days, the day of the start being the first.
    `term_periods` is after how many billing periods it ends; without it, it renews by itself.
    """

    tenant_id: str
    plan_id: str
    started_at: datetime | None = None
    version: int | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    quantity: Decimal = ONE
    add_ons: Sequence[tuple[str, Decimal]] = ()
    trial_days: int = 0
    interval: Interval = Interval.MONTH
    anchor: date | str | None = None
    convention: Convention = Convention.DAYS
    term_periods: int | None = None

    @property
    def body(self) -> dict[str, Any]:
        """What requests are compared by."""
        return {
            "verb": "create",
            "tenant": self.tenant_id,
            "plan": self.plan_id,
            "started_at": format_instant(cut_to_minute(self.started_at)) if self.started_at else "now",
            "version": self.version,
            "overrides": dict(self.overrides),
            "quantity": plain(self.quantity),
            "add_ons": [[plan_id, plain(quantity)] for plan_id, quantity in self.add_ons],
            "trial_days": self.trial_days,
            "interval": self.interval.value,
            "anchor": str(self.anchor) if self.anchor is not None else None,
            "convention": self.convention.value,
            "term_periods": self.term_periods,
        }


async def create_subscription(
    wanted: NewSubscription, *, asked: Asked, store: SubscriptionStore, clock: Clock
) -> Outcome:
    """Put the subscription on record; the same key again returns what it made.

    Raises `NotFoundError` (tenant, plan), `KeyReusedError`, `InvalidInputError` (`currency_mismatch`,
    `meter_priced_twice`, `invalid_trial`, `invalid_term`, `subscription_exists`, `add_on_exists`, overrides that make
    no sense).
    """
    check_request(asked)
    tenant = await store.tenant(wanted.tenant_id, lock=True)
    if tenant is None:
        raise NotFoundError(f"no tenant {wanted.tenant_id!r}")
    now, sha256 = clock.now(), digest_of(wanted.body)
    present = await store.subscriptions(tenant.tenant_id)
    for one in present:
        if asked.key is not None and one.request.key == asked.key:
            check_same(one.request.sha256, sha256, asked.key)
            return Outcome(one, one.changes, is_new=False)
    request = Request(asked.recorded_by, asked.reason, asked.key or "", sha256 if asked.key else "")
    start = await _start(wanted, tenant, request, store, clock, now)
    if any(one.subscription_id == start.subscription_id for one in present):
        at = format_instant(start.started_at)
        reason = f"the tenant subscribed to {wanted.plan_id!r} at {at} before: say by a key that it is another one"
        raise InvalidInputError([Fault("subscription_exists", reason, "plan")])
    entries = []
    if wanted.term_periods is not None:
        ends_at = term_end(start.cycle, start.started_at, wanted.term_periods)
        entry_request = Request(asked.recorded_by, "end of the term", asked.key or "create", sha256)
        entries.append((Change(1, ChangeKind.CANCELED, ends_at, now), entry_request))
    subscription = Subscription(start, request, tuple(entries))
    await check_and_project(subscription, tenant, since=start.started_at, store=store, adding=entries, is_new=True)
    return Outcome(subscription, subscription.changes, is_new=True)


async def _start(
    wanted: NewSubscription, tenant: Tenant, request: Request, store: SubscriptionStore, clock: Clock, now: datetime
) -> SubscriptionStart:
    sold = await find_plan(wanted.plan_id, wanted.version, store, clock)
    started_at = cut_to_minute(wanted.started_at or now)
    trial_ends_at = _trial_end(wanted.trial_days, started_at, tenant)
    add_ons: list[AddOn] = []
    for plan_id, quantity in wanted.add_ons:
        if plan_id in {wanted.plan_id, *(one.plan_id for one in add_ons)}:
            raise InvalidInputError([Fault("add_on_exists", f"{plan_id!r} is asked for twice", "add_on")])
        add_ons.append(AddOn(plan_id, (await find_plan(plan_id, None, store, clock)).version, quantity))
    held = Held(
        plan_id=wanted.plan_id,
        plan_version=sold.version,
        overrides=dict(wanted.overrides),
        quantity=wanted.quantity,
        add_ons=tuple(add_ons),
        state=State.ACTIVE if trial_ends_at is None else State.TRIAL,
    )
    cause = request.key or wanted.plan_id
    return SubscriptionStart(
        subscription_id=derive_id("sub", tenant.tenant_id, format_instant(started_at), cause),
        tenant_id=tenant.tenant_id,
        cycle=_cycle(wanted, tenant, started_at),
        convention=wanted.convention,
        started_at=started_at,
        recorded_at=now,
        held=held,
        trial_ends_at=trial_ends_at,
    )


def _cycle(wanted: NewSubscription, tenant: Tenant, started_at: datetime) -> Cycle:
    if isinstance(wanted.anchor, date):
        return Cycle(wanted.interval, wanted.anchor, tenant.time_zone)
    if wanted.anchor == ANCHOR_AT_START:
        return start_cycle(wanted.interval, tenant.time_zone, started_at)
    return calendar_cycle(wanted.interval, Calendar(tenant.time_zone, tenant.billing_anchor_day), started_at)


def _trial_end(days: int, started_at: datetime, tenant: Tenant) -> datetime | None:
    if not 0 <= days <= TRIAL_DAYS_MAX:
        raise InvalidInputError([Fault("invalid_trial", f"expected 0 to {TRIAL_DAYS_MAX} days", "trial_days")])
    if days == 0:
        return None
    calendar = Calendar(tenant.time_zone)
    return calendar.midnight(calendar.local_day(started_at) + timedelta(days=days))
