"""Quantities: exact from JSON to scaled integer and back."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.quantity import LIMIT, SCALE, UNIT, format_scaled, scale_quantity, unscale

QUANTITIES = st.decimals(min_value=0, max_value=LIMIT - 1, places=SCALE, allow_nan=False)


@given(QUANTITIES)
def test_a_decimal_and_its_text_scale_alike_and_come_back(value):
    scaled = scale_quantity(value)
    assert scaled == scale_quantity(f"{value:f}") == int(value * UNIT)
    assert unscale(scaled) == value
    assert Decimal(format_scaled(scaled)) == value


@given(st.lists(QUANTITIES, max_size=50))
def test_sums_of_scaled_quantities_are_exact(values):
    assert unscale(sum(scale_quantity(value) for value in values)) == sum(values, Decimal(0))


@given(st.integers(0, LIMIT - 1))
def test_whole_numbers_scale_as_number_or_text(value):
    assert scale_quantity(value) == scale_quantity(str(value)) == value * UNIT


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (-1, "negative_quantity"),
        ("-0.5", "negative_quantity"),
        (Decimal("-1E-20"), "negative_quantity"),
        (LIMIT, "quantity_out_of_range"),
        (Decimal("1e400"), "quantity_out_of_range"),
        ("1e400", "quantity_out_of_range"),
        ("Infinity", "quantity_out_of_range"),
        ("0." + "0" * 12 + "1", "too_many_digits"),
        (Decimal("1E-400"), "too_many_digits"),
        ("NaN", "invalid_quantity"),
        ("sNaN", "invalid_quantity"),
        ("1,5", "invalid_quantity"),
        ("", "invalid_quantity"),
        ("१", "invalid_quantity"),
        ("9" * 65, "invalid_quantity"),
        (True, "invalid_quantity"),
        (1.5, "invalid_quantity"),
        (None, "invalid_quantity"),
        ([1], "invalid_quantity"),
    ],
)
def test_what_is_no_quantity_is_refused_with_its_code(value, code):
    assert scale_quantity(value) == code


def test_zero_in_any_dress_is_zero():
    assert [scale_quantity(zero) for zero in (0, "0", "0.000", Decimal("-0.0"), Decimal("0E+400"), "0e-400")] == [0] * 6
