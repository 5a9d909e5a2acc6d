"""What every foreign table is read into: prices by model, kind and condition, and what could not be read into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal

from catalogues.price_books.kinds import KINDS
from core.errors import Fault

# What a price depends on beside the model and the kind: (dimension, value) pairs sorted by dimension; () is the price
# for every request that no other condition names.
Condition = tuple[tuple[str, str], ...]
ALWAYS: Condition = ()
CONTEXT, SERVICE_TIER, SEARCH_CONTEXT = "context", "service_tier", "search_context"
# Where no price is given for both: a request's length decides before its service tier (LiteLLM's rule).
_STRONGER_FIRST = (CONTEXT, SERVICE_TIER)

# By kind, then by condition, for the kind's `per` units.
Prices = Mapping[str, Mapping[Condition, Decimal]]


@dataclass(frozen=True, slots=True)
class Since:
    """From the beginning of a day in UTC on."""

    day: date

    def holds(self, instant: datetime) -> bool:
        """Tell whether an instant in UTC is on that day or later."""
        return instant.date() >= self.day


@dataclass(frozen=True, slots=True)
class Daily:
    """Every day from `start` to before `end`, in UTC."""

    start: time
    end: time

    def holds(self, instant: datetime) -> bool:
        """Tell whether an instant in UTC is within the hours."""
        return self.start <= instant.time() < self.end


@dataclass(frozen=True, slots=True)
class TimedPrices:
    """Prices and when they hold; `when` is None for always. Of several that hold, the last one counts."""

    when: Since | Daily | None
    prices: Prices


@dataclass(frozen=True, slots=True)
class ModelPrices:
    """A model as events name it, and its prices in the table's order; the first always hold."""

    model: str
    timed: tuple[TimedPrices, ...]
    path: str

    def at(self, instant: datetime) -> Prices:
        """Return the prices that hold at an instant in UTC."""
        holding = [one.prices for one in self.timed if one.when is None or one.when.holds(instant)]
        return holding[-1] if holding else {}


@dataclass(frozen=True, slots=True)
class Unexpressed:
    """Something a table says that the book cannot: where, a stable code, a sentence."""

    path: str
    code: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason} [{self.code}]"


@dataclass(frozen=True, slots=True)
class PriceSheet:
    """A table's prices, models sorted by name, and what was left out."""

    models: tuple[ModelPrices, ...]
    unexpressed: tuple[Unexpressed, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of a table's models are wanted: of these providers, and by these names; empty means all.

    A name is one that events use; a format with rules for names finds the entry behind it.
    """

    providers: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


EVERYTHING = Selection()


def is_name(value: object) -> bool:
    """Tell whether a model may be called so: 1 to 200 printable characters, and not what stands for any model."""
    return isinstance(value, str) and bool(value.strip()) and len(value) <= 200 and value.isprintable() and value != "*"


def check_selection(selection: Selection, faults: list[Fault]) -> None:
    """Note names (`invalid_text`) that no model can have."""
    for name in selection.models:
        if not is_name(name):
            faults.append(Fault("invalid_text", f"no name of a model: {name[:60]!r}", "--model"))


def sheet_of(models: Iterable[ModelPrices], unexpressed: Iterable[Unexpressed]) -> PriceSheet:
    """Return a sheet of models by name; one name with different prices (of two providers) is left out and reported."""
    by_name: dict[str, list[ModelPrices]] = {}
    for one in models:
        by_name.setdefault(one.model, []).append(one)
    kept, left_out = [], list(unexpressed)
    for name in sorted(by_name):
        found = by_name[name]
        if all(other.timed == found[0].timed for other in found):
            kept.append(found[0])
            continue
        places = ", ".join(one.path for one in found)
        reason = f"the name {name!r} has different prices at {places}: choose with --provider"
        left_out.append(Unexpressed(found[0].path, "ambiguous_model", reason))
    return PriceSheet(tuple(kept), tuple(left_out))


def by_model_only(sheet: PriceSheet) -> PriceSheet:
    """Return the sheet without prices that depend on a request's length or service tier, which it reports by model."""
    models, left_out = [], list(sheet.unexpressed)
    for model in sheet.models:
        timed, dropped = [], set[Condition]()
        for one in model.timed:
            prices = {kind: dict(by_condition) for kind, by_condition in one.prices.items()}
            for by_condition in prices.values():
                of_requests = [condition for condition in by_condition if _is_of_requests(condition)]
                dropped.update(of_requests)
                for condition in of_requests:
                    del by_condition[condition]
            timed.append(TimedPrices(one.when, prices))
        if dropped:
            shown = ", ".join(sorted({" ".join(value for _, value in condition) for condition in dropped}))
            reason = f"{model.model} has other prices for {shown}, which are left out by choice"
            left_out.append(Unexpressed(model.path, "by_model_only", reason))
        models.append(ModelPrices(model.model, tuple(timed), model.path))
    return PriceSheet(tuple(models), tuple(left_out))


def _is_of_requests(condition: Condition) -> bool:
    return any(dimension in (CONTEXT, SERVICE_TIER) for dimension, _ in condition)


class AmbiguousPriceError(Exception):
    """Several wider kinds have a price, so none can be told."""


def price_of(prices: Prices, kind_id: str, condition: Condition) -> Decimal | None:
    """Return what a kind costs under a condition, from the next wider kind if it has no price; None if nothing has one.

    Raises `AmbiguousPriceError` where two wider kinds have a price of their own.
    """
    own = prices.get(kind_id, {})
    for candidate in _from_narrow(condition):
        if candidate in own:
            return own[candidate]
    wider = KINDS[kind_id].wider
    priced = [other for other in wider if prices.get(other)]
    if len(priced) > 1:
        raise AmbiguousPriceError(f"no price of its own, and both {' and '.join(priced)} have one")
    found = priced or wider[:1]
    return price_of(prices, found[0], condition) if found else None


def conditions_of(prices: Prices) -> list[Condition]:
    """Return all conditions that any kind names, and what their parts can be combined to, narrow ones last."""
    parts: dict[str, set[str]] = {}
    for by_condition in prices.values():
        for condition in by_condition:
            for dimension, value in condition:
                parts.setdefault(dimension, set()).add(value)
    combined: list[Condition] = [ALWAYS]
    for dimension in sorted(parts):
        combined += [(*before, (dimension, value)) for before in combined for value in sorted(parts[dimension])]
    return sorted(combined, key=lambda condition: (len(condition), condition))


def _from_narrow(condition: Condition) -> Iterator[Condition]:
    """Yield the condition, then what it is made of, the stronger part first, then no condition."""
    yield condition
    if len(condition) > 1:
        for dimension in _STRONGER_FIRST:
            part = tuple(pair for pair in condition if pair[0] == dimension)
            if part:
                yield part
    if condition:
        yield ALWAYS
