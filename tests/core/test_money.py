"""Money: half up, once; parts that add up; no float, no unknown currency."""

import csv
from decimal import Decimal, FloatOperation

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BrokenInvariantError, InvalidInputError
from core.money import MINOR_UNITS, Money, allocate, from_minor, is_whole_minor, minor_units, round_to_minor, to_minor
from tests.shared_data import SHARED_DATA

CURRENCIES = st.sampled_from(sorted(MINOR_UNITS))
AMOUNTS = st.decimals(min_value=-(10**12), max_value=10**12, places=6, allow_nan=False)


@pytest.mark.parametrize(
    ("amount", "currency", "rounded"),
    [
        ("0.125", "USD", "0.13"),
        ("-0.125", "USD", "-0.13"),
        ("0.124999999999999999999999999999999999", "USD", "0.12"),
        ("2.5", "JPY", "3"),
        ("1.0005", "KWD", "1.001"),
        ("1.00005", "CLF", "1.0001"),
    ],
)
def test_rounding_is_half_up_to_the_currency(amount, currency, rounded):
    assert str(round_to_minor(Decimal(amount), currency)) == rounded


@given(AMOUNTS, CURRENCIES)
def test_rounding_moves_by_at_most_half_a_minor_unit(amount, currency):
    rounded = round_to_minor(amount, currency)
    assert abs(rounded - amount) * 2 <= Decimal(1).scaleb(-MINOR_UNITS[currency])
    assert from_minor(to_minor(rounded, currency), currency) == rounded


@given(AMOUNTS, CURRENCIES, st.lists(st.integers(0, 1000).map(Decimal), min_size=1, max_size=20))
def test_allocated_parts_add_up_to_the_whole(amount, currency, weights):
    total = round_to_minor(amount, currency)
    if not sum(weights):
        weights = [*weights, Decimal(1)]
    parts = allocate(total, weights, currency)
    assert sum(parts) == total
    unit = Decimal(1).scaleb(-MINOR_UNITS[currency])
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - total * weight / sum(weights)) < unit


def test_a_fraction_of_a_cent_cannot_be_charged():
    with pytest.raises(BrokenInvariantError):
        to_minor(Decimal("1.005"), "USD")


def test_money_of_two_currencies_does_not_mix():
    with pytest.raises(BrokenInvariantError):
        Money(Decimal(1), "USD") + Money(Decimal(1), "EUR")


# No currency, gold, a special drawing right, the testing code; withdrawn (also of this year); not a code at all.
@pytest.mark.parametrize("code", ["XXX", "XAU", "XDR", "XTS", "DEM", "BGN", "HRK", "ANG", "usd", "US", ""])
def test_what_has_no_minor_unit_is_refused_not_guessed(code):
    with pytest.raises(InvalidInputError) as refused:
        Money(Decimal(1), code)
    assert [fault.code for fault in refused.value.faults] == ["unknown_currency"]


@pytest.mark.parametrize(
    ("code", "places"),
    # CLDR says 0 for the first five, because people write them so.
    [("AFN", 2), ("ALL", 2), ("IQD", 3), ("MGA", 2), ("SYP", 2), ("UYW", 4), ("XCG", 2), ("ISK", 0), ("UGX", 0)],
)
def test_minor_units_are_the_currencys_own_not_what_people_write(code, places):
    assert minor_units(code) == places


@pytest.mark.shared_data
def test_the_table_is_iso_4217_as_it_stands():
    current: dict[str, str] = {}
    with (SHARED_DATA / "currency" / "iso4217_codes.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["AlphabeticCode"] and not row["WithdrawalDate"]:
                assert current.setdefault(row["AlphabeticCode"], row["MinorUnit"]) == row["MinorUnit"]
    assert {code: int(unit) for code, unit in current.items() if unit.isdigit()} == MINOR_UNITS
    assert {unit for unit in current.values() if not unit.isdigit()} == {"-"}
    assert len(current) == 178
    assert len(MINOR_UNITS) == 165


def test_floats_do_not_mix_with_decimals():
    with pytest.raises((FloatOperation, TypeError)):
        Decimal("0.1") + 0.1
    with pytest.raises(FloatOperation):
        Decimal(1 / 10)


@pytest.mark.parametrize(
    ("text", "currency", "is_whole"),
    [
        ("12.50", "EUR", True), ("0", "EUR", True), ("-3.10", "EUR", True), ("12.505", "EUR", False),
        ("1.5", "JPY", False), ("1.005", "KWD", True), ("1E+2", "EUR", True), ("1E-30", "EUR", False),
        ("9" * 20, "EUR", True), ("9" * 21, "EUR", False), ("1E+999999", "EUR", False), ("NaN", "EUR", False),
        ("-Infinity", "EUR", False),
    ],
)  # fmt: skip
def test_whole_minor_units(text: str, currency: str, is_whole: bool) -> None:
    assert is_whole_minor(Decimal(text), currency) is is_whole
