"""Simulating other prices: one's own plan changes nothing, another changes by its prices, nothing is passed over."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from core.errors import InvalidInputError
from rating.domain.contract import Contract
from rating.domain.other_prices import UNSTORED, OtherPrices, read_amount, read_fields
from rating.domain.price_comparison import Comparison, Totals, Unpriced, percent
from rating.simulate_documents import totals_document
from rating.simulate_everyone import COLUMNS, csv_header, csv_text
from rating.simulate_prices import NOT_OVER, OTHER_CURRENCY, PRICED_TWICE
from rating.simulate_text import print_totals
from tests.rating.history import MemoryHistory
from tests.rating.plans import METERS, TIERS


@pytest.fixture
def history() -> MemoryHistory:
    return MemoryHistory()


def amounts(rows: list[Comparison]) -> dict[tuple[str, str], tuple[str, str]]:
    return {(row.tenant_id, row.period): (str(row.present), str(row.new)) for row in rows}


async def test_another_plan_is_rated_with_the_same_usage(history: MemoryHistory) -> None:
    history.subscribe("acme", "shared")
    history.subscribe("big", "lite")
    history.use("acme", "agent_executions", 15_000)
    history.use("big", "agent_executions", 150_000)
    history.invoiced["big", datetime(2026, 10, 1, tzinfo=UTC)] = Decimal("124.00")
    rows, totals = await history.simulate(OtherPrices(plan=("lite", 1)))
    assert amounts(rows) == {
        ("acme", "2026-10"): ("5.00", "99.00"),  # 5,000 × 0.001; 99 with 100,000 included
        ("big", "2026-10"): ("124.00", "124.00"),  # 99 + 50,000 × 0.0005
    }
    assert [row.billed for row in rows] == [None, Decimal("124.00")]
    found = totals.by_currency["USD"]
    assert (found.more, found.less, found.unchanged, found.sums.difference) == (1, 0, 1, Decimal("94.00"))
    assert found.charges["agent_executions"] == (Decimal("30.00"), Decimal("25.00"))
    assert [mover.tenant_id for mover in found.most] == ["acme"]


quantities = st.decimals(min_value=0, max_value=10**7, places=4)
usages = st.dictionaries(
    st.sampled_from(["agent_executions", "api_requests", "cpu", "memory", "network_egress"]), quantities, max_size=5
)


@settings(max_examples=25, deadline=None)
@given(
    tenants=st.lists(
        st.tuples(st.sampled_from(sorted(set(TIERS) & {"zero", "shared", "lite", "enterprise", "airgapped"})), usages),
        min_size=1,
        max_size=6,
    ),
    started=st.sampled_from(["2025-03-31", "2026-01-01", "2026-10-17", "2026-11-30T13:37"]),
    contract=st.booleans(),
)
async def test_ones_own_plan_changes_nothing_for_anyone(
    tenants: list[tuple[str, dict[str, Decimal]]], started: str, contract: bool
) -> None:
    history = MemoryHistory()
    overrides = {"charges": [{"id": "cpu", "unit_amount": "0.041"}]} if contract else {}
    for number, (plan_id, usage) in enumerate(tenants):
        own = overrides if any(charge.charge_id == "cpu" for charge in TIERS[plan_id].charges) else {}
        history.subscribe(f"t{number}", plan_id, started=started, overrides=own)
        for meter_id, quantity in usage.items():
            for month in ("2026-10", "2026-12"):
                history.use(f"t{number}", meter_id, str(quantity), month)
    for plan_id in {plan_id for plan_id, _ in tenants}:
        rows, _ = await history.simulate(OtherPrices(plan=(plan_id, 1)), first="2026-10", last="2026-12")
        own = {f"t{number}" for number, (held, _) in enumerate(tenants) if held == plan_id}
        assert {row.difference for row in rows if row.tenant_id in own} <= {Decimal(0)}
    same, totals = await history.simulate(OtherPrices(book={one: plan.document for one, plan in TIERS.items()}))
    assert {row.difference for row in same} <= {Decimal(0)}
    assert all(found.more == found.less == 0 for found in totals.by_currency.values())


async def test_a_price_book_changes_only_plans_of_its_names(history: MemoryHistory) -> None:
    history.subscribe("acme", "shared")
    history.subscribe("big", "lite", overrides={"charges": [{"id": "base", "flat_amount": "80"}]})
    for tenant_id in ("acme", "big"):
        history.use(tenant_id, "cpu", 100)
    document = json.loads(json.dumps(dict(TIERS["lite"].document)))
    for charge in document["charges"]:
        if charge["id"] == "cpu":
            charge["unit_amount"] = "0.08"
    rows, _ = await history.simulate(OtherPrices(book={"lite": document}))
    # The contract's base fee holds on under the new prices: 80 + 100 × 0.05; 80 + 100 × 0.08.
    assert amounts(rows) == {("acme", "2026-10"): ("5.00", "5.00"), ("big", "2026-10"): ("85.00", "88.00")}
    rows, _ = await history.simulate(OtherPrices(book={"lite": document}, contracts=False))
    assert amounts(rows)["big", "2026-10"] == ("85.00", "107.00")
    rows, _ = await history.simulate(OtherPrices(plan=("lite", UNSTORED), book={"lite": document}))
    assert amounts(rows)["acme", "2026-10"] == ("5.00", "107.00")


async def test_a_contract_is_not_carried_to_another_plan(history: MemoryHistory) -> None:
    history.subscribe("acme", "shared", overrides={"charges": [{"id": "cpu", "unit_amount": "0.01"}]})
    history.use("acme", "cpu", 100)
    rows, _ = await history.simulate(OtherPrices(plan=("lite", 1)))
    assert amounts(rows) == {("acme", "2026-10"): ("1.00", "104.00")}  # 100 × 0.01; 99 + 100 × 0.05


async def test_who_began_within_the_period_pays_for_the_days_held(history: MemoryHistory) -> None:
    history.subscribe("a", "lite")
    history.subscribe("b", "lite", started="2026-10-17")
    history.subscribe("c", "lite", ended="2026-10-11")
    rows, _ = await history.simulate(OtherPrices(plan=("enterprise", 1)))
    # 99 and a minimum of 5,000, × 1, × 15/31, × 10/31
    assert [(str(row.present), str(row.new)) for row in rows] == [
        ("99.00", "5000.00"), ("47.90", "2419.35"), ("31.94", "1612.90"),
    ]  # fmt: skip


async def test_a_book_of_a_new_name_is_laid_over_every_plan(history: MemoryHistory) -> None:
    history.subscribe("acme", "shared")
    history.use("acme", "cpu", 100)
    history.use("acme", "agent_executions", 11_000)
    charge = {"id": "cpu", "name": "CPU", "model": "per_unit", "meter": "cpu", "unit_amount": "0.2"}
    book = {"name": "Dear CPUs", "currency": "USD", "charges": [charge]}
    rows, _ = await history.simulate(OtherPrices(laid_over=(book,)))
    assert amounts(rows) == {("acme", "2026-10"): ("6.00", "21.00")}  # 1,000 × 0.001 + 100 × 0.05; + 100 × 0.2
    rows, totals = await history.simulate(OtherPrices(laid_over=({**book, "currency": "EUR"},)))
    assert [row.note for row in rows] == ["prices cannot be read: other_currency"]
    assert totals.not_compared == {"prices cannot be read: other_currency": 1}


async def test_fields_minimum_and_discount(history: MemoryHistory) -> None:
    history.subscribe("acme", "shared")
    history.use("acme", "cpu", 100)
    history.use("acme", "agent_executions", 11_000)
    fields = read_fields(["cpu.unit_amount=0.06"])
    rows, _ = await history.simulate(OtherPrices(fields=fields))
    assert amounts(rows) == {("acme", "2026-10"): ("6.00", "7.00")}  # 1 + 100 × 0.06
    rows, _ = await history.simulate(OtherPrices(discount=Decimal(10)))
    assert amounts(rows) == {("acme", "2026-10"): ("6.00", "5.40")}
    rows, _ = await history.simulate(OtherPrices(minimum=Decimal(25)))
    assert amounts(rows) == {("acme", "2026-10"): ("6.00", "25.00")}
    rows, _ = await history.simulate(OtherPrices(fields=fields, minimum=Decimal(25), discount=Decimal(50)))
    assert amounts(rows) == {("acme", "2026-10"): ("6.00", "25.00")}  # 7 - 3.50 is topped up to 25
    history.subscribe("big", "enterprise")
    rows, _ = await history.simulate(OtherPrices(minimum=Decimal(0)))
    assert amounts(rows)["big", "2026-10"] == ("5000.00", "0")


async def test_usage_without_a_price_is_told(history: MemoryHistory) -> None:
    history.subscribe("acme", "shared")
    history.subscribe("other", "zero")
    history.use("acme", "gpu", 3, gpu="h200")
    history.use("acme", "cpu", 100)
    history.use("other", "cpu", 2)
    rows, totals = await history.simulate(OtherPrices(plan=("zero", 1)))
    assert amounts(rows)["acme", "2026-10"] == ("5.00", "0")
    assert totals.unpriced[("cpu", "")] == Unpriced(Decimal(102), METERS["cpu"].unit, 2, 1)
    assert totals.unpriced[("gpu", "")].without_price_now == 1
    rows, totals = await history.simulate(OtherPrices(plan=("shared", 1)))
    assert list(totals.unpriced) == [("gpu", "gpu h200")]


async def test_contracts_lie_over_the_plan_they_name(history: MemoryHistory) -> None:
    contract = Contract(
        "deal", 1, "acme", "lite", datetime(2026, 10, 1, tzinfo=UTC), None,
        {"charges": [{"id": "cpu", "unit_amount": "0.01"}]},
    )  # fmt: skip
    history.subscribe("acme", "shared", contracts=(contract,))
    history.use("acme", "cpu", 100)
    rows, _ = await history.simulate(OtherPrices(plan=("lite", 1)))
    assert amounts(rows) == {("acme", "2026-10"): ("5.00", "100.00")}  # 99 + 100 × 0.01: the deal is for lite
    rows, _ = await history.simulate(OtherPrices(plan=("lite", 1), contracts=False))
    assert amounts(rows) == {("acme", "2026-10"): ("5.00", "104.00")}


async def test_what_cannot_be_compared_is_left_out_and_told(history: MemoryHistory) -> None:
    history.documents["euro", 1] = {**TIERS["lite"].document, "currency": "EUR"}
    history.subscribe("acme", "shared")
    rows, totals = await history.simulate(OtherPrices(plan=("euro", 1)))
    assert ([row.note for row in rows], totals.by_currency) == ([OTHER_CURRENCY], {})
    history.subscribe("acme", "airgapped")
    rows, totals = await history.simulate(OtherPrices(plan=("lite", 1)))
    assert [row.note for row in rows] == [PRICED_TWICE]
    assert totals.examples == {PRICED_TWICE: "acme"}
    early = datetime(2026, 10, 31, tzinfo=UTC)
    rows, totals = await history.simulate(OtherPrices(plan=("lite", 1)), now=early)
    assert {row.note for row in rows} == {NOT_OVER}


async def test_periods_are_the_tenants_own(history: MemoryHistory) -> None:
    history.subscribe("berlin", "lite", zone="Europe/Berlin")
    history.subscribe("moved", "lite", ended="2026-11-11")
    rows, _ = await history.simulate(OtherPrices(discount=Decimal(50)), last="2026-12")
    assert [(row.tenant_id, row.period, str(row.present), str(row.new)) for row in rows] == [
        ("berlin", "2026-10", "99.00", "49.50"),
        ("berlin", "2026-11", "99.00", "49.50"),
        ("berlin", "2026-12", "99.00", "49.50"),
        ("moved", "2026-10", "99.00", "49.50"),
        ("moved", "2026-11", "33.00", "16.50"),  # 99 × 10/30
    ]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 900), st.integers(0, 900)), max_size=30), st.integers(0, 30)
)
def test_totals_of_chunks_are_the_totals_of_all(found: list[tuple[int, int, int]], cut: int) -> None:
    def total(rows: list[tuple[int, int, int]], offset: int) -> Totals:
        totals = Totals(top=3)
        for number, (_, present, new) in enumerate(rows):
            name = f"t{offset + number:03}"
            totals.add_tenant([Comparison(name, "2026-10", "USD", "a", "b", None, Decimal(present), Decimal(new))])
            totals.add_charge("USD", "base", Decimal(present), Decimal(new))
            totals.add_unpriced("cpu", f"v{new % 3}", Unpriced(Decimal(new), "h", 1, present % 2))
        return totals

    whole, parts = total(found, 0), Totals(top=3)
    parts.add(total(found[:cut], 0))
    parts.add(total(found[cut:], cut))
    assert parts == whole


async def test_documents_csv_and_text_say_the_same(history: MemoryHistory) -> None:
    history.subscribe("=cmd()", "shared")
    history.use("=cmd()", "cpu", 100)
    history.use("=cmd()", "gpu", 1, gpu="h200")
    rows, totals = await history.simulate(OtherPrices(discount=Decimal(10)))
    ((row,)) = csv.DictReader(io.StringIO(csv_header() + csv_text(rows)))
    assert tuple(row) == COLUMNS
    assert (row["tenant"], row["difference"], row["percent"]) == ("'=cmd()", "-0.50", "-10.0")
    document = totals_document(totals, question="What if: 10 % off", period="2026-10")
    assert document["currencies"]["USD"]["difference"] == "-0.50"
    assert document["unpriced_usage"][0]["values"] == "gpu h200"
    json.dumps(document)
    written = io.StringIO()
    print_totals(totals, Console(file=written, width=120), question="What if: 10 % off", period="2026-10")
    for said in ("-0.50 (-10.0 %)", "gpu h200", "0 tenants would pay more, 1 less", "Usage without a price"):
        assert said in written.getvalue()


def test_percent_of_nothing_is_none() -> None:
    assert percent(Decimal(5), Decimal(0)) is None
    assert percent(Decimal("-1"), Decimal(3)) == Decimal("-33.3")


@pytest.mark.parametrize("text", ["cpu", "cpu=1", ".x=1", "cpu.=1", "=", ""])
def test_a_change_that_names_no_field_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_fields([text])
    assert [fault.code for fault in refused.value.faults] == ["invalid_change"]


def test_changes_of_one_charge_come_together() -> None:
    found = read_fields(["a.unit_amount=0.5", 'a.transform_quantity={"divide_by": 1000}', "b.x.flat_amount=7"])
    assert found["charges"] == [
        {"id": "a", "unit_amount": "0.5", "transform_quantity": {"divide_by": 1000}},
        {"id": "b.x", "flat_amount": 7},
    ]


@pytest.mark.parametrize(
    ("text", "code"), [("-1", "negative_amount"), ("101", "invalid_percent"), ("x", "invalid_amount")]
)
def test_bad_amounts_are_refused(text: str, code: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_amount(text, "--discount", Decimal(100))
    assert [(fault.code, fault.path) for fault in refused.value.faults] == [(code, "--discount")]
