"""Billing stories on the invoice engine, each with its sums, each ending with "run again: nothing new"."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from decimal import Decimal

import pytest

from core.errors import InvalidInputError
from core.meters import Meter
from invoicing.domain.invoice import Invoice
from rating.domain.digest import canonical_json
from rating.domain.measured import MeasuredTotal
from rating.domain.plan import parse_plan
from tests.invoicing.scene import Scene, amounts, contract_of
from tests.invoicing.story import settled
from tests.rating.plans import TIERS, plan_of


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.story
async def test_lite_month(scene: Scene) -> None:
    """A month of Lite with usage at both its edges; owed 99.00 + 10.00 + 5.03 = 114.03."""
    scene.on("lite")
    scene.used("agent_executions", 60_000, agent_type="planner")
    scene.used("agent_executions", 60_000, "2026-10-31T23:59", agent_type="coder")
    scene.used("cpu", "100.5", "2026-10-01T00:00")
    scene.used("cpu", "7", "2026-11-01T00:00")  # November's
    scene.used("cpu", "7", "2026-09-30T23:59")  # September's
    invoice = await scene.bill_one()
    assert amounts(invoice) == {
        "Lite base fee": "99.00",
        "Agent executions — included, up to 100,000": "0.00",
        "Agent executions — beyond 100,000": "10.00",  # 20,000 × 0.0005
        "CPU": "5.03",  # 100.5 × 0.05 = 5.025, half up
    }
    assert (invoice.total, invoice.status, invoice.number) == (Decimal("114.03"), "finalized", "MB-2026-000001")
    assert invoice.due_at.isoformat() == "2026-11-18T00:00:00+00:00"  # 15 days after 3 November
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_late_usage_becomes_an_invoice_over_the_difference(scene: Scene) -> None:
    """Usage comes late, twice, after a Shared month; owed 5.50, then 10.00, then 3.00."""
    scene.on("shared")
    scene.used("agent_executions", 15_000)
    scene.used("cpu", 10)
    first = await scene.bill_one()
    assert first.total == Decimal("5.50")  # 5,000 × 0.001 + 10 × 0.05
    scene.used("agent_executions", 4_000, "2026-10-31T22:00")
    scene.used("gpu", 2, gpu="a100")
    late = await scene.bill_one()
    assert amounts(late) == {
        "Agent executions — beyond 10,000": "4.00",  # 9,000 × 0.001 - 5.00
        "GPU — a100": "6.00",  # 2 × 3.00, new
    }
    executions, gpu = late.draft.lines
    assert (executions.quantity, executions.corrects_invoice) == (Decimal(4_000), first.draft.invoice_id)
    assert gpu.corrects_invoice is None
    assert executions.evidence["billed_before"] == {"number": "MB-2026-000001", "quantity": "5000", "amount": "5.00"}
    assert (late.draft.sequence, late.number) == (2, "MB-2026-000002")
    assert late.snapshot["invoice"]["corrects"] == ["MB-2026-000001"]
    assert await scene.bill() == []
    scene.used("gpu", 1, gpu="a100")
    third = await scene.bill_one()
    assert (third.draft.sequence, amounts(third)) == (3, {"GPU — a100": "3.00"})
    assert third.draft.lines[0].corrects_invoice == late.draft.invoice_id
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_late_usage_within_the_allowance_needs_no_second_invoice(scene: Scene) -> None:
    """Late usage fills the allowance and then exceeds it; owed 0.00, then 1.00."""
    scene.on("shared")
    scene.used("agent_executions", 5_000)
    first = await scene.bill_one()
    scene.used("agent_executions", 1_000)
    assert await scene.bill() == []
    scene.used("agent_executions", 5_000)
    second = await scene.bill_one()
    # 11,000 in all: 10,000 included (5,000 of them on the first invoice), 1,000 × 0.001
    assert amounts(second) == {
        "Agent executions — included, up to 10,000": "0.00",
        "Agent executions — beyond 10,000": "1.00",
    }
    assert second.draft.lines[0].corrects_invoice == first.draft.invoice_id
    await settled(scene, "2026-10")


async def test_a_broken_invariant_parks_the_account(scene: Scene) -> None:
    scene.on("shared")
    scene.used("cpu", 100)
    assert (await scene.bill_one()).total == Decimal("5.00")
    ((_, document),) = scene.subscribed.documents.items()
    documents = {("shared", 1): {**document, "charges": [{**document["charges"][0], "model": "lottery"}]}}
    scene.books.state.subscribed["acme"] = [replace(scene.subscribed, documents=documents)]
    scene.used("cpu", 1_000)
    assert await scene.bill() == []
    assert scene.parked is not None
    assert "lottery" in scene.parked
    scene.books.state.subscribed["acme"] = [replace(scene.subscribed, documents={("shared", 1): document})]
    assert await scene.bill() == [], "nothing is invoiced while the account is parked"
    assert len(scene.books.state.invoices) == 1
    assert scene.books.state.series == {"MB-2026": 1}, "the abandoned invoice used no number up"


@pytest.mark.story
async def test_late_usage_below_the_minimum_is_invoiced_over_nothing_and_settled(scene: Scene) -> None:
    """An Enterprise minimum is not reached, also not by late usage; owed 5,000.00, then 0.00."""
    scene.on("enterprise")
    scene.used("cpu", 1_000)
    assert amounts(await scene.bill_one()) == {"CPU": "50.00", "Top-up to the monthly minimum": "4950.00"}
    scene.used("cpu", 200)
    late = await scene.bill_one()
    assert amounts(late) == {"CPU": "10.00", "Top-up to the monthly minimum": "-10.00"}
    assert (str(late.total), late.status) == ("0.00", "paid")
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_zero_confirms_usage_at_nothing_due(scene: Scene) -> None:
    """Usage within the free tier; owed 0.00, on an invoice that is paid."""
    scene.on("zero")
    scene.used("agent_executions", 900)
    invoice = await scene.bill_one()
    assert (str(invoice.total), invoice.status) == ("0.00", "paid")
    await settled(scene, "2026-10")


@pytest.mark.parametrize("tier", ["zero", "zero_pay_per_execution", "shared"])
@pytest.mark.story
async def test_without_usage_there_is_nothing_to_invoice(scene: Scene, tier: str) -> None:
    """A month without usage on a tier without a fee; owed nothing, and no number is used."""
    scene.on(tier)
    assert await scene.bill() == []
    assert scene.books.state.series == {}
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_enterprise_from_the_17th_under_contract(scene: Scene) -> None:
    """A contract begins on the 17th; owed 15/31 of fee and minimum, 2,419.35."""
    contract = {"charges": [{"id": "base", "flat_amount": "1000"}, {"id": "cpu", "unit_amount": "0.04"}]}
    scene.on("enterprise", started="2026-10-17", overrides=contract)
    scene.used("cpu", 1_000, "2026-10-16T23:59")  # before the contract
    scene.used("cpu", 100, "2026-10-17T00:00")
    invoice = await scene.bill_one()
    assert amounts(invoice) == {
        "Enterprise base fee — 15/31 of the period": "483.87",  # 1,000 × 15/31 = 483.870...
        "CPU": "4.00",  # 100 × 0.04
        "Top-up to the monthly minimum — 15/31 of the period": "1931.48",  # 5,000 × 15/31 = 2,419.354... - 487.87
    }
    assert invoice.total == Decimal("2419.35")
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_airgapped_licence_and_the_support_a_year_later(scene: Scene) -> None:
    """A licence is bought, its support renewed after a year; owed 60,000.00, then 10,000.00."""
    scene.on("airgapped", started="2026-10-05")
    assert (await scene.bill_one()).total == Decimal("60000.00")
    scene.clock.travel_to("2027-11-02")
    assert await scene.bill(period="2026-11") == []
    renewal = await scene.bill_one(period="2027-10")
    assert amounts(renewal) == {"Yearly support and updates": "10000.00"}
    assert renewal.number == "MB-2027-000001", "a new year, a new series"
    await settled(scene, "2026-10", "2026-11", "2027-10")


@pytest.mark.story
async def test_changing_plans_in_the_month_invoices_each_for_its_days(scene: Scene) -> None:
    """Lite until the 10th, then Shared; owed 32.44 and 1.00 on two invoices."""
    scene.tenant(
        "acme",
        contract_of(TIERS["lite"], ended="2026-10-11T00:00", subscription_id="sub_1"),
        contract_of(TIERS["shared"], started="2026-10-11T00:00", subscription_id="sub_2"),
    )
    scene.used("cpu", 10, "2026-10-10T23:59")
    scene.used("cpu", 20, "2026-10-11T00:00")
    lite, shared = await scene.bill()
    assert amounts(lite) == {"Lite base fee — 10/31 of the period": "31.94", "CPU": "0.50"}  # 99 × 10/31 = 31.935...
    assert amounts(shared) == {"CPU": "1.00"}  # 20 × 0.05
    assert [lite.number, shared.number] == ["MB-2026-000001", "MB-2026-000002"]
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_two_consumers_with_one_request_bill_once(scene: Scene) -> None:
    """One request is read three times; owed once."""
    scene.on("lite")
    assert len(await scene.bill() + await scene.bill() + await scene.bill()) == 1
    await settled(scene, "2026-10")


@pytest.mark.parametrize(
    ("period", "tenant", "now", "code"),
    [
        ("2026-11", "acme", "2026-11-30T23:59:59", "period_not_over"),
        ("2026-13", "acme", "2026-11-03", "invalid_period"),
        ("october", "acme", "2026-11-03", "invalid_period"),
        ("2026-10", "nobody", "2026-11-03", "unknown_tenant"),
    ],
)
async def test_requests_that_make_no_sense_are_refused(
    scene: Scene, period: str, tenant: str, now: str, code: str
) -> None:
    scene.on("lite")
    scene.clock.travel_to(now)
    with pytest.raises(InvalidInputError) as refused:
        await scene.bill(tenant, period)
    assert [fault.code for fault in refused.value.faults] == [code]
    assert scene.books.state.invoices == []


@pytest.mark.story
async def test_a_period_may_be_invoiced_from_the_first_instant_after_it(scene: Scene) -> None:
    """Billed in the first instant of November; owed 99.00."""
    scene.on("lite")
    scene.clock.travel_to("2026-11-01T00:00:00")
    assert (await scene.bill_one()).issued_at.isoformat() == "2026-11-01T00:00:00+00:00"
    await settled(scene, "2026-10")


async def test_an_account_in_another_currency_than_its_plan_is_parked(scene: Scene) -> None:
    scene.tenant("acme", contract_of(TIERS["lite"]), currency="EUR")
    assert await scene.bill() == []
    assert scene.parked is not None


async def test_a_stored_plan_that_cannot_be_read_parks_the_account(scene: Scene) -> None:
    scene.on("shared", overrides={"charges": [{"id": "cpu", "unit_amount": 0.5}]})
    assert await scene.bill() == []
    assert scene.parked is not None
    assert "float_amount" in scene.parked


async def test_a_line_keeps_what_proves_it(scene: Scene) -> None:
    scene.on("lite")
    scene.used("llm_input_tokens", 1_000, "2026-10-01T00:00", model="gpt4")
    scene.used("llm_input_tokens", 500, "2026-10-01T00:00", model="")
    scene.used("llm_input_tokens", 234, "2026-10-02T13:00", model="gpt4")
    invoice = await scene.bill_one()
    line = next(line for line in invoice.draft.lines if line.dimensions == (("model", "gpt4"),))
    assert line.evidence["hours"] == [["2026-10-01T00", "1000", 1], ["2026-10-02T13", "234", 1]]
    assert line.evidence["steps"] == ["1234 × 0.03 ÷ 1000 = 0.03702"]
    assert line.evidence["query"] == {
        "name": "usage_of_period",
        "window": "2026-10-01T00:00:00Z/2026-11-01T00:00:00Z",
    }
    assert line.evidence["charge"]["unit_amounts"]["gpt4"] == "0.030"
    assert line.evidence["plan"]["digest"] == TIERS["lite"].digest
    unnamed = next(line for line in invoice.draft.lines if line.dimensions == (("model", ""),))
    assert unnamed.evidence["hours"] == [["2026-10-01T00", "500", 1]], "not named is not the same as all of them"
    rows = [
        "llm_input_tokens\t\t2026-10-01T00\t500\t1\n",
        "llm_input_tokens\tmodel=gpt4\t2026-10-01T00\t1000\t1\n",
        "llm_input_tokens\tmodel=gpt4\t2026-10-02T13\t234\t1\n",
    ]
    assert line.evidence["usage_digest"] == hashlib.sha256("".join(rows).encode()).hexdigest()


async def test_the_snapshot_holds_all_that_the_document_shows(scene: Scene) -> None:
    scene.on("lite")
    scene.used("cpu", "100.5", "2026-10-03T10:00")
    scene.used("cpu", "1", "2026-10-03T11:00")
    invoice = await scene.bill_one()
    snapshot = invoice.snapshot
    assert hashlib.sha256(canonical_json(snapshot)).hexdigest() == invoice.snapshot_sha256
    assert (snapshot["subtotal"], snapshot["tax"], snapshot["total"]) == ("104.08", "0.00", "104.08")
    assert [(group["name"], len(group["lines"])) for group in snapshot["groups"]] == [("Subscription", 1), ("Usage", 1)]
    assert snapshot["annex"]["tables"][0]["days"] == [["2026-10-03", "101.5"]]
    assert snapshot["annex"]["tables"][0]["events"] == "2"


async def test_numbers_have_no_gaps_whatever_happens_between(scene: Scene) -> None:
    scene.on("lite")
    scene.on("zero", tenant_id="free")
    scene.tenant("broken", contract_of(plan_of({"id": "a", "model": "flat", "flat_amount": "1"}, currency="EUR")))
    scene.on("shared", tenant_id="late")
    invoices: list[Invoice] = []
    for tenant in ("acme", "free", "broken", "late", "acme"):
        invoices += await scene.bill(tenant)
    scene.usage.add("late", "cpu", 1, scene.clock.now().replace(month=10))
    invoices += await scene.bill("late")
    assert [invoice.number for invoice in invoices] == ["MB-2026-000001", "MB-2026-000002"]


async def test_a_line_of_what_does_not_add_up_says_how_it_came_about(scene: Scene) -> None:
    stored = Meter("stored", "GB-month", "disk", "time_weighted", "gb", ("class",), weight_per="month")
    scene.books.state.meters["stored"] = stored
    price = {"unit_amounts": {"hot": "0.15"}, "unit_amount": "0.10"}
    charge = {"id": "s", "name": "Storage", "meter": "stored", "model": "matrix", "dimension": "class", **price}
    document = {"name": "P", "currency": "USD", "charges": [charge]}
    plan = parse_plan("p", document, scene.books.state.meters)
    scene.tenant("acme", contract_of(plan, subscription_id="sub_acme"))
    hot = MeasuredTotal(stored, (("class", "hot"),), Decimal("10.5"), 3, "level 10 at ...", "ab12")
    other = MeasuredTotal(stored, (("class", ""),), Decimal(2), 1, "level 2 at ...", "cd34")
    scene.usage.measured["acme"] = [hot, other, MeasuredTotal(stored, (), Decimal("12.5"), 4, "", "ef56")]
    scene.used("cpu", 0)
    invoice = await scene.bill_one()
    assert amounts(invoice) == {"Storage — hot": "1.58", "Storage": "0.20"}  # 10.5 × 0.15 = 1.575, half up
    by_description = {line.description: line for line in invoice.draft.lines}
    assert by_description["Storage — hot"].evidence["measured"] == {
        "aggregation": "time_weighted",
        "quantity": "10.5",
        "events": 3,
        "working": "level 10 at ...",
        "samples_digest": "ab12",
    }
    assert by_description["Storage"].evidence["measured"]["samples_digest"] == "cd34"
    tables = {tuple(table["dimensions"]): table for table in invoice.snapshot["annex"]["tables"]}
    assert (tables["hot",]["total"], tables["hot",]["events"], tables["hot",]["days"]) == ("10.5", "3", [])
    digest = invoice.snapshot["annex"]["digest"]
    assert await scene.bill() == []
    # Other samples, same quantities: told apart by the digest.
    scene.usage.measured["acme"][2] = MeasuredTotal(stored, (), Decimal("12.5"), 4, "", "ef57")
    assert (await scene.usage.usage("acme", invoice.draft.period)).digest != digest
