"""Which billing periods a request is for. Owns the rule, and when a period is over.

A month (`2026-10`) asks for every billing period that ends in that month of the tenant's calendar, its last instant
included: with months from the first to the first that is the month itself. An instant (`2026-10-20T00:00:00Z`) asks for
the last billing period of each subscription that was over by then. The period before a subscription's first one counts,
too: nothing was used in it, but with its end falls due what is billed in advance.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from core.calendar import Calendar
from core.errors import Fault, InvalidInputError
from core.period import YEARS, Period, format_instant, parse_month
from rating.domain.cycle import Cycle


def read_request(text: str) -> str | datetime:
    """Return the month, or the instant in UTC, that a request names; raises `InvalidInputError` (`invalid_period`)."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is not None and instant.tzinfo is not None and instant.year in YEARS:
        return instant.astimezone(UTC)
    parse_month(text)
    return text


def requested_periods(asked: str | datetime, cycle: Cycle, started_at: datetime, calendar: Calendar) -> list[Period]:
    """Return the billing periods of a subscription that are asked for, at the earliest the one before it began.

    Also of one that was taken back to its very start: what was billed of it must be laid open.
    """
    first = cycle.period_at(started_at)
    if isinstance(asked, datetime):
        holding = cycle.period_at(asked)
        if holding.start < first.start:
            return []
        return [period_before(cycle, holding)]
    return [one for one in periods_ending_in(cycle, calendar.period(asked)) if one.end >= first.start]


def period_before(cycle: Cycle, period: Period) -> Period:
    """Return the billing period before one."""
    return cycle.period_at(_just_before(period.start))


def periods_ending_in(cycle: Cycle, month: Period) -> list[Period]:
    """Return the billing periods that end in a month, its last instant included and its first not."""
    found = cycle.periods(Period(_just_before(month.start), month.end))
    return [one for one in found if month.start < one.end <= month.end]


def check_over(asked: str | datetime, periods: list[Period], calendar: Calendar, now: datetime) -> None:
    """Refuse a request whose periods are not over yet; raises `InvalidInputError` (`period_not_over`).

    Without a period to go by, the month asked for must be over.
    """
    if isinstance(asked, datetime):
        ends = asked
    else:
        ends = max((one.end for one in periods), default=calendar.period(asked).end)
    if now < ends:
        name = format_instant(asked) if isinstance(asked, datetime) else asked
        reason = f"{name} ends at {format_instant(ends)}; usage is still coming in"
        raise InvalidInputError([Fault("period_not_over", reason, "period")])


def _just_before(instant: datetime) -> datetime:
    return instant - timedelta(minutes=1)
