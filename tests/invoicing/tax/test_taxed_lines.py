"""Laws of rounding and sharing: lines add to groups, groups to the total, and what is taken back was charged."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.money import MINOR_UNITS, minor_units, round_to_minor
from invoicing.domain.tax.taxed_lines import Bucket, TaxableLine, TaxedBefore, TaxedLines, tax_lines
from invoicing.domain.tax.treatment import TaxBehavior, TaxTreatment
from tests.invoicing.tax.taxing import taxed

ZERO = Decimal(0)
# 0, 2, 3 and 4 minor units.
CURRENCIES = st.sampled_from(["JPY", "EUR", "KWD", "CLF"])
RATES = st.sampled_from(["0", "4.2", "6.625", "7", "9.975", "16", "19", "20", "25.5", "27"])


@st.composite
def documents(draw: st.DrawFn, *, inclusive: bool | None = None) -> tuple[list[TaxableLine], str]:
    currency = draw(CURRENCIES)
    within = draw(st.booleans()) if inclusive is None else inclusive
    places = draw(st.lists(RATES, min_size=1, max_size=3, unique=True))
    treatments = [
        taxed(rate, place, inclusive=within) for place, rate in zip(("DE", "FR", "US-CA"), places, strict=False)
    ]
    units = draw(st.lists(st.integers(-10_000_000, 100_000_000), min_size=1, max_size=12))
    lines = [
        TaxableLine(Decimal(unit).scaleb(-minor_units(currency)), draw(st.sampled_from(treatments))) for unit in units
    ]
    return lines, currency


def whole(amount: Decimal, currency: str) -> bool:
    return round_to_minor(amount, currency) == amount


@given(documents())
def test_lines_add_to_groups_and_groups_to_the_total(document: tuple[list[TaxableLine], str]) -> None:
    lines, currency = document
    result = tax_lines(lines, currency)
    for group in result.groups:
        members = [line for line in result.lines if line.treatment.group == group.treatment.group]
        assert group.base == sum((line.net for line in members), ZERO)
        assert group.tax == sum((line.tax for line in members), ZERO)
    assert result.tax == sum((line.tax for line in result.lines), ZERO)
    assert result.total == result.subtotal + result.tax == sum((line.gross for line in result.lines), ZERO)
    assert all(whole(line.tax, currency) and whole(line.net, currency) for line in result.lines)


@given(documents(inclusive=False))
def test_a_groups_tax_is_its_base_times_the_rate_rounded_half_up_once(document: tuple[list[TaxableLine], str]) -> None:
    lines, currency = document
    for group in tax_lines(lines, currency).groups:
        # EN 16931, BR-CO-17; worked out apart from core.money.
        exact = group.base * group.treatment.rate / 100
        step = Decimal(1).scaleb(-MINOR_UNITS[currency])
        assert group.tax == exact.quantize(step, ROUND_HALF_UP)


@given(documents(inclusive=True))
def test_prices_with_tax_are_kept_to_the_cent(document: tuple[list[TaxableLine], str]) -> None:
    lines, currency = document
    result = tax_lines(lines, currency)
    assert result.total == sum((line.amount for line in lines), ZERO)
    assert [line.gross for line in result.lines] == [line.amount for line in lines]


@given(documents(), st.data())
def test_splitting_a_line_changes_no_group(document: tuple[list[TaxableLine], str], data: st.DataObject) -> None:
    lines, currency = document
    index = data.draw(st.integers(0, len(lines) - 1))
    part = Decimal(data.draw(st.integers(-1_000_000, 1_000_000))).scaleb(-minor_units(currency))
    line = lines[index]
    split = [*lines, TaxableLine(part, line.treatment)]
    split[index] = TaxableLine(line.amount - part, line.treatment)
    before, after = tax_lines(lines, currency), tax_lines(split, currency)
    assert {(one.treatment.group, one.tax) for one in before.groups} == {
        (one.treatment.group, one.tax) for one in after.groups
    }


@given(documents())
def test_no_line_bears_more_than_a_minor_unit_beside_its_exact_tax(document: tuple[list[TaxableLine], str]) -> None:
    lines, currency = document
    for line, one in zip(lines, tax_lines(lines, currency).lines, strict=True):
        rate = line.treatment.rate
        inclusive = line.treatment.behavior is TaxBehavior.INCLUSIVE
        exact = line.amount * rate / (100 + rate) if inclusive else line.amount * rate / 100
        assert abs(one.tax - exact) < Decimal(1).scaleb(-minor_units(currency))


def bucket_of(line: TaxableLine, invoice: str) -> Bucket:
    return Bucket(invoice, line.treatment.group, line.treatment.behavior)


def billed(lines: list[TaxableLine], result: TaxedLines, invoice: str = "inv_1") -> dict[Bucket, TaxedBefore]:
    found: dict[Bucket, TaxedBefore] = {}
    for line, one in zip(lines, result.lines, strict=True):
        before = found.get(bucket_of(line, invoice)) or TaxedBefore(ZERO, ZERO)
        found[bucket_of(line, invoice)] = TaxedBefore(before.amount + line.amount, before.tax + one.tax)
    return found


@given(documents())
def test_taking_everything_back_gives_exactly_minus_the_tax_line_by_line(
    document: tuple[list[TaxableLine], str],
) -> None:
    lines, currency = document
    first = tax_lines(lines, currency)
    back = [TaxableLine(-line.amount, line.treatment, "inv_1") for line in lines]
    second = tax_lines(back, currency, before=billed(lines, first))
    assert [one.tax for one in second.lines] == [-one.tax for one in first.lines]
    assert second.total == -first.total


@given(documents(), st.data())
def test_taking_back_in_any_steps_gives_back_what_was_charged(
    document: tuple[list[TaxableLine], str], data: st.DataObject
) -> None:
    lines, currency = document
    result = tax_lines(lines, currency)
    known = billed(lines, result)
    left = [line.amount for line in lines]
    taken = ZERO
    for step in range(data.draw(st.integers(1, 4))):
        is_last = step == 3
        parts = [amount if is_last else Decimal(data.draw(st.integers(0, 100))) * amount / 100 for amount in left]
        parts = [round_to_minor(part, currency) for part in parts]
        taken += _take_back(lines, parts, currency, known).total
        left = [amount - part for amount, part in zip(left, parts, strict=True)]
    taken += _take_back(lines, left, currency, known).total
    assert taken == -result.total
    assert all(one == TaxedBefore(ZERO, ZERO) for one in known.values())


def _take_back(
    lines: list[TaxableLine], parts: list[Decimal], currency: str, known: dict[Bucket, TaxedBefore]
) -> TaxedLines:
    """Take parts of the lines back, and note in `known` what that came to."""
    back = [TaxableLine(-part, line.treatment, "inv_1") for line, part in zip(lines, parts, strict=True)]
    result = tax_lines(back, currency, before=known)
    for line, one in zip(back, result.lines, strict=True):
        before = known[bucket_of(line, "inv_1")]
        known[bucket_of(line, "inv_1")] = TaxedBefore(before.amount + line.amount, before.tax + one.tax)
    return result


@given(documents(inclusive=False), st.data())
def test_what_is_left_after_a_part_was_taken_back_is_taxed_as_one_invoice_would(
    document: tuple[list[TaxableLine], str], data: st.DataObject
) -> None:
    lines, currency = document
    first = tax_lines(lines, currency)
    share = data.draw(st.integers(0, 100))
    parts = [round_to_minor(line.amount * share / 100, currency) for line in lines]
    known = billed(lines, first)
    second = _take_back(lines, parts, currency, known)
    kept = [TaxableLine(line.amount - part, line.treatment) for line, part in zip(lines, parts, strict=True)]
    assert first.tax + second.tax == tax_lines(kept, currency).tax


def amounts(*texts: str, treatment: TaxTreatment | None = None) -> list[TaxableLine]:
    return [TaxableLine(Decimal(text), treatment or taxed()) for text in texts]


@pytest.mark.parametrize(
    ("lines", "currency", "tax", "shares"),
    [
        # 100.00 x 19 %
        (amounts("100.00"), "EUR", "19.00", ["19.00"]),
        # 3 x 0.05 x 10 % = 0.015, half up 0.02: the first two bear it
        (amounts("0.05", "0.05", "0.05", treatment=taxed("10")), "EUR", "0.02", ["0.01", "0.01", "0.00"]),
        # 10.00 - 2.50 = 7.50 x 19 % = 1.425, half up 1.43; exact 1.9 and -0.475
        (amounts("10.00", "-2.50"), "EUR", "1.43", ["1.90", "-0.47"]),
        # -0.05 x 10 % = -0.005, away from zero -0.01
        (amounts("-0.05", treatment=taxed("10")), "EUR", "-0.01", ["-0.01"]),
        # 1005 yen x 10 % = 100.5, half up 101
        (amounts("1005", treatment=taxed("10")), "JPY", "101", ["101"]),
        # 1.234 dinars x 5 % = 0.0617, half up 0.062
        (amounts("1.234", treatment=taxed("5")), "KWD", "0.062", ["0.062"]),
        # 119.00 with 19 % in it: 119 x 19 / 119 = 19.00
        (amounts("119.00", treatment=taxed(inclusive=True)), "EUR", "19.00", ["19.00"]),
        # 9.99 with 19 % in it: 1.5950, half up 1.60
        (amounts("9.99", treatment=taxed(inclusive=True)), "EUR", "1.60", ["1.60"]),
        # 33.15 with 6.625 % in it: 33.15 x 6.625 / 106.625 = 2.0597
        (amounts("33.15", treatment=taxed("6.625", inclusive=True)), "USD", "2.06", ["2.06"]),
        ([], "EUR", "0", []),
    ],
)
def test_tax_and_shares(lines: list[TaxableLine], currency: str, tax: str, shares: list[str]) -> None:
    result = tax_lines(lines, currency)
    assert result.tax == Decimal(tax)
    assert [line.tax for line in result.lines] == [Decimal(share) for share in shares]


def test_three_notes_of_a_cents_tax_never_give_back_more_than_was_charged() -> None:
    lines = amounts("0.05", "0.05", "0.05", treatment=taxed("10"))
    known = billed(lines, tax_lines(lines, "EUR"))
    back = []
    for index in range(3):
        parts = [line.amount if at == index else ZERO for at, line in enumerate(lines)]
        back.append(_take_back(lines, parts, "EUR", known).tax)
    # 0.02 was charged. Left: 0.10 x 10 % = 0.01, 0.05 x 10 % = 0.005 -> 0.01, nothing.
    assert back == [Decimal("-0.01"), Decimal("0.00"), Decimal("-0.01")]
