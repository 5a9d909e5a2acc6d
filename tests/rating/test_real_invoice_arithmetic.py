"""The arithmetic of 18 published e-invoices, done again with our rounding: lines, tax split, totals.

Eleven add up. In seven a line's stated net is not price × quantity; exactly those lines must be found, nothing else in
these samples may differ, and each difference must be one of two: a return without its minus sign, or a net that stands
for part of the quantity.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from core.money import allocate, round_to_minor
from rating.domain.price import multiply
from tests.shared_data import SHARED_DATA

pytestmark = pytest.mark.shared_data

ZERO = Decimal(0)


def read_cases() -> list[dict[str, Any]]:
    path = SHARED_DATA / "einvoice" / "arithmetic_cases.json"
    cases: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["cases"] if path.is_file() else []
    return cases


CASES = read_cases()


def test_there_are_eleven_that_add_up_and_seven_that_do_not() -> None:
    assert len(CASES) == 18
    assert sum(not case["discrepancies"] for case in CASES) == 11
    assert sum(len(case["discrepancies"]) for case in CASES) == 9


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"].rpartition("/")[2])
def test_exactly_the_listed_discrepancies_are_found(case: dict[str, Any]) -> None:
    assert list(discrepancies(case)) == case["discrepancies"]


def test_each_difference_is_a_missing_sign_or_a_part_of_the_quantity() -> None:
    reasons: Counter[str] = Counter()
    for case in CASES:
        for line in case["lines"]:
            computed, stated = line_net(line, case["currency"]), Decimal(line["net"])
            if computed == -stated:
                reasons["missing sign"] += 1
            elif computed != stated:
                assert computed % stated == 0
                assert computed // stated <= 4
                reasons["part of the quantity"] += 1
    assert reasons == {"missing sign": 3, "part of the quantity": 6}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"].rpartition("/")[2])
def test_a_discount_spread_over_the_lines_adds_up_to_itself(case: dict[str, Any]) -> None:
    """Not stated in the samples, but done with real amounts: what a coupon on the whole invoice does."""
    weights = [abs(Decimal(line["net"])) for line in case["lines"]]
    total = round_to_minor(sum(weights, ZERO) * Decimal("0.0333"), case["currency"])
    parts = allocate(total, weights, case["currency"])
    assert sum(parts) == total
    assert all(abs(part) <= weight for part, weight in zip(parts, weights, strict=True))


def discrepancies(case: dict[str, Any]) -> Iterator[str]:
    """Yield where the sample differs from what its own figures come to, in the words of the list beside it."""
    currency, stated = case["currency"], case["expected"]

    def compare(what: str, computed: Decimal, said: str | None) -> Iterator[str]:
        if computed != Decimal(said or 0):
            yield f"{what}: computed {computed}, stated {said}"

    for number, line in enumerate(case["lines"], 1):
        yield from compare(f"line {number} net", line_net(line, currency), line["net"])
    # From here on stated line amounts count, so that a line that differs does not hide what its total does.
    lines_total = sum((Decimal(line["net"]) for line in case["lines"]), ZERO)
    yield from compare("line net total", lines_total, stated["line_net_total"])
    of_document = case["document_allowances_charges"]
    allowances, charges = (sum_of(of_document, is_charge=is_charge, currency=currency) for is_charge in (False, True))
    yield from compare("allowance total", allowances, stated["allowance_total"])
    yield from compare("charge total", charges, stated["charge_total"])
    without_tax = lines_total - allowances + charges
    yield from compare("total without VAT", without_tax, stated["total_without_vat"])
    split = tax_split(case)
    said = {(one["vat_category"], Decimal(one["vat_rate"] or 0)): one for one in stated["vat_subtotals"]}
    if split.keys() != said.keys():
        yield f"VAT split: computed {sorted(split)}, stated {sorted(said)}"
        return
    taxes = ZERO
    for key, taxable in split.items():
        tax = round_to_minor(taxable * key[1] / 100, currency)
        taxes += tax
        yield from compare(f"VAT {key} taxable", taxable, said[key]["taxable"])
        yield from compare(f"VAT {key} tax", tax, said[key]["tax"])
    yield from compare("VAT total", taxes, stated["vat_total"])
    yield from compare("total with VAT", without_tax + taxes, stated["total_with_vat"])
    payable = without_tax + taxes - Decimal(stated["prepaid"] or 0) + Decimal(stated["rounding"] or 0)
    yield from compare("payable", payable, stated["payable"])


def line_net(line: dict[str, Any], currency: str) -> Decimal:
    """Return price × quantity ÷ base quantity, rounded once, with the line's own allowances and charges."""
    base = Decimal(line["price_base_quantity"] or 1)
    gross = multiply(Decimal(line["quantity"]), Decimal(line["price"]), 1) / base
    own = line["allowances_charges"]
    added = sum_of(own, is_charge=True, currency=currency) - sum_of(own, is_charge=False, currency=currency)
    return round_to_minor(gross + added, currency)


def sum_of(entries: list[dict[str, Any]], *, is_charge: bool, currency: str) -> Decimal:
    """Return the sum of allowances or of charges; one that says a percentage must be that part of its base."""
    total = ZERO
    for entry in entries:
        if entry["is_charge"] is not is_charge:
            continue
        amount = Decimal(entry["amount"])
        if entry["base"] is not None and entry["percent"] is not None:
            assert amount == round_to_minor(Decimal(entry["base"]) * Decimal(entry["percent"]) / 100, currency)
        total += amount
    return total


def tax_split(case: dict[str, Any]) -> dict[tuple[str, Decimal], Decimal]:
    """Return the taxable amount of each VAT category and rate."""
    split: dict[tuple[str, Decimal], Decimal] = {}
    for line in case["lines"]:
        key = (line["vat_category"], Decimal(line["vat_rate"] or 0))
        split[key] = split.get(key, ZERO) + Decimal(line["net"])
    for entry in case["document_allowances_charges"]:
        key = (entry["vat_category"], Decimal(entry["vat_rate"] or 0))
        split[key] = split.get(key, ZERO) + Decimal(entry["amount"]) * (1 if entry["is_charge"] else -1)
    return split
