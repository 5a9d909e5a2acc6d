"""Percentage: a share of each event's amount, with a fixed amount per event, free allowances and bounds.

Events are taken in order of their times. For each, in this order:

1. free allowances: an event is free while `free_events` and `free_amount` both last (the one not given always lasts);
   each free event uses one of the first and its amount of the second. Of the event that exceeds `free_amount` only
   what is beyond it is charged, and that event ends the allowance.
2. `percent` of what is charged of the event, plus `fixed_amount`.
3. raised to `per_event_minimum`, cut to `per_event_maximum`. A free event costs nothing, whatever the minimum.

Negative entries take back the newest amounts first (`corrections.amounts_in_order`).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from core.errors import Fault, InvalidInputError
from rating.domain.fields import MAX_DIGITS_FRACTION, Fields
from rating.domain.models.corrections import amounts_in_order, refuse_negative
from rating.domain.price import ZERO, Basis, Grain, Inputs, Part, Price, Rated, multiply, plain, product_step

HUNDRED = 100


@dataclass(slots=True)
class _Bucket:
    """Events of one treatment: how many, and the sum of what is charged of them."""

    events: int = 0
    amount: Decimal = ZERO

    def put(self, amount: Decimal) -> None:
        self.events += 1
        self.amount += amount


@dataclass(frozen=True, slots=True)
class Percentage(Price):
    """`percent` of an amount meter. None where there is no such allowance or bound; zero is one."""

    model: ClassVar[str] = "percentage"
    basis: ClassVar[Basis] = Basis.USAGE
    grain: ClassVar[Grain] = Grain.EVENT
    percent: Decimal
    fixed_amount: Decimal
    free_events: int | None
    free_amount: Decimal | None
    per_event_minimum: Decimal | None
    per_event_maximum: Decimal | None

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> Percentage:
        """Read `percent` and the optional `fixed_amount`, `free_events`, `free_amount`, `per_event_minimum/maximum`."""
        percent, fixed = fields.amount("percent"), fields.amount("fixed_amount", ZERO)
        free_events = _read_count(fields, "free_events") if fields.has("free_events") else None
        free_amount = fields.amount("free_amount") if fields.has("free_amount") else None
        lowest = fields.amount("per_event_minimum") if fields.has("per_event_minimum") else None
        highest = fields.amount("per_event_maximum") if fields.has("per_event_maximum") else None
        if lowest is not None and highest is not None and lowest > highest:
            reason = f"the minimum of an event, {plain(lowest)}, is above its maximum, {plain(highest)}"
            fields.fault("per_event_minimum", "contradiction", reason)
        return cls(percent, fixed, free_events, free_amount, lowest, highest)

    def rate(self, inputs: Inputs) -> Rated:
        """Return what is free, the percentage, the fixed amounts, and the events at their minimum or maximum."""
        free, ordinary, lifted, capped = _Bucket(), _Bucket(), _Bucket(), _Bucket()
        partly = ZERO
        events_left = self.free_events
        amount_left = self.free_amount
        allowed = events_left is not None or amount_left is not None
        for amount in self._amounts(inputs):
            charged = amount
            if allowed and events_left != 0 and amount_left != 0:
                within = amount if amount_left is None else min(amount, amount_left)
                events_left = None if events_left is None else events_left - 1
                amount_left = None if amount_left is None else amount_left - within
                charged = amount - within
                if charged == 0:
                    free.put(amount)
                    continue
                partly += within
            due = multiply(charged, self.percent, HUNDRED) + self.fixed_amount
            if self.per_event_minimum is not None and due < self.per_event_minimum:
                lifted.put(charged)
            elif self.per_event_maximum is not None and due > self.per_event_maximum:
                capped.put(charged)
            else:
                ordinary.put(charged)
        return Rated(tuple(self._parts(free, partly, ordinary, lifted, capped, counted=bool(inputs.entries))))

    def _amounts(self, inputs: Inputs) -> list[Decimal]:
        """Return the events' amounts in order; a total without events will do where the price depends on no event."""
        if inputs.entries or not inputs.usage:
            return amounts_in_order(inputs.entries)
        total = inputs.total
        refuse_negative(total, "all events")
        if total == 0:
            return []
        per_event = (self.free_events, self.per_event_minimum, self.per_event_maximum)
        if self.fixed_amount or any(bound is not None for bound in per_event):
            raise InvalidInputError([Fault("events_needed", "this price is per event: give the events", "usage")])
        return [total]

    def _parts(
        self, free: _Bucket, partly: Decimal, ordinary: _Bucket, lifted: _Bucket, capped: _Bucket, *, counted: bool
    ) -> list[Part]:
        parts = []
        if free.events or partly:
            amounts = [f"{_events(free.events)} of {plain(free.amount)}"] if free.events else []
            amounts += [f"{plain(partly)} of {'one more' if free.events else 'an event'}"] if partly else []
            step = f"{' and '.join(amounts)} free = 0"
            parts.append(Part("free", "free", (), free.amount + partly, ZERO, 1, ZERO, (step,)))
        if ordinary.events:
            amount = multiply(ordinary.amount, self.percent, HUNDRED)
            label = f"{plain(self.percent)} %" + (f" of {_events(ordinary.events)}" if counted else "")
            step = percent_step(ordinary.amount, self.percent, amount)
            parts.append(Part("percent", label, (), ordinary.amount, self.percent, HUNDRED, amount, (step,)))
            if self.fixed_amount:
                parts.append(_per_event("fixed", "fixed amount per event", ordinary, self.fixed_amount))
        if lifted.events and self.per_event_minimum is not None:
            parts.append(_per_event("minimum", "events at the minimum", lifted, self.per_event_minimum))
        if capped.events and self.per_event_maximum is not None:
            parts.append(_per_event("maximum", "events at the maximum", capped, self.per_event_maximum))
        return parts


def percent_step(amount: Decimal, percent: Decimal, share: Decimal) -> str:
    """Write one percentage out for `explain`."""
    return f"{plain(amount)} × {plain(percent)} % = {plain(share)}"


def _per_event(key: str, label: str, bucket: _Bucket, price: Decimal) -> Part:
    count = Decimal(bucket.events)
    amount = multiply(count, price, 1)
    steps = [] if key == "fixed" else [f"{_events(bucket.events)} of {plain(bucket.amount)} in all"]
    steps.append(product_step(count, price, 1, amount))
    return Part(key, label, (), count, price, 1, amount, tuple(steps), unit="event")


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count:,} events"


def _read_count(fields: Fields, name: str) -> int:
    value = fields.raw(name)
    if type(value) is not int or not 0 <= value <= 10**MAX_DIGITS_FRACTION:
        fields.fault(name, "invalid_number", "expected a whole number of at least 0")
        return 0
    return value
