"""Lays a sheet's prices out as cells of a matrix: one kind at a time, as few cells as say the same.

A price that changes with time becomes a cell with windows or dated prices. What the models cannot say is reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

from catalogues.price_books.kinds import KINDS
from catalogues.price_books.sheet import (
    AmbiguousPriceError,
    Condition,
    Daily,
    ModelPrices,
    Prices,
    PriceSheet,
    Since,
    Unexpressed,
    conditions_of,
    price_of,
)

_DAY_START = time(0)
_QUARTER = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class CellPrice:
    """What one cell costs: `amount`, but for the hours of `windows` (from, to, amount), or from the days of `dated` on.

    `amount` is None only where windows cover the whole day.
    """

    amount: Decimal | None
    windows: tuple[tuple[time, time, Decimal], ...] = ()
    dated: tuple[tuple[datetime, Decimal], ...] = ()

    @property
    def is_timed(self) -> bool:
        """Whether the price depends on when."""
        return bool(self.windows or self.dated)


@dataclass(frozen=True, slots=True)
class Cell:
    """A model under a condition, and what it costs."""

    model: str
    condition: Condition
    price: CellPrice


def lay_out_cells(sheet: PriceSheet, kind_id: str, unexpressed: list[Unexpressed]) -> list[Cell]:
    """Return the cells of a kind, in the order of models and conditions; models without a price of it have none."""
    cells: list[Cell] = []
    for model in sheet.models:
        try:
            cells += _cells_of(model, kind_id)
        except _CannotSayError as error:
            unexpressed.append(Unexpressed(f"{model.path} ({kind_id})", error.code, f"{model.model}: {error}"))
    return cells


class _CannotSayError(Exception):
    """The price models cannot say it; `code` is stable."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def _cells_of(model: ModelPrices, kind_id: str) -> list[Cell]:
    cells: dict[Condition, CellPrice] = {}
    for condition in _conditions(model, kind_id):
        price = _timed_price(model, kind_id, condition)
        stood_for = _stood_for(cells, condition)
        if price is None:
            if stood_for:
                raise _CannotSayError("no_price", f"a price for some requests, but none for {condition}")
            continue
        if [price] != stood_for:
            cells[condition] = price
    return [Cell(model.model, condition, price) for condition, price in cells.items()]


def _stood_for(cells: dict[Condition, CellPrice], condition: Condition) -> list[CellPrice]:
    """Return the prices of the most specific cells that match a condition: more than one is a tie."""
    matching = [one for one in cells if set(one) <= set(condition)]
    size = max((len(one) for one in matching), default=0)
    return [cells[one] for one in matching if len(one) == size]


def _conditions(model: ModelPrices, kind_id: str) -> list[Condition]:
    """Return the conditions a kind's price may depend on: those of its own and of wider kinds' prices."""
    chain = _with_wider(kind_id)
    merged: dict[str, dict[Condition, Decimal]] = {}
    for index, timed in enumerate(model.timed):
        merged |= {f"{index} {name}": dict(prices) for name, prices in timed.prices.items() if name in chain}
    return conditions_of(merged)


def _with_wider(kind_id: str) -> set[str]:
    return {kind_id}.union(*(_with_wider(wider) for wider in KINDS[kind_id].wider))


def _timed_price(model: ModelPrices, kind_id: str, condition: Condition) -> CellPrice | None:
    rules = [timed.when for timed in model.timed if timed.when is not None]
    days = sorted({rule.day for rule in rules if isinstance(rule, Since)})
    hours = sorted({border for rule in rules if isinstance(rule, Daily) for border in (rule.start, rule.end)})
    if days and hours:
        raise _CannotSayError("mixed_schedule", "prices by hour that change from a day on")
    if hours:
        return _by_hours(model, kind_id, condition, hours)
    starts = [datetime.combine(day, _DAY_START, UTC) for day in days]
    before = (starts[0] if starts else datetime(2000, 1, 1, tzinfo=UTC)) - timedelta(days=1)
    amounts = [_amount(model.at(instant), kind_id, condition) for instant in (before, *starts)]
    first, *later = amounts
    if first is None or None in later:
        if any(amount is not None for amount in amounts):
            raise _CannotSayError("no_price", "a price from a day on only")
        return None
    dated, held = [], first
    for start, amount in zip(starts, later, strict=True):
        if amount is not None and amount != held:
            dated.append((start, amount))
            held = amount
    return CellPrice(first, dated=tuple(dated))


def _by_hours(model: ModelPrices, kind_id: str, condition: Condition, hours: Iterable[time]) -> CellPrice | None:
    some_day = datetime(2000, 1, 1, tzinfo=UTC)
    borders = sorted({_DAY_START, *hours})
    if any((datetime.combine(some_day, border, UTC) - some_day) % _QUARTER for border in borders):
        raise _CannotSayError("odd_hours", "prices that change between quarter hours")
    amounts = {
        border: _amount(model.at(datetime.combine(some_day, border, UTC)), kind_id, condition) for border in borders
    }
    if None in amounts.values():
        if any(amount is not None for amount in amounts.values()):
            raise _CannotSayError("no_price", "a price at some hours only")
        return None
    # What is not under a constraint is the price of all other times; without one, the windows cover the day.
    always = [timed.prices for timed in model.timed if timed.when is None]
    standard = _amount(always[-1], kind_id, condition) if always else None
    ends = [*borders[1:], _DAY_START]
    windows = [
        (start, end, amount)
        for (start, amount), end in zip(amounts.items(), ends, strict=True)
        if amount is not None and amount != standard
    ]
    return CellPrice(standard, windows=tuple(windows))


def _amount(prices: Prices, kind_id: str, condition: Condition) -> Decimal | None:
    try:
        return price_of(prices, kind_id, condition)
    except AmbiguousPriceError as error:
        raise _CannotSayError("ambiguous_price", str(error)) from None
