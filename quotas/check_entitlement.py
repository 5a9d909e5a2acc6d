"""Answers whether a tenant may use a feature now, how much is left, and who gives it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from core.calendar import Calendar
from core.errors import must_hold
from core.meters import Meter
from core.period import Period
from core.quantity import unscale
from quotas.domain.balance import Balance, Course, find_balance, plan_course
from quotas.domain.entitlement import Entitlement
from quotas.domain.grant import Grant
from quotas.domain.reading import Reading
from quotas.domain.span import resolve_span
from quotas.ports import LiveView, UsageHistory
from quotas.read_quotas import read_quotas


@dataclass(frozen=True, slots=True)
class Standing:
    """A metered entitlement now. `balance` is None without a limit, or where grants do not apply."""

    entitlement: Entitlement
    reading: Reading
    used: Decimal
    balance: Balance | None

    @property
    def capacity(self) -> Decimal | None:
        """Up to where usage of the period may go: what was used and what is left. None: no limit."""
        if self.entitlement.limit is None:
            return None
        return self.used + self.balance.left if self.balance is not None else self.entitlement.limit

    @property
    def left(self) -> Decimal | None:
        """What is left; None: no limit."""
        return None if self.capacity is None else max(self.capacity - self.used, Decimal(0))

    def has_room(self, reserved: Decimal) -> bool:
        """Say whether anything more may be used beside what is reserved; only a hard limit says no."""
        return not self.entitlement.hard or self.left is None or self.left > reserved


async def find_standing(
    entitlement: Entitlement,
    grants: tuple[Grant, ...],
    *,
    tenant: str,
    meter: Meter,
    calendar: Calendar,
    view: LiveView,
    history: UsageHistory,
    now: datetime,
) -> Standing:
    """Return where a metered entitlement stands; raises `UnavailableError` if usage cannot be read."""
    span = entitlement.span(calendar, now)
    [reading] = await read_quotas(view, tenant, [meter], span, calendar=calendar, now=now)
    must_hold(reading.quantity is not None, "a metered entitlement's span fits its meter")
    used = unscale(reading.quantity or 0)
    if entitlement.limit is None or entitlement.period == "rolling" or meter.aggregation not in ("sum", "count"):
        return Standing(entitlement, reading, used, None)

    def period_at(instant: datetime) -> Period:
        return resolve_span(_SPAN_OF[entitlement.period], calendar, instant).window

    course = plan_course(grants, period_at, now)
    pieces = await _usage_of(course, used, tenant, meter.meter_id, history)
    return Standing(entitlement, reading, used, find_balance(course, entitlement.limit, pieces))


async def _usage_of(course: Course, used: Decimal, tenant: str, meter: str, history: UsageHistory) -> list[Decimal]:
    """Return the usage of each piece: those that are closed from history, the running one from the live total."""
    if course.cuts[-1] == course.present.start:
        return await history.between(tenant, meter, course.cuts)
    closed = course.cuts[:-1]
    before = await history.between(tenant, meter, closed) if len(closed) > 1 else []
    counted = sum((q for start, q in zip(closed, before, strict=False) if start >= course.present.start), Decimal(0))
    # History may be seconds ahead of the live total; what it has more is of the running piece.
    return [*before, max(used - counted, Decimal(0))]


_SPAN_OF = {"month": "current_month", "billing": "billing_period", "year": "current_year"}
