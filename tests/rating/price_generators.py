"""Valid prices and usage of every price model, for laws that must hold whatever the price is.

`prices(model)` gives documents as a catalogue has them (without id, name and meter), `usages(model)` entries of usage
that such a price can rate; bounds of tiers lie within reach of the quantities, so every branch is met. Quantities and
amounts often lie on a bound or just beside one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from core.errors import Fault, InvalidInputError
from core.meters import Meter
from rating.domain.fields import Fields
from rating.domain.price import Basis, Dimensions, Inputs, Price, UsageEntry, plain
from rating.domain.registry import PRICE_MODELS

Document = dict[str, Any]

DIMENSIONS = ("model", "region")
METER = Meter("usage", "unit", "test.usage", "sum", "value", DIMENSIONS)
MODELS = tuple(PRICE_MODELS)
METERED = tuple(name for name, model in PRICE_MODELS.items() if model.basis is Basis.USAGE)
# Priced by the subscription's quantity as well (`recurring.usage_type: licensed`).
LICENSABLE = ("per_unit", "graduated", "volume", "tiered", "package")
# Never cheaper for more usage; volume is, by its nature.
MONOTONE = tuple(name for name in METERED if name not in ("volume", "tiered"))

_START = datetime(2026, 10, 1, tzinfo=UTC)
_SLOT = timedelta(minutes=15)
_MODEL_VALUES = ("", "gpt4", "claude", "other")
_REGION_VALUES = ("", "eu", "us")


def read_price(document: Document, dimensions: tuple[str, ...] = DIMENSIONS) -> Price:
    """Return the price of a document; raises `InvalidInputError` with every fault, paths from the price's own root."""
    faults: list[Fault] = []
    fields = Fields(document, "", faults)
    name = fields.choice("model", PRICE_MODELS, "unknown_price_model")
    price = PRICE_MODELS[name].read(fields, dimensions)
    fields.finish()
    if faults:
        raise InvalidInputError(faults)
    return price


def inputs_of(
    entries: Iterable[UsageEntry],
    share: Fraction = Fraction(1),
    subtotal: Decimal = Decimal(0),
    starts: bool = False,
    time_zone: str = "UTC",
) -> Inputs:
    """Return what a model is given for these entries: the same usage in totals and in detail."""
    entries = tuple(entries)
    usage: dict[Dimensions, Decimal] = {}
    for entry in entries:
        usage[entry.dimensions] = usage.get(entry.dimensions, Decimal(0)) + entry.quantity
    return Inputs(usage, share, subtotal, entries, time_zone=time_zone, starts=starts)


def of_quantity(quantity: Decimal | str, dimensions: Dimensions = ()) -> Inputs:
    """Return inputs of one quantity, in totals only."""
    return Inputs({dimensions: Decimal(quantity)}, Fraction(1), Decimal(0))


def decimals(lowest: int, highest: int, places: int) -> st.SearchStrategy[Decimal]:
    """Decimals between two whole numbers, with at most so many places."""
    scale = 10**places
    return st.integers(lowest * scale, highest * scale).map(lambda scaled: Decimal(scaled).scaleb(-places).normalize())


amounts = st.one_of(st.sampled_from(["0", "1", "0.1", "0.333333333333"]), decimals(0, 100, 6).map(plain))
quantities = st.one_of(
    st.integers(0, 120).map(Decimal),
    decimals(0, 120, 12),
    st.sampled_from([Decimal(text) for text in ("10", "9.999999999999", "10.000000000001", "99.5", "100", "0.5")]),
    st.integers(0, 10**27).map(Decimal),
)
transforms = st.sampled_from(
    [{}, {"transform_quantity": {"divide_by": 1000}}, {"transform_quantity": {"divide_by": 3}}]
)


@st.composite
def tiers(draw: st.DrawFn, rate_field: str = "unit_amount", rates: st.SearchStrategy[str] = amounts) -> list[Document]:
    """Rising tiers with prices, flat amounts or both."""
    bounds = draw(st.lists(st.one_of(st.sampled_from([10, 99, 100]), st.integers(1, 120)), unique=True, max_size=4))
    documents = []
    for up_to in [*map(str, sorted(bounds)), "inf"]:
        tier: Document = {"up_to": up_to}
        kind = draw(st.sampled_from(["unit", "unit", "flat", "both"]))
        if kind != "flat":
            tier[rate_field] = draw(rates)
        if kind != "unit":
            tier["flat_amount"] = draw(amounts)
        documents.append(tier)
    return documents


def prices(model: str) -> st.SearchStrategy[Document]:
    """Documents of valid prices of a model."""
    return _PRICES[model]()


def usages(model: str, max_size: int = 6) -> st.SearchStrategy[tuple[UsageEntry, ...]]:
    """Entries of usage in October 2026, none of them negative: quarter hours, and events of their own."""
    return st.lists(_entries(carries_amount=model == "dynamic"), max_size=max_size).map(tuple)


@st.composite
def corrected_usages(draw: st.DrawFn, model: str) -> tuple[UsageEntry, ...]:
    """Entries some of which are taken back, whole or in part, at a later time, so that no total is negative."""
    entries = draw(usages(model))
    corrections = []
    for entry in entries:
        part = draw(st.sampled_from([None, None, Decimal(1), Decimal("0.5")]))
        if part is not None:
            amount = None if entry.amount is None else -entry.amount * part
            corrections.append(UsageEntry(entry.at, -entry.quantity * part, entry.dimensions, 1, amount))
    return entries + tuple(corrections)


@st.composite
def _entries(draw: st.DrawFn, carries_amount: bool) -> UsageEntry:
    at = _START + _SLOT * draw(st.integers(0, 31 * 96 - 1))
    values = (("model", draw(st.sampled_from(_MODEL_VALUES))), ("region", draw(st.sampled_from(_REGION_VALUES))))
    amount = Decimal(draw(amounts)) if carries_amount and draw(st.integers(0, 9)) else None
    return UsageEntry(at, draw(quantities), tuple((name, value) for name, value in values if value), 1, amount)


def _flat() -> st.SearchStrategy[Document]:
    return st.builds(lambda amount: {"model": "flat", "flat_amount": amount}, amounts)


def _simple(model: str) -> st.SearchStrategy[Document]:
    return st.builds(lambda amount, per: {"model": model, "unit_amount": amount, **per}, amounts, transforms)


@st.composite
def _included(draw: st.DrawFn) -> Document:
    document = {"model": "included", "included": plain(draw(decimals(0, 120, 3)))}
    overage = {"hard_limit": True} if draw(st.booleans()) else {"unit_amount": draw(amounts), **draw(transforms)}
    return document | overage


@st.composite
def _tiered(draw: st.DrawFn, model: str) -> Document:
    mode = draw(st.sampled_from(["graduated", "volume"] if model == "tiered" else [model]))
    said = model == "tiered" or draw(st.booleans())
    document = {"model": model, "tiers": draw(tiers()), **draw(transforms)}
    return document | ({"tiers_mode": mode} if said else {})


def _package() -> st.SearchStrategy[Document]:
    sizes = st.one_of(st.sampled_from(["1", "10", "3", "0.5"]), decimals(1, 50, 3).map(plain))
    free: st.SearchStrategy[Document] = st.one_of(
        st.just({}), decimals(0, 50, 3).map(lambda units: {"free_units": plain(units)})
    )
    return st.builds(
        lambda size, amount, rest: {"model": "package", "package_size": size, "unit_amount": amount, **rest},
        sizes,
        amounts,
        free,
    )


percents = st.one_of(st.sampled_from(["0", "1", "2.9", "100"]), decimals(0, 20, 4).map(plain))


@st.composite
def _percentage(draw: st.DrawFn) -> Document:
    document: Document = {"model": "percentage", "percent": draw(percents)}
    if draw(st.booleans()):
        document["fixed_amount"] = draw(amounts)
    if draw(st.booleans()):
        document["free_events"] = draw(st.integers(0, 4))
    if draw(st.booleans()):
        document["free_amount"] = plain(draw(decimals(0, 150, 2)))
    bounds = sorted([draw(decimals(0, 40, 2)), draw(decimals(0, 40, 2))])
    if draw(st.booleans()):
        document["per_event_minimum"] = plain(bounds[0])
    if draw(st.booleans()):
        document["per_event_maximum"] = plain(bounds[1])
    return document


def _graduated_percentage() -> st.SearchStrategy[Document]:
    return st.builds(lambda cut: {"model": "graduated_percentage", "tiers": cut}, tiers("percent", percents))


@st.composite
def _matrix(draw: st.DrawFn) -> Document:
    document: Document = {"model": "matrix", **draw(transforms)}
    if draw(st.booleans()):
        document["unit_amount"] = draw(amounts)
    if draw(st.booleans()):
        keys = draw(st.lists(st.sampled_from(_MODEL_VALUES[1:]), min_size=1, unique=True))
        return document | {"dimension": "model", "unit_amounts": {key: draw(amounts) for key in keys}}
    models = draw(st.lists(st.sampled_from(_MODEL_VALUES[1:]), min_size=1, unique=True))
    regions = draw(st.lists(st.sampled_from(_REGION_VALUES[1:]), unique=True))
    # A column for a model, a row for a region, and each of their crossings, so that nothing is ambiguous.
    matches = [{"model": model} for model in models] + [{"model": "*", "region": region} for region in regions]
    matches += [{"model": model, "region": region} for model in models for region in regions]
    cells = [{"match": match, "unit_amount": draw(amounts)} for match in draw(st.permutations(matches))]
    return document | {"dimensions": list(draw(st.permutations(DIMENSIONS))), "cells": cells}


def _dynamic() -> st.SearchStrategy[Document]:
    multipliers: st.SearchStrategy[Document] = st.one_of(
        st.just({}), amounts.map(lambda amount: {"multiplier": amount})
    )
    return multipliers.map(lambda rest: {"model": "dynamic", "amount_property": "cost", **rest})


@st.composite
def _reserved(draw: st.DrawFn) -> Document:
    document = {"model": "reserved", "capacity": plain(draw(decimals(0, 120, 3))), "unit_amount": draw(amounts)}
    kinds = draw(st.sampled_from([("flat_amount",), ("upfront_amount",), ("flat_amount", "upfront_amount")]))
    return document | {kind: draw(amounts) for kind in kinds} | draw(transforms)


@st.composite
def _scheduled(draw: st.DrawFn) -> Document:
    document: Document = {"model": "scheduled", **draw(transforms)}
    zone = draw(st.sampled_from([None, "UTC", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu"]))
    if zone is not None:
        document["time_zone"] = zone
    if draw(st.booleans()):
        document["unit_amount"] = draw(amounts)
    kinds = draw(st.sampled_from([("windows",), ("spot_prices",), ("windows", "spot_prices")]))
    if "windows" in kinds:
        document["windows"] = draw(_windows())
    if "spot_prices" in kinds:
        starts = sorted(draw(st.lists(st.integers(0, 31 * 96), min_size=1, max_size=5, unique=True)))
        document["spot_prices"] = [
            {"from": (_START + _SLOT * start).isoformat(), "unit_amount": draw(amounts)} for start in starts
        ]
        if draw(st.booleans()):
            document["spot_prices"][-1]["to"] = (_START + _SLOT * (starts[-1] + 5)).isoformat()
    return document


@st.composite
def _scheduled_matrix(draw: st.DrawFn) -> Document:
    document = draw(_matrix().filter(lambda drawn: "cells" in drawn)) | {"model": "scheduled_matrix"}
    document["time_zone"] = draw(st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"]))
    timed = draw(st.integers(1, len(document["cells"])))
    for cell in document["cells"][:timed]:
        schedule = draw(_scheduled())
        cell |= {name: schedule[name] for name in ("windows", "spot_prices") if name in schedule}
    return document


@st.composite
def _windows(draw: st.DrawFn) -> list[Document]:
    """Windows that cover the week: the same hours on every day, or others from Monday to Friday than at weekends."""
    windows = []
    every_day: list[list[str] | None] = [None]
    groups = draw(st.sampled_from([every_day, [["mon", "tue", "wed", "thu", "fri"], ["sat", "sun"]]]))
    # A window over midnight would run into the other days' group.
    over_midnight = groups is every_day and draw(st.booleans())
    for days in groups:
        borders = sorted(draw(st.lists(st.integers(1, 95), min_size=over_midnight, max_size=3, unique=True)))
        stops = [*borders, borders[0]] if over_midnight and len(borders) > 1 else [0, *borders, 96]
        for start, end in pairwise(stops):
            window: Document = {"from": _clock(start), "to": _clock(end), "unit_amount": draw(amounts)}
            windows.append(window | ({} if days is None else {"days": days}))
    return windows


def _clock(quarter: int) -> str:
    return f"{quarter // 4:02}:{quarter % 4 * 15:02}"


def _plan_level(model: str, field: str) -> st.SearchStrategy[Document]:
    return amounts.map(lambda amount: {"model": model, field: amount})


_PRICES: dict[str, Callable[[], st.SearchStrategy[Document]]] = {
    "flat": _flat,
    "per_unit": lambda: _simple("per_unit"),
    "included": _included,
    "graduated": lambda: _tiered("graduated"),
    "volume": lambda: _tiered("volume"),
    "tiered": lambda: _tiered("tiered"),
    "package": _package,
    "percentage": _percentage,
    "graduated_percentage": _graduated_percentage,
    "matrix": _matrix,
    "dynamic": _dynamic,
    "reserved": _reserved,
    "scheduled": _scheduled,
    "scheduled_matrix": _scheduled_matrix,
    "time_weighted": lambda: _simple("time_weighted"),
    "minimum": lambda: _plan_level("minimum", "minimum_amount"),
    "commitment": lambda: _plan_level("commitment", "commitment_amount"),
}
