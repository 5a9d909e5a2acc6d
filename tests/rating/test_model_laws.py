"""Laws of price models by themselves: whatever the price and the usage are, these hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InvalidInputError
from rating.domain.price import Inputs, Part, Price, Rated, UsageEntry, plain
from tests.rating.price_generators import (
    METERED,
    MODELS,
    MONOTONE,
    Document,
    amounts,
    corrected_usages,
    decimals,
    inputs_of,
    of_quantity,
    prices,
    quantities,
    read_price,
    tiers,
    usages,
)
from tests.rating.priced import rate_price

# For each model: laws over all of them together with adjustments are in test_laws_of_all_models.py.
few = settings(max_examples=20)
some = settings(max_examples=50)
# A division that has no end keeps 60 digits; sums of such are compared to what that leaves.
CLOSE = Decimal("1e-20")


def total(rated: Rated) -> Decimal:
    return sum((part.exact_amount for part in rated.parts), Decimal(0))


def rate_entries(price: Price, entries: Sequence[UsageEntry]) -> Rated:
    return price.rate(inputs_of(entries))


def answer(price: Price, entries: Sequence[UsageEntry]) -> Rated | InvalidInputError:
    try:
        return rate_entries(price, entries)
    except InvalidInputError as refused:
        return refused


def for_models(models: Sequence[str]) -> Callable[[Any], Any]:
    return pytest.mark.parametrize("model", models)


@for_models(METERED)
def test_the_order_of_usage_does_not_matter(model: str) -> None:
    @few
    @given(
        prices(model).map(read_price),
        usages(model).flatmap(lambda used: st.tuples(st.just(used), st.permutations(used))),
    )
    def law(price: Price, both: tuple[tuple[UsageEntry, ...], list[UsageEntry]]) -> None:
        assert rate_entries(price, both[0]) == rate_entries(price, both[1])

    law()


@for_models(METERED)
def test_no_usage_costs_only_what_is_due_without(model: str) -> None:
    @few
    @given(prices(model).map(read_price))
    def law(price: Price) -> None:
        for nothing in (inputs_of(()), of_quantity("0")):
            parts = price.rate(nothing).parts
            assert all(part.kind == "fixed" for part in parts)
            assert not parts or model == "reserved"

    law()


@for_models(MODELS)
def test_parts_can_be_told_apart_and_followed(model: str) -> None:
    @few
    @given(prices(model).map(read_price), usages(model), st.booleans())
    def law(price: Price, used: tuple[UsageEntry, ...], starts: bool) -> None:
        share = Fraction(21, 31) if starts else Fraction(1)
        rated = price.rate(inputs_of(used, share, Decimal("12.34"), starts))
        assert len({(part.key, part.dimensions) for part in rated.parts}) == len(rated.parts)
        for part in rated.parts:
            assert part.exact_amount >= 0
            assert part.steps[-1].endswith(plain(part.exact_amount))
            if part.unit_amount is not None:
                assert part.exact_amount == part.quantity * part.unit_amount / part.per
            check_steps(part)

    law()


STEP = re.compile(r"(?:^|: )([\d.]+) ([-×]) ([\d.]+)(?:/(\d+))?( %)?(?: ÷ (\d+))? = ([\d.]+)$")


def check_steps(part: Part) -> None:
    """Work every written-out multiplication and subtraction out again, in fractions."""
    for step in part.steps:
        found = STEP.search(step)
        if not found:
            continue
        left, sign, right, bottom, percent, divisor, result = found.groups()
        value = Fraction(right) / Fraction(bottom or 1) / (100 if percent else 1)
        value = Fraction(left) * value if sign == "×" else Fraction(left) - value
        assert abs(value / Fraction(divisor or 1) - Fraction(result)) <= abs(value) / 10**50, step


@for_models(("graduated", "volume", "included", "reserved", "per_unit", "graduated_percentage", "time_weighted"))
def test_all_usage_is_on_a_line_of_its_unit(model: str) -> None:
    @few
    @given(prices(model).map(read_price), quantities)
    def law(price: Price, quantity: Decimal) -> None:
        parts = price.rate(of_quantity(quantity)).parts
        assert sum((part.quantity for part in parts if part.unit is None), Decimal(0)) == quantity

    law()


@for_models(("matrix", "scheduled", "scheduled_matrix", "dynamic"))
def test_all_usage_is_on_a_line_or_unpriced(model: str) -> None:
    @few
    @given(prices(model).map(read_price), usages(model))
    def law(price: Price, used: tuple[UsageEntry, ...]) -> None:
        rated = rate_entries(price, used)
        priced = sum((part.quantity for part in rated.parts), Decimal(0))
        left = sum((quantity for _, quantity in rated.unpriced), Decimal(0))
        assert priced + left == sum((entry.quantity for entry in used), Decimal(0))

    law()


@for_models(MONOTONE)
def test_more_usage_never_costs_less(model: str) -> None:
    @few
    @given(prices(model).map(read_price), usages(model), usages(model, max_size=1))
    def law(price: Price, used: tuple[UsageEntry, ...], more: tuple[UsageEntry, ...]) -> None:
        assert total(rate_entries(price, (*used, *more))) >= total(rate_entries(price, used))

    law()


@for_models(MONOTONE)
def test_a_correction_never_costs_more_and_is_priced_or_refused(model: str) -> None:
    @few
    @given(prices(model).map(read_price), corrected_usages(model))
    def law(price: Price, used: tuple[UsageEntry, ...]) -> None:
        before = rate_entries(price, [entry for entry in used if entry.quantity >= 0])
        after = answer(price, used)
        if isinstance(after, InvalidInputError):
            assert {fault.code for fault in after.faults} == {"negative_usage"}
        else:
            assert total(after) <= total(before)
            assert all(part.exact_amount >= 0 for part in after.parts)

    law()


@for_models(METERED)
def test_what_was_taken_back_whole_costs_nothing(model: str) -> None:
    @few
    @given(prices(model).map(read_price), usages(model))
    def law(price: Price, used: tuple[UsageEntry, ...]) -> None:
        back = [
            UsageEntry(entry.at, -entry.quantity, entry.dimensions, 1, entry.amount and -entry.amount)
            for entry in used
            if entry.quantity or entry.amount
        ]
        kept = [entry for entry in used if not entry.quantity and not entry.amount]
        assert total(rate_entries(price, (*used, *back))) == total(rate_entries(price, kept))

    law()


@for_models(("per_unit", "time_weighted", "matrix", "scheduled", "scheduled_matrix", "dynamic"))
def test_usage_of_two_parts_of_a_period_adds_up(model: str) -> None:
    @few
    @given(prices(model).map(read_price), usages(model), st.integers(0, 31 * 24 * 60))
    def law(price: Price, used: tuple[UsageEntry, ...], minutes: int) -> None:
        cut = min((entry.at for entry in used), default=None)
        if cut is None:
            return
        cut = cut.replace(day=1, hour=0, minute=0) + timedelta(minutes=minutes)
        before = [entry for entry in used if entry.at < cut]
        after = [entry for entry in used if entry.at >= cut]
        both = total(rate_entries(price, before)) + total(rate_entries(price, after))
        assert abs(both - total(rate_entries(price, used))) <= CLOSE

    law()


@some
@given(tiers(), quantities)
def test_graduated_is_the_sum_over_its_tiers(cut: list[Document], quantity: Decimal) -> None:
    # Worked out apart: the quantity is poured from tier to tier.
    left, start, expected = Fraction(quantity), Fraction(0), Fraction(0)
    for tier in cut:
        if left <= 0:
            break
        room = left if tier["up_to"] == "inf" else Fraction(tier["up_to"]) - start
        poured = min(left, room)
        expected += poured * Fraction(tier.get("unit_amount", "0")) + Fraction(tier.get("flat_amount", "0"))
        left, start = left - poured, start + room
    assert Fraction(total(rate_price({"model": "graduated", "tiers": cut}, of_quantity(quantity)))) == expected


@some
@given(tiers(), quantities)
def test_volume_is_the_whole_at_the_price_of_one_tier(cut: list[Document], quantity: Decimal) -> None:
    tier = next(tier for tier in cut if tier["up_to"] == "inf" or quantity <= Decimal(tier["up_to"]))
    expected = quantity * Decimal(tier.get("unit_amount", "0")) + Decimal(tier.get("flat_amount", "0"))
    assert total(rate_price({"model": "volume", "tiers": cut}, of_quantity(quantity))) == (expected if quantity else 0)


@some
@given(tiers(), quantities)
def test_with_falling_prices_volume_is_never_dearer_than_graduated(cut: list[Document], quantity: Decimal) -> None:
    rates = sorted((Decimal(tier.get("unit_amount", "0")) for tier in cut), reverse=True)
    falling = [{"up_to": tier["up_to"], "unit_amount": plain(rate)} for tier, rate in zip(cut, rates, strict=True)]
    volume, graduated = (
        total(rate_price({"model": model, "tiers": falling}, of_quantity(quantity)))
        for model in ("volume", "graduated")
    )
    assert volume <= graduated
    if len(falling) == 1:
        assert (
            volume
            == graduated
            == total(rate_price({"model": "per_unit", **without_end(falling)}, of_quantity(quantity)))
        )


def without_end(cut: list[Document]) -> Document:
    return {"unit_amount": cut[0]["unit_amount"]}


@some
@given(amounts, usages("matrix"))
def test_a_price_that_is_the_same_everywhere_is_a_price_per_unit(amount: str, used: tuple[UsageEntry, ...]) -> None:
    week = [{"days": ["sun"], "from": "12:00", "to": "12:15", "unit_amount": amount}]
    same: list[Document] = [
        {"model": "matrix", "dimension": "model", "unit_amount": amount},
        {"model": "matrix", "dimensions": ["region"], "unit_amount": amount,
         "cells": [{"match": {"region": "eu"}, "unit_amount": amount}]},
        {"model": "scheduled", "windows": week, "unit_amount": amount, "time_zone": "America/St_Johns"},
        {"model": "time_weighted", "unit_amount": amount},
        {"model": "graduated", "tiers": [{"up_to": "inf", "unit_amount": amount}]},
        {"model": "included", "included": "0", "unit_amount": amount},
        {"model": "reserved", "capacity": "0", "flat_amount": "0", "unit_amount": amount},
        {"model": "percentage", "percent": plain(Decimal(amount) * 100)},
        {"model": "graduated_percentage", "tiers": [{"up_to": "inf", "percent": plain(Decimal(amount) * 100)}]},
    ]  # fmt: skip
    expected = total(rate_entries(read_price({"model": "per_unit", "unit_amount": amount}), used))
    for document in same:
        assert total(rate_entries(read_price(document), used)) == expected, document["model"]


@some
@given(decimals(0, 120, 3), amounts, amounts, quantities)
def test_reserved_is_a_fee_and_an_included_quantity(capacity: Decimal, fee: str, unit: str, quantity: Decimal) -> None:
    reserved = {"model": "reserved", "capacity": plain(capacity), "flat_amount": fee, "unit_amount": unit}
    included = {"model": "included", "included": plain(capacity), "unit_amount": unit}
    inputs = of_quantity(quantity)
    assert total(rate_price(reserved, inputs)) == total(rate_price(included, inputs)) + Decimal(fee)


@some
@given(prices("package"), quantities)
def test_packages_are_just_enough(document: Document, quantity: Decimal) -> None:
    parts = {part.key: part for part in rate_price(document, of_quantity(quantity)).parts}
    size, free = Decimal(document["package_size"]), Decimal(document.get("free_units", "0"))
    packages = parts["packages"].quantity if "packages" in parts else Decimal(0)
    assert packages == packages.to_integral_value()
    assert packages * size >= quantity - free
    assert packages == 0 or (packages - 1) * size < quantity - free


@some
@given(prices("percentage"), usages("percentage"))
def test_each_event_costs_what_its_bounds_allow(document: Document, used: tuple[UsageEntry, ...]) -> None:
    charged = [entry for entry in used if entry.quantity]
    found = total(rate_price(document, list(used)))
    if "per_event_maximum" in document:
        assert found <= len(used) * Decimal(document["per_event_maximum"])
    if "per_event_minimum" in document and "free_events" not in document and "free_amount" not in document:
        assert found >= len(charged) * Decimal(document["per_event_minimum"])


@some
@given(prices("percentage"), usages("percentage"))
def test_a_percentage_is_the_sum_of_its_events(document: Document, used: tuple[UsageEntry, ...]) -> None:
    # Worked out apart, event by event.
    events_left: float = document.get("free_events", float("inf"))
    amount_left = Fraction(document["free_amount"]) if "free_amount" in document else None
    allowed = "free_events" in document or amount_left is not None
    expected = Fraction(0)
    for entry in sorted(used, key=lambda entry: (entry.at, entry.quantity)):
        charged = Fraction(entry.quantity)
        if allowed and events_left > 0 and amount_left != 0:
            events_left -= 1
            within = charged if amount_left is None else min(charged, amount_left)
            amount_left = None if amount_left is None else amount_left - within
            charged -= within
            if charged == 0:
                continue
        due = charged * Fraction(document["percent"]) / 100 + Fraction(document.get("fixed_amount", "0"))
        due = max(due, Fraction(document.get("per_event_minimum", "0")))
        expected += min(due, Fraction(document["per_event_maximum"])) if "per_event_maximum" in document else due
    assert Fraction(total(rate_price(document, list(used)))) == expected


@some
@given(prices("scheduled"), usages("scheduled"), st.fractions(0, 1, max_denominator=8))
def test_splitting_a_quarter_hour_changes_nothing(
    document: Document, used: tuple[UsageEntry, ...], share: Fraction
) -> None:
    split = []
    for entry in used:
        first = (entry.quantity * share.numerator / share.denominator).quantize(Decimal("1e-12"))
        split += [UsageEntry(entry.at, part, entry.dimensions) for part in (first, entry.quantity - first)]
    assert total(rate_price(document, split)) == total(rate_price(document, list(used)))


@some
@given(prices("matrix"), usages("matrix"))
def test_a_matrix_prices_each_combination_as_if_alone(document: Document, used: tuple[UsageEntry, ...]) -> None:
    price = read_price(document)
    alone = [
        total(price.rate(Inputs({dimensions: quantity}, Fraction(1), Decimal(0))))
        for dimensions, quantity in inputs_of(used).usage.items()
    ]
    assert abs(sum(alone, Decimal(0)) - total(rate_entries(price, used))) <= CLOSE
