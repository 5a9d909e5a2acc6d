"""Level times time. Owns the exact arithmetic behind time-weighted quantities (GB-months from resize events).

An area is a level (x 10^12, `core.quantity`) times microseconds, a whole number, so areas add up exactly; there is one
division at the end, rounded half to even to the 12 places a quantity has.
"""

from __future__ import annotations

from datetime import timedelta

from core.errors import must_hold
from core.meters import WeightPer
from core.period import Period

_MICROSECOND = timedelta(microseconds=1)
_WEIGHTS_US: dict[WeightPer, int] = {"second": 1_000_000, "hour": 3_600_000_000}


def length_us(period: Period) -> int:
    """Return how many microseconds a period has, an hour more or less when the clocks move."""
    return (period.end - period.start) // _MICROSECOND


def weight_us(weight_per: WeightPer, period: Period) -> int:
    """Return the microseconds for which one unit must hold to be worth 1; for `month` it is the period's length."""
    return length_us(period) if weight_per == "month" else _WEIGHTS_US[weight_per]


def quantity_of_area(area: int, weight_per: WeightPer, period: Period) -> int:
    """Return the scaled quantity of an area (10^-12 unit x microseconds) inside a period, rounded half to even."""
    return divide_half_even(area, weight_us(weight_per, period))


def area_until(area: int, level: int, at_us: int, until_us: int) -> int:
    """Return an area that reaches to `at_us` carried on to `until_us` at the level that holds from `at_us` on.

    An event may be dated a little ahead of the clock: an earlier `until_us` leaves the area as it is.
    """
    return area + level * max(0, until_us - at_us)


def divide_half_even(numerator: int, denominator: int) -> int:
    """Return the quotient of whole numbers rounded to the nearest, a tie to the even one; exact at any size."""
    must_hold(denominator > 0, "a weight must be positive")
    whole, rest = divmod(numerator, denominator)
    doubled = 2 * rest
    return whole + (doubled > denominator or (doubled == denominator and whole % 2 == 1))
