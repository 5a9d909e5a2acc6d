"""One table of cases per adjustment, the sum beside each figure, and which combinations are refused."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from core.errors import BrokenInvariantError, InvalidInputError
from core.meters import Meter
from rating.domain.cycle import Interval
from rating.domain.extent import WHOLE, Extent
from rating.domain.models.per_unit import PerUnit
from rating.domain.plan import Charge, parse_plan
from rating.domain.price import Basis, Dimensions
from rating.domain.proration import Convention
from rating.rate_charges import RatedLine, rate_bounds, rate_charge
from tests.rating.charge_generators import read_one

CPU = Meter("cpu", "vCPU-hour", "test.cpu", "sum", "value", ("class",))
METERS = {"cpu": CPU}
PER_UNIT: dict[str, Any] = {"model": "per_unit", "unit_amount": "0.05"}
TIERS = [{"up_to": "100", "unit_amount": "1"}, {"up_to": "inf", "unit_amount": "0.5"}]
GRADUATED: dict[str, Any] = {"model": "graduated", "tiers": TIERS}
MATRIX = {"model": "matrix", "dimension": "class", "unit_amounts": {"hot": "0.5", "cold": "0.05"}}
HOT, COLD = (("class", "hot"),), (("class", "cold"),)


def charge_of(**document: Any) -> Charge:
    return read_one({"id": "cpu", "name": "cpu", "meter": "cpu", **document}, METERS)


def lines_of(charge: Charge, usage: str | dict[Dimensions, str], extent: Extent = WHOLE) -> list[RatedLine]:
    by_value = {(): usage} if isinstance(usage, str) else usage
    lines, _ = rate_charge(charge, "USD", {values: Decimal(used) for values, used in by_value.items()}, extent=extent)
    return lines


def shown(lines: list[RatedLine]) -> list[tuple[str, str, str]]:
    """Return kind, quantity and rounded amount of each line."""
    return [(line.kind, f"{line.quantity:f}", str(line.amount)) for line in lines]


@pytest.mark.parametrize(
    ("round_to", "quantity", "expected"),
    [
        ("up", "0", []),
        ("up", "0.001", [("usage", "1", "0.05")]),
        ("up", "1000", [("usage", "1", "0.05")]),
        ("up", "1000.000000000001", [("usage", "2", "0.10")]),
        ("down", "1999.999", [("usage", "1", "0.05")]),
        ("down", "999", []),
    ],
)
def test_whole_units_of_the_price(round_to: str, quantity: str, expected: list[Any]) -> None:
    charge = charge_of(**PER_UNIT, transform_quantity={"divide_by": 1000, "round": round_to})
    lines = lines_of(charge, quantity)
    assert shown(lines) == expected
    assert all(line.unit == "1,000 vCPU-hour" for line in lines)


def test_tiers_count_whole_units_when_they_are_rounded_and_the_meters_units_when_not() -> None:
    rounded = charge_of(**GRADUATED, transform_quantity={"divide_by": 10, "round": "up"})
    assert shown(lines_of(rounded, "1011")) == [("usage", "100", "100.00"), ("usage", "2", "1.00")]  # 102 tens
    exact = charge_of(**GRADUATED, transform_quantity={"divide_by": 10})
    # 100 ÷ 10 × 1 + 911 ÷ 10 × 0.5
    assert shown(lines_of(exact, "1011")) == [("usage", "100", "10.00"), ("usage", "911", "45.55")]


def test_a_price_that_is_not_for_so_many_units_sees_the_quotient() -> None:
    package = {"model": "package", "package_size": "2", "unit_amount": "3"}
    # 4,500 ÷ 1,000 = 4.5: 3 packages of 2
    assert shown(lines_of(charge_of(**package, transform_quantity={"divide_by": 1000}), "4500")) == [
        ("usage", "3", "9.00")
    ]
    with pytest.raises(InvalidInputError, match="inexact_conversion"):
        charge_of(**package, transform_quantity={"divide_by": 3})


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("0", []),
        ("20", [("usage", "20", "0.00")]),
        ("50", [("usage", "50", "0.00")]),
        ("51", [("usage", "50", "0.00"), ("usage", "1", "1.00")]),
        # 160 - 50 = 110: tiers begin after what is free
        ("160", [("usage", "50", "0.00"), ("usage", "100", "100.00"), ("usage", "10", "5.00")]),
    ],
)
def test_free_units_come_before_tiers(quantity: str, expected: list[Any]) -> None:
    lines = lines_of(charge_of(**GRADUATED, free_units="50"), quantity)
    assert shown(lines) == expected


def test_free_units_fall_on_values_by_their_usage() -> None:
    charge = charge_of(**MATRIX, free_units="1")
    lines = lines_of(charge, {HOT: "1", COLD: "2"})
    # 1 × 1/3 and 1 × 2/3, cut to 12 places; what is left over goes to the larger remainder
    assert [(line.dimensions, str(line.quantity)) for line in lines if line.part == "free-units"] == [
        (COLD, "0.666666666667"), (HOT, "0.333333333333"),
    ]  # fmt: skip
    # 1.333333333333 × 0.05 + 0.666666666667 × 0.5
    assert sum(line.exact_amount for line in lines) == Decimal("0.06666666666665") + Decimal("0.3333333333335")


def test_free_units_raise_the_included_quantity() -> None:
    charge = charge_of(model="included", included="100", unit_amount="1", free_units="50")
    assert shown(lines_of(charge, "160")) == [
        ("usage", "50", "0.00"),
        ("usage", "100", "0.00"),
        ("usage", "10", "10.00"),
    ]


@pytest.mark.parametrize(
    ("quantity", "percent_off", "expected"),
    [
        ("0", "20", []),
        ("150", "20", [("usage", "30", "0.00"), ("usage", "100", "100.00"), ("usage", "20", "10.00")]),  # 120 count
        ("150", "100", [("usage", "150", "0.00")]),
    ],
)
def test_a_part_of_usage_is_not_counted(quantity: str, percent_off: str, expected: list[Any]) -> None:
    charge = charge_of(**GRADUATED, usage_discount={"percent_off": percent_off})
    assert shown(lines_of(charge, quantity)) == expected


@pytest.mark.parametrize(
    ("percent_off", "expected"),
    [
        # 2.5 × 0.05 = 0.125; 10 % of it are 0.0125
        ("10", [("usage", "2.5", "0.13"), ("discount", "1", "-0.01")]),
        ("100", [("usage", "2.5", "0.13"), ("discount", "1", "-0.13")]),
    ],
)
def test_a_discount_is_a_line_of_its_own(percent_off: str, expected: list[Any]) -> None:
    lines = lines_of(charge_of(**PER_UNIT, discount={"percent_off": percent_off}), "2.5")
    assert shown(lines) == expected
    assert (lines[1].unit, lines[1].unit_amount, lines[1].meter_id) == ("", None, "cpu")


def test_a_discount_of_everything_leaves_nothing_whatever_was_rounded() -> None:
    charge = charge_of(**MATRIX, discount={"percent_off": "100"})
    lines = lines_of(charge, {HOT: "0.01", COLD: "0.1"})  # 0.005 each, rounded up to a cent each
    assert [str(line.amount) for line in lines] == ["0.01", "0.01", "-0.01", "-0.01"]


@pytest.mark.parametrize(
    ("quantity", "share", "expected"),
    [
        ("100", "1", [("usage", "100", "5.00"), ("minimum", "1", "15.00")]),
        ("2.3", "1", [("usage", "2.3", "0.12"), ("minimum", "1", "19.88")]),  # 0.115 is 0.12 on the bill
        ("400", "1", [("usage", "400", "20.00")]),
        ("0", "1", [("minimum", "1", "20.00")]),
        ("100", "21/31", [("usage", "100", "5.00"), ("minimum", "1", "8.55")]),  # 20 × 21/31 = 13.5483... - 5
        ("100", "0", [("usage", "100", "5.00")]),
    ],
)
def test_a_minimum_of_a_charge(quantity: str, share: str, expected: list[Any]) -> None:
    charge = charge_of(**PER_UNIT, minimum_amount="20")
    assert shown(lines_of(charge, quantity, Extent(share=Fraction(share)))) == expected


@pytest.mark.parametrize(
    ("quantity", "share", "expected"),
    [
        ("400", "1", [("usage", "400", "20.00")]),
        ("401", "1", [("usage", "401", "20.05"), ("maximum", "1", "-0.05")]),
        ("401", "1/2", [("usage", "401", "20.05"), ("maximum", "1", "-10.05")]),
    ],
)
def test_a_maximum_of_a_charge(quantity: str, share: str, expected: list[Any]) -> None:
    charge = charge_of(**PER_UNIT, maximum_amount="20")
    assert shown(lines_of(charge, quantity, Extent(share=Fraction(share)))) == expected


@pytest.mark.parametrize(
    ("quantity", "overage_percent", "expected"),
    [
        ("100", None, [("usage", "100", "5.00"), ("true_up", "1", "15.00")]),
        ("400", None, [("usage", "400", "20.00")]),
        ("1000", None, [("usage", "1000", "50.00")]),
        ("1000", "80", [("usage", "1000", "50.00"), ("discount", "1", "-6.00")]),  # 30 beyond it × -20 %
        ("1000", "120", [("usage", "1000", "50.00"), ("true_up", "1", "6.00")]),
    ],
)
def test_a_commitment_of_a_charge(quantity: str, overage_percent: str | None, expected: list[Any]) -> None:
    commitment = {"amount": "20"} | ({"overage_percent": overage_percent} if overage_percent else {})
    assert shown(lines_of(charge_of(**PER_UNIT, commitment=commitment), quantity)) == expected


@pytest.mark.parametrize("bound", [{"minimum_amount": "20"}, {"commitment": {"amount": "20"}}])
def test_what_is_missing_is_due_only_when_the_period_is_over(bound: dict[str, Any]) -> None:
    lines = lines_of(charge_of(**PER_UNIT, **bound), "100", Extent(closing=False))
    assert shown(lines) == [("usage", "100", "5.00")]


def test_every_line_says_what_was_done_to_it() -> None:
    charge = charge_of(
        **PER_UNIT, free_units="2", usage_discount={"percent_off": "10"}, discount={"percent_off": "20"},
        transform_quantity={"divide_by": 10, "round": "up"}, minimum_amount="1",
    )  # fmt: skip
    assert [line.steps for line in lines_of(charge, "115")] == [
        ("2 of 12 free = 0",),
        ("10 × 10 % = 1, not charged = 0",),
        ("115 ÷ 10, rounded up = 12", "12 - 2 free = 10", "10 - 1 not counted = 9", "9 × 0.05 = 0.45"),
        ("0.45 × -20 % = -0.09",),
        ("1 - 0.36 = 0.64",),
    ]


def test_seats_are_prorated_by_the_share_they_are_held() -> None:
    seats = {"id": "seats", "name": "Seats", "recurring": {"usage_type": "licensed"}}
    charge = read_one({**seats, **GRADUATED, "discount": {"percent_off": "50"}})
    assert charge.basis is Basis.LICENSED
    lines = lines_of(charge, {}, Extent(share=Fraction(1, 3), licensed=Decimal(110)))
    # 100 × 1 × 1/3 and 10 × 0.5 × 1/3
    assert shown(lines) == [
        ("licensed", "100", "33.33"), ("licensed", "10", "1.67"),
        ("discount", "1", "-16.67"), ("discount", "1", "-0.83"),
    ]  # fmt: skip
    assert lines[0].steps == ("100 × 1 = 100", "100 × 1/3 = " + f"{Decimal(100) / 3:f}")


def test_negative_usage_is_refused_where_it_has_a_price_of_its_own() -> None:
    by_class = {HOT: "5", COLD: "-1"}
    assert shown(lines_of(charge_of(**PER_UNIT), by_class)) == [("usage", "4", "0.20")]
    with pytest.raises(InvalidInputError, match=r"cpu class=cold comes to -1.*negative_usage"):
        lines_of(charge_of(**MATRIX), by_class)
    with pytest.raises(InvalidInputError, match="negative_usage"):
        lines_of(charge_of(**PER_UNIT), "-0.1")


def test_only_what_takes_off_may_be_negative() -> None:
    broken = Charge("bad", "Bad", CPU, PerUnit(Decimal("-1"), 1), "digest")
    with pytest.raises(BrokenInvariantError, match="bad came to -3"):
        rate_charge(broken, "USD", {(): Decimal(3)})


def test_the_plans_minimum_comes_before_its_commitment() -> None:
    base = {"id": "base", "name": "Base", "model": "flat", "flat_amount": "10"}
    committed = {"id": "committed", "name": "Committed", "model": "commitment", "commitment_amount": "60"}
    least = {"id": "least", "name": "Least", "model": "minimum", "minimum_amount": "50"}
    support = {
        "id": "support",
        "name": "Support",
        "model": "flat",
        "flat_amount": "99",
        "recurring": {"interval": "year"},
    }
    charges = [read_one(document) for document in (base, committed, least, support)]
    lines = [line for charge in (charges[0], charges[3]) for line in rate_charge(charge, "USD", {})[0]]
    # 50 - 10, then 60 - 10 - 40; the year's fee does not count
    assert [(line.kind, str(line.amount)) for line in rate_bounds(charges, "USD", lines)] == [
        ("minimum", "40.00"), ("true_up", "10.00"),
    ]  # fmt: skip
    assert rate_bounds(charges, "USD", lines, Extent(closing=False)) == []


FLAT: dict[str, Any] = {"model": "flat", "flat_amount": "10", "meter": None}
SCHEDULED = {
    "model": "scheduled",
    "unit_amount": "1",
    "windows": [{"from": "08:00", "to": "20:00", "unit_amount": "2"}],
}
PERCENTAGE = {"model": "percentage", "percent": "1"}
HARD = {"model": "included", "included": "100", "hard_limit": True}
LICENSED = {"recurring": {"usage_type": "licensed"}, "meter": None}


@pytest.mark.parametrize(
    ("charge", "code", "field"),
    [
        ({**PER_UNIT, "discount": {"percent_off": "0"}}, "invalid_percent", "discount.percent_off"),
        ({**PER_UNIT, "discount": {"percent_off": "100.1"}}, "invalid_percent", "discount.percent_off"),
        ({**PER_UNIT, "discount": {"amount_off": "1"}}, "unknown_field", "discount.amount_off"),
        ({**PER_UNIT, "discount": "10"}, "invalid_type", "discount"),
        ({**PER_UNIT, "free_units": "-1"}, "negative_amount", "free_units"),
        ({**PER_UNIT, "transform_quantity": {"divide_by": 10, "round": "half"}}, "invalid_choice",
         "transform_quantity.round"),
        ({**PER_UNIT, "minimum_amount": "2", "maximum_amount": "1"}, "contradiction", "maximum_amount"),
        ({**PER_UNIT, "minimum_amount": "2", "commitment": {"amount": "1"}}, "contradiction", "commitment"),
        ({**PER_UNIT, "maximum_amount": "2", "commitment": {"amount": "3"}}, "contradiction", "maximum_amount"),
        ({**PER_UNIT, "commitment": {}}, "missing_field", "commitment.amount"),
        ({**PER_UNIT, "commitment": {"amount": "1", "overage_percent": "1001"}}, "invalid_percent",
         "commitment.overage_percent"),
        ({**FLAT, "minimum_amount": "20"}, "contradiction", "minimum_amount"),
        ({**FLAT, "free_units": "20"}, "contradiction", "free_units"),
        ({**FLAT, "transform_quantity": {"divide_by": 10}}, "contradiction", "transform_quantity"),
        ({"model": "minimum", "minimum_amount": "1", "meter": None, "discount": {"percent_off": "1"}}, "contradiction",
         "discount"),
        ({**SCHEDULED, "free_units": "20"}, "contradiction", "free_units"),
        ({**SCHEDULED, "transform_quantity": {"divide_by": 10, "round": "up"}}, "contradiction", "transform_quantity"),
        ({**SCHEDULED, "usage_discount": {"percent_off": "1"}}, "contradiction", "usage_discount"),
        ({**PERCENTAGE, "free_units": "20"}, "contradiction", "free_units"),
        ({**PERCENTAGE, "usage_discount": {"percent_off": "1"}}, "contradiction", "usage_discount"),
        ({**HARD, "free_units": "20"}, "contradiction", "free_units"),
        ({**HARD, "usage_discount": {"percent_off": "1"}}, "contradiction", "usage_discount"),
        ({**PER_UNIT, **LICENSED, "meter": "cpu"}, "contradiction", "meter"),
        ({**MATRIX, **LICENSED}, "contradiction", "recurring.usage_type"),
        ({**PERCENTAGE, **LICENSED}, "contradiction", "recurring.usage_type"),
        ({**FLAT, "recurring": {"usage_type": "licensed"}}, "contradiction", "recurring.usage_type"),
        ({**PER_UNIT, "recurring": {"interval": "quarter"}}, "contradiction", "recurring.interval"),
        ({**FLAT, "recurring": {"interval": "week"}}, "invalid_choice", "recurring.interval"),
        ({**FLAT, "recurring": {"interval": "month", "interval_count": 2}}, "invalid_number",
         "recurring.interval_count"),
        ({**FLAT, "type": "one_time", "recurring": {"interval": "month"}}, "contradiction", "recurring"),
        ({**FLAT, "type": "one_time", "bill": "in_advance"}, "contradiction", "bill"),
        ({**PER_UNIT, "bill": "in_advance"}, "contradiction", "bill"),
        ({**FLAT, "bill": "at_noon"}, "invalid_choice", "bill"),
        ({**FLAT, "proration": "weeks"}, "invalid_choice", "proration"),
    ],
)  # fmt: skip
def test_a_combination_without_a_clear_meaning_is_refused_with_its_path(
    charge: dict[str, Any], code: str, field: str
) -> None:
    document = {name: value for name, value in {"meter": "cpu", **charge}.items() if value is not None}
    with pytest.raises(InvalidInputError) as refused:
        read_one({"id": "cpu", "name": "cpu", **document}, METERS)
    found = [(fault.code, fault.path) for fault in refused.value.faults]
    assert (code, f"charges[0].{field}") in found
    # A field that is missing because another stands in its place is told as well, nothing else.
    assert all(other == "missing_field" for other, path in found if path != f"charges[0].{field}")


@pytest.mark.parametrize(
    ("charge", "interval", "in_advance"),
    [
        ({}, Interval.MONTH, False),
        ({"recurring": {"interval": "month"}}, Interval.MONTH, False),
        ({"bill": "in_advance"}, Interval.MONTH, True),
        ({"recurring": {"interval": "month", "interval_count": 3}}, Interval.QUARTER, True),
        ({"recurring": {"interval": "quarter"}, "bill": "in_arrears"}, Interval.QUARTER, False),
        ({"recurring": {"interval": "month", "interval_count": 12}}, Interval.YEAR, True),
        ({"recurring": {"interval": "year"}}, Interval.YEAR, True),
        ({"type": "one_time"}, None, False),
    ],
)
def test_when_a_fee_falls_due(charge: dict[str, Any], interval: Interval | None, in_advance: bool) -> None:
    read = read_one({"id": "fee", "name": "Fee", "model": "flat", "flat_amount": "10", **charge})
    assert (read.interval, read.in_advance, read.licensed) == (interval, in_advance, False)


def test_a_charge_has_its_own_proration_or_none() -> None:
    fee = {"id": "fee", "name": "Fee", "model": "flat", "flat_amount": "10"}
    assert read_one(fee).proration is None
    assert read_one({**fee, "proration": "seconds"}).proration is Convention.SECONDS


def test_the_fixed_part_of_reserved_capacity_may_be_billed_in_advance() -> None:
    reserved = {"model": "reserved", "capacity": "10", "flat_amount": "5", "unit_amount": "1", "bill": "in_advance"}
    assert charge_of(**reserved).in_advance
    with pytest.raises(InvalidInputError, match="bill: bounds of a charge"):
        charge_of(**reserved, minimum_amount="10")


def test_a_plan_says_what_a_trial_covers_and_how_its_charges_are_prorated() -> None:
    fees = [{"id": "a", "model": "flat", "flat_amount": "1"}]
    own = [{"id": "b", "model": "flat", "flat_amount": "1", "proration": "none"}]
    charges = [{"name": "Fee", **charge} for charge in fees + own]
    document = {"name": "Plan", "currency": "USD", "charges": charges}
    plan = parse_plan("test", document, {})
    assert (plan.trial_covers, plan.proration) == ("all", None)
    plan = parse_plan("test", {**document, "trial_covers": "fees", "proration": "seconds"}, {})
    assert (plan.trial_covers, plan.proration) == ("fees", Convention.SECONDS)
    assert [charge.proration for charge in plan.charges] == [Convention.SECONDS, Convention.NONE]
    with pytest.raises(InvalidInputError) as refused:
        parse_plan("test", {**document, "currency": "ABC", "trial_covers": "none", "proration": "weeks"}, {})
    assert sorted((fault.code, fault.path) for fault in refused.value.faults) == [
        ("invalid_choice", "plans.test.proration"),
        ("invalid_choice", "plans.test.trial_covers"),
        ("unknown_currency", "plans.test.currency"),
    ]


def test_free_units_are_part_of_the_quota_and_usage_that_is_counted_otherwise_makes_none() -> None:
    included = {"id": "cpu", "name": "cpu", "meter": "cpu", "model": "included", "included": "100", "unit_amount": "1"}

    def limits(**more: Any) -> list[Decimal]:
        document = {"name": "Plan", "currency": "USD", "charges": [{**included, **more}]}
        return [limit.limit for limit in parse_plan("test", document, METERS).limits]

    assert limits() == [100]
    assert limits(free_units="50") == [150]
    assert limits(usage_discount={"percent_off": "10"}) == []


@pytest.mark.parametrize(
    "adjustment", [{"free_units": "9"}, {"free_units": "1"}, {"usage_discount": {"percent_off": "5"}}]
)
def test_the_order_of_values_does_not_show(adjustment: dict[str, Any]) -> None:
    charge = charge_of(**MATRIX, **adjustment)
    assert lines_of(charge, {HOT: "1", COLD: "2"}) == lines_of(charge, {COLD: "2", HOT: "1"})
