"""A thousand cost rows of three clouds (FOCUS 1.0), priced again: list cost = quantity × list unit price.

Every row is exact or differs by a rule that says how, and the rules' rows are counted: what a cloud rounds to, price
blocks, a quantity that was rounded before it was printed, a credit without a price. Our total and what the rules
explain come to the sample's own total to the last digit.
"""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from decimal import ROUND_HALF_UP, Decimal
from io import StringIO

import pytest

from core.money import round_to_minor
from rating.domain.price import plain
from tests.rating.alone import charge_of, lines_of
from tests.shared_data import SHARED_DATA

pytestmark = pytest.mark.shared_data

Row = dict[str, str]
# What the clouds round the figures they print to.
PLACES = {"AWS": Decimal("1e-10"), "Microsoft": Decimal("1e-11"), "Oracle": Decimal("1e-11")}
BLOCK = 10_000


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    text = gzip.decompress((SHARED_DATA / "focus" / "focus_1.0_sample_1000.csv.gz").read_bytes()).decode()
    return list(csv.DictReader(StringIO(text)))


def figure(row: Row, column: str) -> Decimal:
    return Decimal(row[column])


def list_cost(row: Row, quantity: str = "PricingQuantity") -> Decimal:
    """Return what our engine makes of a row; what was taken back is the negative of what it cost."""
    used = figure(row, quantity)
    charge = charge_of(model="per_unit", unit_amount=plain(figure(row, "ListUnitPrice")))
    cost = sum((line.exact_amount for line in lines_of(charge, abs(used))), Decimal(0))
    return -cost if used < 0 else cost


def explain(row: Row) -> str:
    """Return by which rule a row's list cost is what it is; "" if by none."""
    stated, places = figure(row, "ListCost"), PLACES[row["ProviderName"]]
    if row["ListUnitPrice"] == "NULL":
        return "credit without a price" if row["ChargeCategory"] == "Credit" else ""
    computed = list_cost(row)
    if computed == stated:
        return "exact"
    if figure(row, "ConsumedQuantity") == figure(row, "PricingQuantity") * BLOCK:
        # The price is for a block of 10,000 units, and was taken for each unit.
        return "price of a block for each unit" if list_cost(row, "ConsumedQuantity") == stated else ""
    if computed.quantize(places, rounding=ROUND_HALF_UP) == stated:
        return "rounded by the cloud"
    unrounded = list_cost(row, "ConsumedQuantity").quantize(places, rounding=ROUND_HALF_UP)
    return "quantity rounded before it was printed" if unrounded == stated else ""


def test_every_list_cost_is_exact_or_explained(rows: list[Row]) -> None:
    found = Counter(explain(row) for row in rows)
    assert found == {
        "exact": 509,
        "rounded by the cloud": 458,
        "price of a block for each unit": 31,
        "quantity rounded before it was printed": 1,
        "credit without a price": 1,
    }


def test_the_25_known_exceptions_are_price_blocks(rows: list[Row]) -> None:
    priced = [row for row in rows if row["ListUnitPrice"] != "NULL"]
    far = [row for row in priced if abs(list_cost(row) - figure(row, "ListCost")) > Decimal("1e-6")]
    assert (len(priced), len(far)) == (999, 25)
    assert {(row["ProviderName"], explain(row)) for row in far} == {("Microsoft", "price of a block for each unit")}


def test_totals_are_the_samples_own(rows: list[Row]) -> None:
    columns = ("BilledCost", "ListCost", "EffectiveCost")
    totals = [sum((figure(row, column) for row in rows), Decimal(0)) for column in columns]
    assert [str(total) for total in totals] == ["20.52022672899", "20.39090575119", "14.97651418586"]
    assert str(round_to_minor(totals[0], "USD")) == "20.52"


def test_our_total_and_what_is_explained_come_to_the_samples(rows: list[Row]) -> None:
    """All rows at once, as a price by value: one line for each list price, whichever rows it prices."""
    prices = {plain(figure(row, "ListUnitPrice")) for row in rows if row["ListUnitPrice"] != "NULL"}
    charge = charge_of(model="matrix", dimension="price", unit_amounts={price: price for price in sorted(prices)})
    used: dict[tuple[tuple[str, str], ...], Decimal] = {}
    taken_back = explained = Decimal(0)
    for row in rows:
        if row["ListUnitPrice"] == "NULL":
            explained += figure(row, "ListCost")
            continue
        explained += figure(row, "ListCost") - list_cost(row)
        if figure(row, "PricingQuantity") < 0:
            taken_back += list_cost(row)
            continue
        key = (("price", plain(figure(row, "ListUnitPrice"))),)
        used[key] = used.get(key, Decimal(0)) + figure(row, "PricingQuantity")
    lines = lines_of(charge, used)
    assert len(lines) == len([quantity for quantity in used.values() if quantity])
    exact = sum((line.exact_amount for line in lines), Decimal(0))
    assert exact + taken_back + explained == Decimal("20.39090575119")
    # What rounding and blocks make of it is far below a cent; the credit is what it is.
    assert abs(explained - Decimal("-2.6137")) < Decimal("0.001")
