"""Laws that hold for every price model with any adjustments, through the function that invoices are made with."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from core.money import round_to_minor
from rating.domain.extent import Extent
from rating.domain.price import ZERO
from rating.rate_charges import Rating, rate_charge
from rating.rate_slices import bill_difference, rate_list, rate_slices
from tests.rating.charge_generators import (
    METER,
    SUMMED,
    Case,
    cases,
    is_bounded,
    licensed_charges,
    usage_of,
)
from tests.rating.price_generators import MONOTONE, decimals, usages

CENT = Decimal("0.01")
currencies = st.sampled_from(["USD", "JPY", "KWD", "CLF"])


def rated(case: Case, currency: str = "USD") -> Rating:
    return rate_list([case.charge], currency, case.used)


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter(case: Case, random: Any) -> None:
    shuffled = list(case.entries)
    random.shuffle(shuffled)
    assert rated(Case(case.document, case.charge, tuple(shuffled))) == rated(case)


@given(cases(), currencies)
def test_every_line_is_rounded_once_and_lines_add_up(case: Case, currency: str) -> None:
    rating = rated(case, currency=currency)
    assert rating.total == sum((line.amount for line in rating.lines), ZERO)
    for line in rating.lines:
        assert line.amount == round_to_minor(line.exact_amount, currency)
        assert line.steps
        if line.unit_amount is not None:
            assert line.exact_amount == line.quantity * line.unit_amount / line.per
        if line.exact_amount < 0:
            assert line.kind in ("discount", "maximum")


@given(cases())
def test_lines_have_distinct_names(case: Case) -> None:
    names = Counter((line.charge_id, line.part, line.dimensions) for line in rated(case).lines)
    assert all(count == 1 for count in names.values())


@given(cases())
def test_rating_twice_gives_the_same_and_nothing_new(case: Case) -> None:
    assert rated(case) == rated(case)
    assert bill_difference(rated(case).lines, rated(case).lines) == []


@given(cases())
def test_a_total_is_never_negative_and_keeps_its_bounds(case: Case) -> None:
    total = rated(case).total
    assert total >= 0
    if "minimum_amount" in case.document:
        assert total >= round_to_minor(Decimal(case.document["minimum_amount"]), "USD")
    if "maximum_amount" in case.document:
        assert total <= round_to_minor(Decimal(case.document["maximum_amount"]), "USD")
    if "commitment" in case.document:
        assert total >= round_to_minor(Decimal(case.document["commitment"]["amount"]), "USD")
    if case.document.get("discount") == {"percent_off": "100"} and not is_bounded(case.charge):
        assert total == 0


@given(cases(models=MONOTONE, corrected=False), st.data())
def test_more_usage_never_costs_less(case: Case, data: st.DataObject) -> None:
    more = data.draw(usages(case.charge.price.model))
    larger = Case(case.document, case.charge, case.entries + more)
    # Bounds follow rounded amounts, and free units are spread to the 12th decimal place.
    slack = CENT * len(rated(larger).lines) if is_bounded(case.charge) else Decimal("0.000001")
    assert rated(larger).exact_total >= rated(case).exact_total - slack


@given(cases(), st.data(), currencies)
def test_progressive_slices_add_up_to_one_bill(case: Case, data: st.DataObject, currency: str) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(case.entries)), max_size=4)))
    borders = [0, *cuts, len(case.entries)]
    slices = [{METER.meter_id: usage_of(case.entries[start:end])} for start, end in pairwise(borders)]
    ratings = list(rate_slices([case.charge], currency, slices))
    whole = rated(case, currency=currency)
    assert sum((rating.total for rating in ratings), ZERO) == whole.total
    # A price of 3 units has no end in decimals, so 60 digits of a difference are not those of the whole.
    assert abs(sum((rating.exact_total for rating in ratings), ZERO) - whole.exact_total) < Decimal("1e-20")
    # Line by line as well, in amounts and quantities.
    left: Counter[Any] = Counter()
    for line in [line for rating in ratings for line in rating.lines]:
        key = (line.part, line.dimensions)
        left[key, "quantity"] += line.quantity  # type: ignore[assignment]
        left[key, "amount"] += line.amount  # type: ignore[assignment]
    for line in whole.lines:
        key = (line.part, line.dimensions)
        left[key, "quantity"] -= line.quantity  # type: ignore[assignment]
        left[key, "amount"] -= line.amount  # type: ignore[assignment]
    assert not any(left.values())


@given(cases(models=SUMMED, corrected=False, adjusted=False), st.integers(0, 6))
def test_where_the_model_is_a_sum_any_cut_of_the_period_adds_up(case: Case, cut: int) -> None:
    parts = [Case(case.document, case.charge, part) for part in (case.entries[:cut], case.entries[cut:])]
    exact = sum((rated(part).exact_total for part in parts), ZERO)
    # A price of 3 units has no end in decimals; the whole is divided once, its parts twice.
    assert abs(exact - rated(case).exact_total) < Decimal("1e-20")


@given(cases(adjusted=False))
def test_no_usage_costs_nothing_but_what_is_fixed(case: Case) -> None:
    nothing = rated(Case(case.document, case.charge, ()))
    assert all(line.kind in ("fixed", "one_time") for line in nothing.lines)
    assert not nothing.unpriced


@given(cases())
def test_all_usage_is_on_a_line_or_unpriced(case: Case) -> None:
    if case.charge.adjustments.unit("unit") != "unit":
        return
    rating = rated(case)
    found = sum((line.quantity for line in rating.lines if line.unit == "unit"), ZERO)
    if case.charge.price.model in ("package", "percentage"):
        return  # count packages and events instead
    found += sum((row.quantity for row in rating.unpriced), ZERO)
    assert found == sum((entry.quantity for entry in case.entries), ZERO)


@given(licensed_charges(), decimals(0, 300, 0), st.fractions(0, 1, max_denominator=31), currencies)
def test_seats_of_both_halves_of_a_period_cost_what_the_whole_does(
    charge: Any, seats: Decimal, share: Fraction, currency: str
) -> None:
    if charge.adjustments.after:
        return

    def exact(part: Fraction) -> Decimal:
        lines, _ = rate_charge(charge, currency, {}, extent=Extent(share=part, licensed=seats))
        return sum((line.exact_amount for line in lines), ZERO)

    assert round_to_minor(exact(share) + exact(1 - share), currency) == round_to_minor(exact(Fraction(1)), currency)
    assert all(line.kind == "licensed" for line in rate_charge(charge, currency, {}, extent=Extent(licensed=seats))[0])
