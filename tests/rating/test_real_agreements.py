"""The FOCUS specification's examples of agreements, billed by our prices: licences, spend commitments with and without
prepayment, commitment discounts, virtual currency. Figures that the examples themselves get wrong are named.
"""

from __future__ import annotations

import csv
import tarfile
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import cache

import pytest

from rating.domain.credit import Credit, CreditGrant, CreditKind, Due, plan_draws
from rating.domain.extent import Extent
from rating.domain.price import UsageEntry
from rating.rate_charges import RatedLine, rate_bounds
from tests.rating.alone import charge_of, lines_of
from tests.shared_data import SHARED_DATA

pytestmark = pytest.mark.shared_data

Row = dict[str, str]
STARTS = Extent(starts=True)


@cache
def example(name: str) -> list[Row]:
    """Return the rows of an example by the end of its path."""
    with tarfile.open(SHARED_DATA / "focus" / "focus_spec_examples.tar.gz") as archive:
        (path,) = [path for path in archive.getnames() if path.endswith(f"{name}.csv")]
        file = archive.extractfile(path)
        assert file is not None
        return list(csv.DictReader(file.read().decode("utf-8-sig").splitlines()))


def money(text: str) -> Decimal:
    """Read "48", "1.00" or "$50,000.00 "."""
    return Decimal(text.strip().replace("$", "").replace(",", ""))


def column(rows: list[Row], name: str, charge: str | None = None) -> list[Decimal]:
    return [money(row[name]) for row in rows if charge is None or row["ChargeDescription"] == charge]


def kinds(lines: list[RatedLine]) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for line in lines:
        found[line.kind] = found.get(line.kind, Decimal(0)) + line.amount
    return found


@pytest.mark.parametrize(
    ("name", "cost"),
    [("agreements_a1", 10_000), ("agreements_a2", 50_000), ("agreements_a3", 1_000), ("agreements_b", 50_000)],
)
def test_licences_paid_once(name: str, cost: int) -> None:
    (row,) = example(f"simple_saas_{name}")
    seats = Extent(licensed=money(row["PricingQuantity"]), starts=True)
    charge = charge_of(
        model="per_unit", recurring={"usage_type": "licensed"}, unit_amount=str(money(row["ListUnitPrice"]))
    )
    assert sum(line.amount for line in lines_of(charge, extent=seats)) == money(row["BilledCost"]) == cost


def test_seats_counted_every_month() -> None:
    rows = example("simple_saas_agreements_c")
    charge = charge_of(model="per_unit", unit_amount="20")
    billed = [lines_of(charge, money(row["ConsumedQuantity"]))[0].amount for row in rows]
    assert billed == column(rows, "BilledCost") == [10_100, 13_000, 12_700]


MONTHS = [4, 10, 5]  # server hours in April, May and June; none from July on
USAGE, MONTHLY, FINAL = "Monthly usage charge", "Monthly unused fee", "End of contract unused fee"


def test_list_and_contract_price_of_the_same_hours() -> None:
    rows = [row for row in example("saas_spend_agreements_a1") if row["ChargeDescription"] == USAGE]
    for row, hours in zip(rows, MONTHS, strict=True):
        listed = charge_of(model="per_unit", unit_amount="15")
        contracted = charge_of(model="per_unit", unit_amount="15", discount={"percent_off": "20"})
        assert sum(line.amount for line in lines_of(listed, hours)) == money(row["ListCost"])
        # 15 × 0.8 = 12
        assert sum(line.amount for line in lines_of(contracted, hours)) == money(row["BilledCost"])


def test_a_spend_commitment_is_trued_up_at_the_end_of_the_contract() -> None:
    rows = example("saas_spend_agreements_a1")
    charge = charge_of(model="per_unit", unit_amount="12", commitment={"amount": "1200"})
    lines = lines_of(charge, sum(MONTHS))
    # (4 + 10 + 5) × 12 = 228; 1200 - 228 = 972
    assert kinds(lines) == {
        "usage": sum(column(rows, "BilledCost", USAGE)),
        "true_up": column(rows, "BilledCost", FINAL)[0],
    }
    assert sum(line.amount for line in lines) == 1200 == sum(column(rows, "BilledCost"))


def monthly_charges() -> list[list[RatedLine]]:
    """Eleven months with a commitment of 60 each; the twelfth is settled by the contract's end."""
    charge = charge_of(model="per_unit", unit_amount="12", commitment={"amount": "60"})
    return [lines_of(charge, hours) for hours in [*MONTHS, *[0] * 8]]


@pytest.mark.parametrize("name", ["a2", "b2"])
def test_a_monthly_commitment_within_a_yearly_one(name: str) -> None:
    rows = example(f"saas_spend_agreements_{name}")
    months = [kinds(lines) for lines in monthly_charges()]
    assert [month["usage"] for month in months if "usage" in month] == column(rows, "ContractedCost", USAGE)
    assert [month["true_up"] for month in months if "true_up" in month] == column(rows, "ContractedCost", MONTHLY)
    lines = [line for month in monthly_charges() for line in month]
    yearly = charge_of(model="commitment", commitment_amount="1200")
    counted = charge_of(model="per_unit", unit_amount="12")
    (final,) = rate_bounds([counted, yearly], "USD", lines)
    # 60 + 120 + 60 + 8 × 60 = 720; 1200 - 720 = 480
    assert (final.kind, final.amount) == ("true_up", 480)
    assert [final.amount] == column(rows, "ContractedCost", FINAL)


@pytest.mark.parametrize("name", ["b1", "b2"])
def test_a_prepaid_commitment_is_drawn_and_the_rest_expires(name: str) -> None:
    """Paid in front, usage costs nothing more: what each row "effectively" costs is what it draws."""
    rows = example(f"saas_spend_agreements_{name}")
    bought, *drawing = rows
    since, until = datetime(2025, 4, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
    paid = money(bought["BilledCost"])
    grant = CreditGrant("upfront", "acme", CreditKind.PAID, paid, "USD", since, since, until)
    balance = paid
    for row in drawing:
        if row["ChargeDescription"] == FINAL:
            break
        due = money(row["ContractedCost"])
        (draw,) = plan_draws([Credit(grant, balance)], [Due("plan", "hours", due)], "USD", since)
        assert due - draw.amount == money(row["BilledCost"]) == 0
        assert draw.amount == money(row["EffectiveCost"])
        balance -= draw.amount
    assert balance == money(drawing[-1]["EffectiveCost"])
    assert plan_draws([Credit(grant, balance)], [Due("plan", "hours", Decimal(1))], "USD", until) == []


@pytest.mark.parametrize(
    ("scenario", "used", "true_up"),
    [(1, "1.00", "0"), (2, "0", "1.00"), (3, "0.75", "0.25"), (4, "1.50", "0")],
)
def test_an_hours_commitment_used_unused_and_exceeded(scenario: int, used: str, true_up: str) -> None:
    rows = example(f"commitment_discount_usage_scenario_{scenario}")
    lines = lines_of(charge_of(model="per_unit", unit_amount="1", commitment={"amount": "1"}), Decimal(used))
    assert kinds(lines).get("true_up", 0) == Decimal(true_up)
    assert sum(line.amount for line in lines) == sum(column(rows, "EffectiveCost"))
    unused = [money(row["EffectiveCost"]) for row in rows if row["CommitmentDiscountStatus"] == "Unused"]
    assert sum(unused) == Decimal(true_up)


@pytest.mark.parametrize(("scenario", "upfront", "hourly"), [(1, "8760", "0"), (2, "0", "1"), (3, "4380", "0.50")])
def test_a_commitment_paid_upfront_by_the_hour_or_half_and_half(scenario: int, upfront: str, hourly: str) -> None:
    rows = example(f"commitment_discount_purchase_scenario_{scenario}")
    charge = charge_of(model="reserved", capacity="1", upfront_amount=upfront, flat_amount=hourly, unit_amount="1")
    first, later = kinds(lines_of(charge, extent=STARTS)), kinds(lines_of(charge))
    bought = [money(row["BilledCost"]) for row in rows if row["ChargeFrequency"] == "One-Time"]
    recurring = {money(row["BilledCost"]) for row in rows if row["ChargeFrequency"] == "Recurring"}
    assert first.get("one_time", 0) == sum(bought)
    assert {amount for amount in (first.get("fixed"), later.get("fixed")) if amount} == recurring
    assert "one_time" not in later
    # A year of 365 days, however it is paid: 8760 × 1.
    assert first.get("one_time", Decimal(0)) + 8760 * later.get("fixed", Decimal(0)) == 8760


NAMES = {
    "one": "one_hundred_percent_utilization_with_commitment_discount_flexibility_with_1_resource",
    "two": "one_hundred_percent_utilization_with_commitment_discount_flexibility_with_2_resources",
    "fixed": "one_hundred_percent_utilization_without_commitment_discount_flexibility",
    "unused": "zero_percent_utilization_without_commitment_discount_flexibility",
}


@pytest.mark.parametrize(
    ("name", "capacity", "reserved", "normalized", "beyond"),
    [
        # Sizes in normalized hours: small 1, medium 2, large 3. What is reserved costs half, what goes beyond the list.
        ("two", "4", "2", "4", "0"),  # two medium hours fill four
        ("fixed", "3", "1.5", "3", "0"),
        ("unused", "3", "1.5", "0", "0"),  # the medium hour is not of this reservation's size
        ("one", "1", "0.5", "3", "2"),
    ],
)
def test_reserved_capacity_in_normalized_hours(
    name: str, capacity: str, reserved: str, normalized: str, beyond: str
) -> None:
    rows = example(NAMES[name])
    charge = charge_of(model="reserved", capacity=capacity, flat_amount=reserved, unit_amount="1")
    lines = lines_of(charge, Decimal(normalized))
    assert kinds(lines).get("fixed") == money(rows[0]["BilledCost"]) == Decimal(reserved)
    assert [line.amount for line in lines if line.part == "overage"] == ([Decimal(beyond)] if beyond != "0" else [])
    committed = [row for row in rows if row["PricingCategory"] == "Committed"]
    assert sum(column(committed, "EffectiveCost")) == Decimal(reserved)


def test_the_example_whose_hours_do_not_add_up() -> None:
    """One large hour is a third reserved; the rest is 2/3, for which the example writes 0.75."""
    rows = [row for row in example(NAMES["one"]) if row["ChargeCategory"] == "Usage"]
    committed, on_demand = rows
    assert (committed["PricingQuantity"], on_demand["PricingQuantity"]) == ("0.333", "0.75")
    large = charge_of(model="per_unit", unit_amount="3")
    assert (
        lines_of(large, money(on_demand["PricingQuantity"]))[0].amount
        == money(on_demand["BilledCost"])
        == Decimal("2.25")
    )
    # Ours is 2.00: two of three normalized hours at 1, which is two thirds of a large hour at 3.
    assert Fraction(2, 3) * 3 == 2
    # Its reserved part effectively costs 0.333 × 1.5, and its list cost is that of the whole hour, not of a third.
    half = charge_of(model="per_unit", unit_amount="1.5")
    third = money(committed["PricingQuantity"])
    assert lines_of(half, third)[0].amount == money(committed["EffectiveCost"]) == Decimal("0.50")
    assert lines_of(large, third)[0].amount == 1
    assert lines_of(large, 1)[0].amount == money(committed["ListCost"]) == 3


TOKENS_LISTED = {"Q Widget": "1", "Z Widget": "2", "Workflow": "3"}


def sku(row: Row) -> str:
    return row["ChargeDescription"].removeprefix("Token Consumption - ").removesuffix(" SKU")


@pytest.mark.parametrize(
    ("name", "tokens", "dollars", "contracted"),
    [
        ("a2", TOKENS_LISTED, "2", [490, 20, 720]),
        ("b2", TOKENS_LISTED, "1", [245, 10, 360]),  # tokens were bought at half price
        ("b3", TOKENS_LISTED | {"Workflow": "2"}, "1", [245, 10, 240]),  # and a workflow costs two of them
    ],
)
def test_usage_priced_in_tokens_and_tokens_in_dollars(
    name: str, tokens: dict[str, str], dollars: str, contracted: list[int]
) -> None:
    """A virtual currency: a matrix says what usage costs in tokens, each event carries that to a price of tokens."""
    rows = example(f"virtual_currency_pricing_model_{name}")
    in_tokens = charge_of(model="matrix", dimension="sku", unit_amounts=tokens)
    in_dollars = charge_of(model="dynamic", amount_property="tokens", multiplier=dollars)
    spent = []
    for row in rows:
        used = money(row["ConsumedQuantity"])
        (line,) = lines_of(in_tokens, {(("sku", sku(row)),): used})
        assert line.amount == money(row["PricingCurrencyEffectiveCost"])
        event = UsageEntry(datetime(2025, 4, 1, tzinfo=UTC), used, amount=line.exact_amount)
        spent.append(sum(one.amount for one in lines_of(in_dollars, used, entries=[event])))
    assert spent == column(rows, "ContractedCost") == contracted
    assert [cost == money(row["ListCost"]) for cost, row in zip(spent, rows, strict=True)] == [name == "a2"] * 3


@pytest.mark.parametrize(
    ("name", "percent_off", "billed"), [("a1", None, [200_000]), ("b1", "50", [100_000]), ("c", None, [3_000, 50_000])]
)
def test_tokens_bought(name: str, percent_off: str | None, billed: list[int]) -> None:
    rows = example(f"virtual_currency_pricing_model_{name}")
    discount = {"discount": {"percent_off": percent_off}} if percent_off else {}
    charge = charge_of(model="per_unit", unit_amount="2", **discount)
    for row, cost in zip(rows, billed, strict=True):
        lines = lines_of(charge, money(row["PricingQuantity"]))
        assert sum(line.amount for line in lines) == money(row["BilledCost"]) == cost
        assert sum(line.amount for line in lines if line.kind == "usage") == money(row["ListCost"])


def test_all_examples_are_billed_above() -> None:
    agreements = {*(f"simple_saas_agreements_{name}" for name in ("a1", "a2", "a3", "b", "c"))}
    spend = {*(f"saas_spend_agreements_{name}" for name in ("a1", "a2", "b1", "b2"))}
    scenarios = {*(f"commitment_discount_usage_scenario_{number}" for number in range(1, 5))}
    scenarios |= {*(f"commitment_discount_purchase_scenario_{number}" for number in range(1, 4))}
    currency = {*(f"virtual_currency_pricing_model_{name}" for name in ("a1", "a2", "b1", "b2", "b3", "c"))}
    with tarfile.open(SHARED_DATA / "focus" / "focus_spec_examples.tar.gz") as archive:
        files = {path.rpartition("/")[2].removesuffix(".csv") for path in archive.getnames() if path.endswith(".csv")}
    assert files == agreements | spend | scenarios | currency | set(NAMES.values())
