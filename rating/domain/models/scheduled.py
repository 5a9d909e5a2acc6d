"""Scheduled: the price depends on when. Windows of the local week, dated spot prices, and a price for all other times.

Everything is half-open: what happens at a border belongs to the later price. A spot price comes before a window, a
window before `unit_amount`. Windows are of the local clock of `time_zone`: an hour that occurs twice when clocks go
back has its price twice, one that is skipped never. Borders lie on quarter hours, as usage does (`Grain.SLOT`), which
no change of clocks cuts in two (`core.calendar`).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import ClassVar
from zoneinfo import ZoneInfo

from core.calendar import SLOT_SECONDS, check_calendar
from core.errors import Fault, InvalidInputError
from core.event_time import parse_event_time
from rating.domain.fields import Fields
from rating.domain.models.corrections import refuse_negative
from rating.domain.price import (
    ZERO,
    Basis,
    Dimensions,
    Grain,
    Inputs,
    Part,
    Price,
    Rated,
    multiply,
    plain,
    product_step,
    read_per,
)

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 24 * 3600 // SLOT_SECONDS
_WEEK = 7 * _DAY
_HOUR = 3600 // SLOT_SECONDS
_CLOCK = re.compile(r"([01]\d|2[0-3]):(00|15|30|45)|24:00", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Window:
    """`unit_amount` from `start` to `end`, quarter hours since midnight, on `days` (0 is Monday).

    A window whose end is not after its start ends on the next day; it is named after the day on which it starts.
    """

    days: tuple[int, ...]
    start: int
    end: int
    unit_amount: Decimal

    def quarters(self) -> list[int]:
        """Return the quarter hours of the week that the window covers."""
        length = self.end - self.start if self.end > self.start else self.end + _DAY - self.start
        return [(day * _DAY + self.start + offset) % _WEEK for day in self.days for offset in range(length)]

    @property
    def label(self) -> str:
        """The window for people: "mon tue 08:00-20:00"."""
        days = "" if len(self.days) == len(DAYS) else " ".join(DAYS[day] for day in self.days) + " "
        return f"{days}{_clock(self.start)}-{_clock(self.end)}"


@dataclass(frozen=True, slots=True)
class SpotPrice:
    """`unit_amount` in `[start, end)`; `end` is None for the last one if it holds on."""

    start: datetime
    end: datetime | None
    unit_amount: Decimal


@dataclass(frozen=True, slots=True)
class Scheduled(Price):
    """Prices by time; `unit_amount` is that of all other times, None where there is none.

    `week` names the window of each quarter hour of the local week, None where there is none. `time_zone` is None for
    the tenant's. Usage at a time without a price is reported as unpriced.
    """

    model: ClassVar[str] = "scheduled"
    basis: ClassVar[Basis] = Basis.USAGE
    grain: ClassVar[Grain] = Grain.SLOT
    windows: tuple[Window, ...]
    week: tuple[int | None, ...]
    spot_prices: tuple[SpotPrice, ...]
    unit_amount: Decimal | None
    per: int
    time_zone: str | None

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> Scheduled:
        """Read `windows`, `spot_prices`, `unit_amount`, `time_zone` and `transform_quantity`.

        A window has `from`, `to` ("08:00", to at most "24:00"), `days` (all, if missing) and `unit_amount`; a spot
        price `from`, `to` (instants with a zone; if missing, where the next one begins) and `unit_amount`.
        """
        faults_before = len(fields.faults)
        windows = tuple(
            _read_window(Fields(document, fields.at(f"windows[{index}]"), fields.faults))
            for index, document in enumerate(fields.items("windows"))
        )
        spot_prices = _read_spot_prices(fields)
        default = fields.amount("unit_amount") if fields.has("unit_amount") else None
        time_zone = read_time_zone(fields)
        if not windows and not fields.raw("spot_prices"):
            fields.fault("windows", "missing_field", "expected windows of the week, or spot_prices")
        per = read_per(fields)
        week: tuple[int | None, ...] = (None,) * _WEEK
        if len(fields.faults) == faults_before:
            week = _lay_out(fields, windows)
            if default is None:
                _refuse_holes(fields, week, windows, spot_prices)
        return cls(windows, week, spot_prices, default, per, time_zone)

    def rate(self, inputs: Inputs) -> Rated:
        """Return one part per window, one for all spot prices and one for other times."""
        if not inputs.entries and inputs.total:
            reason = "this price depends on when: give usage with its times"
            raise InvalidInputError([Fault("entries_needed", reason, "usage")])
        zone = ZoneInfo(self.time_zone or inputs.time_zone)
        starts = [spot.start for spot in self.spot_prices]
        spots: dict[int, Decimal] = defaultdict(Decimal)
        windows: dict[int, Decimal] = defaultdict(Decimal)
        other = ZERO
        unpriced: dict[Dimensions, Decimal] = defaultdict(Decimal)
        for entry in inputs.entries:
            place = bisect_right(starts, entry.at) - 1
            if place >= 0 and self._holds(place, entry.at):
                spots[place] += entry.quantity
                continue
            window = self.week[quarter_of_week(entry.at.astimezone(zone))]
            if window is not None:
                windows[window] += entry.quantity
            elif self.unit_amount is not None:
                other += entry.quantity
            else:
                unpriced[entry.dimensions] += entry.quantity
        parts = [
            self._part(
                f"window-{place + 1}", self.windows[place].label, windows[place], self.windows[place].unit_amount
            )
            for place in sorted(windows)
            if windows[place]
        ]
        if other and self.unit_amount is not None:
            parts.append(self._part("other", "other times", other, self.unit_amount))
        if any(spots.values()):
            parts.append(self._spot_part(spots))
        left = tuple((dimensions, quantity) for dimensions, quantity in sorted(unpriced.items()) if quantity)
        return Rated(tuple(parts), left)

    def _holds(self, place: int, at: datetime) -> bool:
        end = self.spot_prices[place].end
        return end is None or at < end

    def _part(self, key: str, label: str, quantity: Decimal, price: Decimal) -> Part:
        refuse_negative(quantity, label)
        amount = multiply(quantity, price, self.per)
        step = product_step(quantity, price, self.per, amount)
        return Part(key, label, (), quantity, price, self.per, amount, (step,))

    def _spot_part(self, spots: dict[int, Decimal]) -> Part:
        """Return one part for all spot prices: its steps show each, a line for each hour would bury the sum."""
        steps, total, quantity = [], ZERO, ZERO
        for place in sorted(spots):
            used, spot = spots[place], self.spot_prices[place]
            if used == 0:
                continue
            since = spot.start.strftime("%Y-%m-%dT%H:%MZ")
            refuse_negative(used, f"the spot price of {since}")
            amount = multiply(used, spot.unit_amount, self.per)
            steps.append(f"from {since}: {product_step(used, spot.unit_amount, self.per, amount)}")
            total += amount
            quantity += used
        if len(steps) > 1:
            steps.append(f"sum of {len(steps)} spot prices = {plain(total)}")
        return Part("spot", "spot prices", (), quantity, None, self.per, total, tuple(steps))


def quarter_of_week(local: datetime) -> int:
    """Return the quarter hour of the week of a local time, 0 on Monday at midnight."""
    return local.weekday() * _DAY + local.hour * _HOUR + local.minute * 60 // SLOT_SECONDS


def _read_window(window: Fields) -> Window:
    days = _read_days(window)
    start, end = _read_clock(window, "from"), _read_clock(window, "to")
    if start is not None and start == end:
        window.fault("to", "schedule_hole", 'the window is empty; a whole day is from "00:00" to "24:00"')
    if start == _DAY:
        window.fault("from", "invalid_time", 'a window may end at "24:00", not begin there')
    amount = window.amount("unit_amount")
    window.finish()
    return Window(days, start or 0, _DAY if end is None else end, amount)


def _read_days(window: Fields) -> tuple[int, ...]:
    if not window.has("days"):
        return tuple(range(len(DAYS)))
    days: list[int] = []
    documents = window.items("days")
    if not documents:
        window.fault("days", "missing_field", f"expected at least one of {', '.join(DAYS)}")
    for index, document in enumerate(documents):
        if not isinstance(document, str) or document not in DAYS:
            window.fault(f"days[{index}]", "unknown_day", f"expected one of {', '.join(DAYS)}")
        elif DAYS.index(document) in days:
            window.fault(f"days[{index}]", "duplicate_id", f"{document} is named twice")
        else:
            days.append(DAYS.index(document))
    return tuple(sorted(days))


def _read_clock(window: Fields, name: str) -> int | None:
    if not window.has(name):
        window.fault(name, "missing_field", "this field is required")
        return None
    text = window.raw(name)
    if not isinstance(text, str) or not _CLOCK.fullmatch(text):
        window.fault(name, "invalid_time", 'expected a local time on a quarter hour in quotes, such as "08:00"')
        return None
    hours, minutes = text.split(":")
    return int(hours) * _HOUR + int(minutes) * 60 // SLOT_SECONDS


def read_time_zone(fields: Fields) -> str | None:
    """Return `time_zone` (IANA name), None if it is missing; an unknown one is a fault."""
    if not fields.has("time_zone"):
        return None
    name = fields.text("time_zone")
    if name:
        try:
            check_calendar(name, 1)
        except InvalidInputError as refused:
            fields.fault("time_zone", "unknown_time_zone", refused.faults[0].reason)
    return name


def _read_spot_prices(fields: Fields) -> tuple[SpotPrice, ...]:
    read: list[tuple[Fields, datetime | None, datetime | None, Decimal]] = []
    for index, document in enumerate(fields.items("spot_prices")):
        spot = Fields(document, fields.at(f"spot_prices[{index}]"), fields.faults)
        start = _read_instant(spot, "from")
        end = _read_instant(spot, "to") if spot.has("to") else None
        read.append((spot, start, end, spot.amount("unit_amount")))
        if start is not None and end is not None and end <= start:
            spot.fault("to", "schedule_overlap", "must be after the price's own start")
        spot.finish()
    prices: list[SpotPrice] = []
    for index, (spot, start, end, amount) in enumerate(read):
        following = read[index + 1][1] if index + 1 < len(read) else None
        before = read[index - 1][1] if index else None
        if start is None:
            continue
        if before is not None and start <= before:
            spot.fault("from", "schedule_overlap", f"must be after the price before, which begins {before.isoformat()}")
        elif end is not None and following is not None and end > following > start:
            spot.fault("to", "schedule_overlap", f"reaches into the next price, which begins {following.isoformat()}")
        prices.append(SpotPrice(start, following if end is None else end, amount))
    return tuple(prices)


def _read_instant(spot: Fields, name: str) -> datetime | None:
    text = spot.raw(name) if spot.has(name) else None
    parsed = parse_event_time(text) if isinstance(text, str) else "invalid_time"
    if isinstance(parsed, str):
        reason = 'expected an instant with its zone in quotes, such as "2026-10-01T00:00:00Z"'
        spot.fault(name, "invalid_time", reason)
        return None
    if parsed % (SLOT_SECONDS * 1_000_000):
        spot.fault(name, "invalid_time", "prices change on quarter hours, because usage is kept by quarter hours")
        return None
    return _EPOCH + timedelta(microseconds=parsed)


def _lay_out(fields: Fields, windows: tuple[Window, ...]) -> tuple[int | None, ...]:
    """Return the window of each quarter hour of the week, noting windows that overlap."""
    week: list[int | None] = [None] * _WEEK
    for place, window in enumerate(windows):
        taken = [quarter for quarter in window.quarters() if week[quarter] is not None]
        if taken:
            other = week[taken[0]]
            reason = f"overlaps windows[{other}] on {_moment(taken[0])}"
            fields.fault(f"windows[{place}]", "schedule_overlap", reason)
        for quarter in window.quarters():
            week[quarter] = place
    return tuple(week)


def _refuse_holes(
    fields: Fields, week: tuple[int | None, ...], windows: tuple[Window, ...], spot_prices: tuple[SpotPrice, ...]
) -> None:
    """Without a price for other times, windows must cover the week; without windows, spot prices must not have gaps."""
    if windows:
        if None in week:
            reason = f"no price on {_moment(week.index(None))}: add a window, or unit_amount for other times"
            fields.fault("windows", "schedule_hole", reason)
        return
    for place in range(1, len(spot_prices)):
        before = spot_prices[place - 1].end
        if before is not None and before < spot_prices[place].start:
            reason = f"no price from {before.isoformat()}: close the gap, or add unit_amount for other times"
            fields.fault(f"spot_prices[{place}].from", "schedule_hole", reason)


def _moment(quarter: int) -> str:
    return f"{DAYS[quarter // _DAY]} at {_clock(quarter % _DAY)}"


def _clock(quarter: int) -> str:
    return f"{quarter // _HOUR:02}:{quarter % _HOUR * SLOT_SECONDS // 60:02}"
