"""How alerts write names, figures, periods and times; the same in Slack, e-mail and webhooks."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal

from core.calendar import UTC_MONTHS
from core.errors import Fault, InvalidInputError
from core.money import minor_units

BAR_CELLS = 20
# As wide as Decimal(38, 12), the widest quantity there is.
_QUANTITY = re.compile(r"-?\d{1,26}(\.\d{1,12})?", re.ASCII)
_PERCENT_MAX = Decimal(999_999)
_NAME_LENGTH_MAX = 80
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def read_quantity(text: str, name: str, *, below_zero: bool = False) -> Decimal:
    """Read a decimal text of a message; raises `InvalidInputError` (`invalid_quantity`)."""
    if not _QUANTITY.fullmatch(text) or (text.startswith("-") and not below_zero):
        raise InvalidInputError([Fault("invalid_quantity", f"expected a decimal text, got {text[:40]!r}", name)])
    return Decimal(text)


def read_instant(text: str, name: str) -> datetime:
    """Read an ISO 8601 instant of a message; raises `InvalidInputError` (`invalid_time`)."""
    try:
        instant: datetime | None = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise InvalidInputError([Fault("invalid_time", f"expected an instant with its zone, got {text[:40]!r}", name)])
    return instant.astimezone(UTC)


def clean(text: str) -> str:
    """Return a name without what could break a header or a line."""
    return "".join(char for char in text if char.isprintable())[:_NAME_LENGTH_MAX]


def plural(unit: str) -> str:
    """Return "requests" for "request"; symbols such as GB stay as they are."""
    return f"{unit}s" if unit[-1:].islower() and not unit.endswith(("s", "each")) else unit


def figure(value: Decimal) -> str:
    """Write a quantity with its thousands apart and no trailing zeros."""
    text = f"{value:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def about(value: Decimal) -> str:
    """Write a statistic to two digits, for its other digits mean nothing: 38,412 is 38,000."""
    if not value:
        return "0"
    return figure(round(value, 1 - value.adjusted()).normalize() + Decimal(0))


def amount(value: Decimal, currency: str) -> str:
    """Write money with its thousands apart, at least with the currency's minor unit: `1,250.00 USD`."""
    places = minor_units(currency)
    exponent = value.normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    digits = max(places, -exponent)
    return f"{value.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_EVEN):,f} {currency}"


def percent_of(value: Decimal, whole: Decimal) -> Decimal:
    """Return the percentage, at most 999,999; a whole of zero is exhausted by anything."""
    return min(value * 100 / whole, _PERCENT_MAX) if whole > 0 else Decimal(100)


def percent_text(percent: Decimal) -> str:
    """Write a percentage, cut rather than rounded: 99.96 % is not yet 100 %."""
    return f"{percent.quantize(Decimal('0.1'), rounding=ROUND_DOWN):,f} %"


def bar(percent: Decimal) -> str:
    """Draw a percentage with block characters."""
    filled = max(0, min(BAR_CELLS, int(percent * BAR_CELLS / 100)))
    return "█" * filled + "░" * (BAR_CELLS - filled)


def period_text(name: str) -> str:
    """Write a live period (`core.calendar`) for people; raises `InvalidInputError` (`invalid_period`)."""
    # Names read alike in every zone; only where they begin in UTC differs.
    if len(name) == len("2026-10-15"):
        try:
            day = date.fromisoformat(name)
        except ValueError:
            raise InvalidInputError([Fault("invalid_period", f"no such day: {name[:40]!r}", "period")]) from None
        return f"the billing period from {_day(day)}"
    period = UTC_MONTHS.period(name)
    if len(name) == len("2026"):
        return name
    if len(name) == len("2026-10"):
        return f"{_MONTHS[period.start.month - 1]} {period.start.year}"
    return hours_text(period.start, period.end)


def instant_text(instant: datetime) -> str:
    """Write an instant to the minute: `20 October 2026, 14:00 UTC`."""
    return f"{_day(instant.date())}, {instant:%H:%M} UTC"


def hours_text(start: datetime, end: datetime) -> str:
    """Write a stretch of hours: `between 14:00 and 15:00 UTC on 20 October 2026`."""
    return f"between {start:%H:%M} and {end:%H:%M} UTC on {_day(start.date())}"


def _day(day: date) -> str:
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"
