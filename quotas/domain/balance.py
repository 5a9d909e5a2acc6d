"""Balances: what is left of a limit and grants at an instant, exact and explainable.

The usage of the past is laid over the grants in order of time: it is cut at every instant at which something begins,
ends, fills up or resets, and each piece burns what holds during it, in burn order. What nothing covers is overage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from core.errors import must_hold
from core.period import Period
from quotas.domain.grant import Grant

LIMIT_SOURCE = "limit"


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one source gave in the present period and what is left of it; `source` is "limit" or a grant's id."""

    source: str
    priority: int
    amount: Decimal
    gave: Decimal
    left: Decimal
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Balance:
    """The present period: what was used, what is left of all sources, and what nothing covered."""

    used: Decimal
    left: Decimal
    overage: Decimal
    sources: tuple[Drawn, ...]


@dataclass(frozen=True, slots=True)
class Course:
    """The instants at which the usage of the past is cut, ascending; the first is a reset, the last is now."""

    cuts: tuple[datetime, ...]
    resets: frozenset[datetime]
    grants: tuple[Grant, ...]
    present: Period


def plan_course(grants: Iterable[Grant], period_at: Callable[[datetime], Period], now: datetime) -> Course:
    """Return how far back usage must be known to say what is left now, and where it is cut.

    `period_at` returns the period of the entitlement that holds an instant. Grants that left nothing when they ended
    are only looked at as far as they burned beside one that may still have something.
    """
    known = [grant for grant in grants if grant.effective_at <= now]
    present = period_at(now)
    start = present.start
    matter = [grant for grant in known if grant.holds_at(now) and _outlives(grant, start)]
    while True:
        earliest = min([start, *(period_at(grant.effective_at).start for grant in matter)])
        beside = [grant for grant in known if _overlaps(grant, earliest, now) and _outlives(grant, earliest)]
        if earliest == start and len(beside) == len(matter):
            break
        start, matter = earliest, beside
    taking_part = tuple(sorted((grant for grant in known if _overlaps(grant, start, now)), key=lambda g: g.burn_order))
    resets = {start}
    while (following := period_at(max(resets)).end) <= now:
        resets.add(following)
    cuts = set(resets) | {now}
    for grant in taking_part:
        cuts |= {instant for instant in grant.fillings(now) if instant > start}
        cuts |= {grant.expires_at} if grant.expires_at is not None and start < grant.expires_at < now else set()
    return Course(tuple(sorted(cuts)), frozenset(resets), taking_part, present)


def find_balance(course: Course, limit: Decimal, usage: Sequence[Decimal]) -> Balance:
    """Return the balance now, given the usage between neighbouring cuts of the course."""
    must_hold(len(usage) == len(course.cuts) - 1, "one usage per piece of the course")
    fillings = {grant.grant_id: frozenset(grant.fillings(course.cuts[-1])) for grant in course.grants}
    left: dict[str, Decimal] = {}
    gave: dict[str, Decimal] = {}
    used = overage = Decimal(0)
    now = course.cuts[-1]
    # After the last piece comes what happens right now: a reset, a grant that begins.
    for start, quantity in zip(course.cuts, [*usage, Decimal(0)], strict=True):
        if start in course.resets:
            left = {grant.grant_id: _rolled(grant, left.get(grant.grant_id)) for grant in course.grants}
            left[LIMIT_SOURCE] = limit
            gave, used, overage = {}, Decimal(0), Decimal(0)
        for grant in course.grants:
            if start in fillings[grant.grant_id]:
                left[grant.grant_id] = grant.amount
        uncovered = quantity
        # The limit burns first: it is gone at the reset, whatever else is not.
        for source in (LIMIT_SOURCE, *(grant.grant_id for grant in course.grants if grant.holds_at(start))):
            drawn = min(uncovered, left.get(source, Decimal(0)))
            left[source] = left.get(source, Decimal(0)) - drawn
            gave[source] = gave.get(source, Decimal(0)) + drawn
            uncovered -= drawn
        used += quantity
        overage += uncovered
    sources = [Drawn(LIMIT_SOURCE, 0, limit, gave[LIMIT_SOURCE], left[LIMIT_SOURCE], course.present.end)]
    for grant in course.grants:
        given = gave.get(grant.grant_id, Decimal(0))
        remains = left.get(grant.grant_id, Decimal(0)) if grant.holds_at(now) else Decimal(0)
        if grant.effective_at <= now and (given or grant.holds_at(now)):
            sources.append(Drawn(grant.grant_id, grant.priority, grant.amount, given, remains, grant.expires_at))
    total_left = sum((source.left for source in sources), Decimal(0))
    balance = Balance(used, total_left, overage, tuple(sources))
    must_hold(
        used == overage + sum(source.gave for source in sources), "what was used was given by someone, or overage"
    )
    return balance


def _rolled(grant: Grant, left: Decimal | None) -> Decimal:
    """Return what a reset leaves of a grant; None: it was not in effect before."""
    return Decimal(0) if left is None else min(max(left, grant.rollover_min), grant.rollover_max)


def _overlaps(grant: Grant, start: datetime, now: datetime) -> bool:
    return grant.effective_at <= now and (grant.expires_at is None or grant.expires_at > start)


def _outlives(grant: Grant, start: datetime) -> bool:
    """Say whether a grant from before a reset may have something left after it."""
    return grant.effective_at >= start or grant.rollover_max > 0 or grant.recurrence != "none"
