"""What share of a billing period a part of it is. Owns the conventions; all of them are exact fractions.

Each convention gives every instant of the period a place between 0 and 1 that never falls as time goes on, and a
part's share is the difference of its ends' places. So whatever the instant, the shares before and after it add up to
exactly 1, no part is counted twice, and a change at the period's start leaves nothing before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import lru_cache

from core.calendar import Calendar
from core.errors import Fault, InvalidInputError, must_hold
from core.money import round_to_minor
from core.period import Period
from rating.domain.cycle import day_in_month
from rating.domain.price import plain

_DAYS_A_MONTH = 30
_MICROSECONDS = 1_000_000


class Convention(Enum):
    """How a part of a period is measured.

    `DAYS`: local calendar days, an instant stands for the start of its day (the day of a change belongs to what comes
    after it); a day is a day, be it 23 or 25 hours long. `SECONDS`: elapsed time. `THIRTY_DAY_MONTH`: every month of
    the period has 30 days, the 31st counts with the 30th (30E/360, the Eurobond basis, counted from the period's own
    start). `NONE`: nothing is divided; whoever holds the period's start pays for the whole of it.
    """

    DAYS = "days"
    SECONDS = "seconds"
    THIRTY_DAY_MONTH = "thirty_day_month"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Proration:
    """A change of a recurring amount within a period.

    `before` and `after` are the shares of the period on either side of the change and add up to 1. `credit` is what of
    the old amount is not used, `charge` what the new one costs for the rest, `net` their difference, all exact.
    """

    before: Fraction
    after: Fraction
    credit: Fraction
    charge: Fraction
    steps: tuple[str, ...]

    @property
    def net(self) -> Fraction:
        """What the change costs on top of the old amount; negative if it saves."""
        return self.charge - self.credit


def share(part: Period, whole: Period, convention: Convention, time_zone: str = "UTC") -> Fraction:
    """Return the share of `whole` that `part` is, from 0 to 1; `part` must lie within it.

    Raises `InvalidInputError` (`period_too_short`) for a `whole` that has no length by the convention's measure, which
    no cycle's period is.
    """
    must_hold(whole.start <= part.start and part.end <= whole.end, f"{part} is no part of {whole}")
    return _place(part.end, whole, convention, time_zone) - _place(part.start, whole, convention, time_zone)


def share_before(instant: datetime, whole: Period, convention: Convention, time_zone: str = "UTC") -> Fraction:
    """Return the share of `whole` that lies before an instant of it; its end may be asked for and gives 1.

    Raises `InvalidInputError` as `share` does.
    """
    must_hold(whole.start <= instant <= whole.end, f"{instant} is not in {whole}")
    return _place(instant, whole, convention, time_zone)


def prorate_change(
    at: datetime,
    whole: Period,
    *,
    old: Decimal,
    new: Decimal,
    convention: Convention,
    time_zone: str = "UTC",
) -> Proration:
    """Return what changing a period's amount from `old` to `new` at an instant of it comes to; raises like `share`."""
    before = share_before(at, whole, convention, time_zone)
    after = 1 - before
    credit, charge = Fraction(old) * after, Fraction(new) * after
    steps = (
        measure_step(at, whole, convention, time_zone),
        f"credit: {plain(old)} × {after} = {show_fraction(credit)}",
        f"charge: {plain(new)} × {after} = {show_fraction(charge)}",
        f"net: {show_fraction(charge)} − {show_fraction(credit)} = {show_fraction(charge - credit)}",
    )
    return Proration(before, after, credit, charge, steps)


def measure_step(at: datetime, whole: Period, convention: Convention, time_zone: str) -> str:
    """Write out how the rest of a period was measured."""
    after = 1 - share_before(at, whole, convention, time_zone)
    if convention is Convention.NONE:
        return f"nothing is divided: the rest of the period counts {after}"
    start, moment, end = (_measure(when, whole, convention, time_zone) for when in (whole.start, at, whole.end))
    unit = {
        Convention.DAYS: f"days in {time_zone}",
        Convention.SECONDS: "seconds",
        Convention.THIRTY_DAY_MONTH: f"days of 30-day months in {time_zone}",
    }[convention]
    scale = _MICROSECONDS if convention is Convention.SECONDS else 1
    rest, length = Fraction(end - moment, scale), Fraction(end - start, scale)
    return f"the rest is {show_fraction(rest)} of {show_fraction(length)} {unit} = {after}"


def show_fraction(exact: Fraction) -> str:
    """Write an exact amount: as a decimal where it ends, else as a fraction (`980/31`)."""
    rest = exact.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return plain(as_decimal(exact)) if rest == 1 else f"{exact.numerator}/{exact.denominator}"


def as_decimal(exact: Fraction) -> Decimal:
    """Return an exact amount with as many digits as the process's decimal context has (60)."""
    return Decimal(exact.numerator) / Decimal(exact.denominator)


def round_fraction(exact: Fraction, currency: str) -> Decimal:
    """Return an exact amount rounded half up to the currency's minor unit; raises `InvalidInputError`."""
    return round_to_minor(as_decimal(exact), currency)


def _place(instant: datetime, whole: Period, convention: Convention, time_zone: str) -> Fraction:
    # In UTC first: local times that differ only in their fold are equal to Python, and so to what keeps them.
    return _place_in(instant.astimezone(UTC), whole, convention, time_zone)


# Kept: a run asks for the same places in the same periods for every tenant.
@lru_cache(maxsize=10_000)
def _place_in(instant: datetime, whole: Period, convention: Convention, time_zone: str) -> Fraction:
    if convention is Convention.NONE:
        return Fraction(int(instant > whole.start))
    start, end = (_measure(when, whole, convention, time_zone) for when in (whole.start, whole.end))
    if start == end:
        reason = f"{whole} has no length when measured in {convention.value}"
        raise InvalidInputError([Fault("period_too_short", reason, "period")])
    return Fraction(_measure(instant, whole, convention, time_zone) - start, end - start)


def _measure(instant: datetime, whole: Period, convention: Convention, time_zone: str) -> int:
    """Return where an instant stands on the convention's scale (microseconds or days), which never falls."""
    if convention is Convention.SECONDS:
        return (instant - whole.start) // timedelta(microseconds=1)
    calendar = Calendar(time_zone)
    day = calendar.local_day(instant)
    if convention is Convention.DAYS:
        return day.toordinal()
    return _thirty_day_number(day, calendar.local_day(whole.start), calendar.local_day(whole.end))


def _thirty_day_number(day: date, first: date, last: date) -> int:
    """Return the number of a day when every month has 30; months begin on the period's own day where it has whole ones.

    With an anchor on the 31st the months of a period are 28 February to 31 March, and so on: the later of both days is
    the anchor's, the other was clamped.
    """
    anchor_day = max(first.day, last.day)
    if any(day_in_month(_month(edge), anchor_day) != edge for edge in (first, last)):
        anchor_day = 1
    month = _month(day)
    begun = day_in_month(month, anchor_day)
    if day < begun:
        month -= 1
        begun = day_in_month(month, anchor_day)
    return month * _DAYS_A_MONTH + min((day - begun).days, _DAYS_A_MONTH - 1)


def _month(day: date) -> int:
    return day.year * 12 + day.month - 1
