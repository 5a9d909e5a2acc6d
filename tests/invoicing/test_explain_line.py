"""Explaining lines: equal, late usage, voids, somebody's hand in the books, and what cannot be derived."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from decimal import Decimal

import pytest
from msgspec import structs
from rich.console import Console

from core.errors import InvalidInputError, NotFoundError
from invoicing.domain.explanation import Explanation, Outcome
from invoicing.domain.stored_invoice import read_reference
from invoicing.explain_documents import explanation_document
from invoicing.explain_text import print_explanation, print_overview, print_recipe
from rating.domain.coupon import Coupon, Duration
from tests.invoicing.explaining import ExplainedScene, failed
from tests.invoicing.scene import at
from tests.rating.plans import TIERS, plan_of


@pytest.fixture
def scene() -> ExplainedScene:
    return ExplainedScene()


def shown(found: Explanation) -> str:
    written = io.StringIO()
    print_explanation(found, Console(file=written, width=220, color_system=None))
    return written.getvalue()


async def test_every_line_of_an_invoice_is_equal(scene: ExplainedScene) -> None:
    scene.on("lite")
    scene.event("api_requests", 6_000_000, endpoint="/v1/a")
    scene.event("api_requests", 6_000_000, "2026-10-31T23:59", endpoint="/v1/b")
    scene.event("cpu", "100.5", "2026-10-01T00:00")
    scene.event("cpu", 7, "2026-11-01T00:00")
    await scene.bill_one()
    found = await scene.explain("MB-2026-000001", whole=True)
    assert [(one.outcome, failed(one)) for one in found] == [(Outcome.EQUAL, [])] * 4
    overage = found[2]
    # 12,000,000 - 10,000,000 = 2,000,000; 2,000,000 × 0.00005 = 100
    assert (overage.then.quantity, overage.then.exact_amount) == (Decimal(2_000_000), Decimal(100))
    assert overage.then == overage.now
    (by_key,) = await scene.explain(overage.line.item_key)
    assert by_key == overage


async def test_a_late_event_makes_it_differ_until_it_is_billed(scene: ExplainedScene) -> None:
    scene.on("shared")
    scene.event("cpu", 10)
    first = await scene.bill_one()
    assert (await scene.explain_one("MB-2026-000001/1")).outcome is Outcome.EQUAL
    late = scene.event("cpu", "3", "2026-10-31T23:58", received="2026-11-05T12:00")
    found = await scene.explain_one("MB-2026-000001/1")
    assert (found.outcome, failed(found)) == (Outcome.DIFFERS, ["nothing_since"])
    assert found.owed == Decimal("0.15")  # 3 × 0.05
    assert (found.then.amount, found.now.amount, found.rollups.amount) == (
        Decimal("0.50"), Decimal("0.65"), Decimal("0.65"),
    )  # fmt: skip
    assert [(one.event, one.state.value) for one in found.changes.first] == [(late, "late")]
    text = shown(found)
    for said in ("DIFFERS", "0.15 USD more is owed", "ev-001", "2026-10-31 23:58", "the line was right when"):
        assert said in text
    scene.clock.travel_to("2026-11-06")
    await scene.bill_one()
    found = await scene.explain_one("MB-2026-000001/1")
    assert (found.outcome, found.later_invoices) == (Outcome.EQUAL, ("MB-2026-000002",))
    difference = await scene.explain_one("MB-2026-000002/1")
    assert (difference.outcome, difference.billed_before.amount) == (Outcome.EQUAL, Decimal("0.50"))
    assert "0.65 - 0.50 billed before (first on MB-2026-000001) = 0.15 USD" in shown(difference)
    both = await scene.explain(first.draft.lines[0].item_key)
    assert [one.invoice.number for one in both] == ["MB-2026-000001", "MB-2026-000002"]


async def test_an_event_voided_since_leaves_too_much_billed(scene: ExplainedScene) -> None:
    scene.on("shared")
    scene.event("cpu", 10)
    wrong = scene.event("cpu", 40, "2026-10-11T11:30")
    await scene.bill_one()
    scene.take_out(wrong, "2026-11-05T08:00")
    found = await scene.explain_one("MB-2026-000001/1")
    assert (found.outcome, failed(found), found.owed) == (Outcome.DIFFERS, ["nothing_since"], Decimal("-2.00"))
    assert (found.changes.late, found.changes.taken_out) == (0, 1)
    assert "2.00 USD less is owed than was billed" in shown(found)
    assert "voided" in shown(found)


async def test_a_void_before_the_invoice_is_no_difference(scene: ExplainedScene) -> None:
    scene.on("shared")
    scene.event("cpu", 10)
    scene.take_out(scene.event("cpu", 40, "2026-10-11T11:30"), "2026-10-12T08:00")
    await scene.bill_one()
    found = await scene.explain_one("MB-2026-000001/1")
    assert (found.outcome, found.billed.amount, found.then.amount) == (Outcome.EQUAL, Decimal("0.50"), Decimal("0.50"))


async def test_late_usage_that_costs_nothing_is_no_difference(scene: ExplainedScene) -> None:
    scene.on("lite")
    scene.event("api_requests", 1_000)
    await scene.bill_one()
    scene.event("api_requests", 500, received="2026-11-05T12:00")
    found = await scene.explain_one("MB-2026-000001/2")
    assert (found.outcome, found.billed.quantity, found.now.quantity) == (Outcome.EQUAL, Decimal(1_000), Decimal(1_500))
    assert "same amount" in shown(found)


async def test_a_minimum_follows_from_the_other_lines(scene: ExplainedScene) -> None:
    scene.on("enterprise")
    scene.event("cpu", 1_000)
    await scene.bill_one()
    usage, top_up = await scene.explain("MB-2026-000001", whole=True)
    assert [(one.outcome, one.now.amount) for one in (usage, top_up)] == [
        (Outcome.EQUAL, Decimal("50.00")),
        (Outcome.EQUAL, Decimal("4950.00")),
    ]


async def test_a_tampered_line_is_found_by_every_check_it_breaks(scene: ExplainedScene) -> None:
    scene.on("shared")
    scene.event("cpu", 10)
    invoice = await scene.bill_one()
    line = invoice.draft.lines[0]
    scene.archive.tampered["MB-2026-000001", 1] = structs.replace(line, amount=Decimal("5.00"))
    found = await scene.explain_one("MB-2026-000001/1")
    assert found.outcome is Outcome.DIFFERS
    assert failed(found) == [
        "line_as_printed",
        "lines_add_up",
        "rounded_once",
        "taxes_add_up",
        "billed_as_derived",
        "nothing_since",
    ]
    charge = {**line.evidence["charge"], "unit_amount": "0.5"}
    scene.archive.tampered["MB-2026-000001", 1] = structs.replace(line, evidence={**line.evidence, "charge": charge})
    assert failed(await scene.explain_one("MB-2026-000001/1")) == ["price_intact"]
    hours = [["2026-10-10T10", "9", 1]]
    altered = {**line.evidence, "hours": hours, "usage_digest": "0" * 64}
    scene.archive.tampered["MB-2026-000001", 1] = structs.replace(line, evidence=altered)
    assert failed(await scene.explain_one("MB-2026-000001/1")) == ["usage_digest"]


async def test_an_altered_plan_is_named_with_the_field(scene: ExplainedScene) -> None:
    scene.on("shared")
    scene.event("cpu", 10)
    await scene.bill_one()
    document = json.loads(json.dumps(dict(TIERS["shared"].document)))
    next(charge for charge in document["charges"] if charge["id"] == "cpu")["unit_amount"] = "0.07"
    contracts = scene.books.state.contracts["acme"]
    contracts[0] = replace(contracts[0], document=document)
    found = await scene.explain_one("MB-2026-000001/1")
    assert failed(found) == ["plan_intact", "billed_as_derived", "nothing_since"]
    assert "unit_amount: billed with '0.05', now '0.07'" in shown(found)
    assert found.then.amount == Decimal("0.70")  # 10 × 0.07


async def test_rollups_that_disagree_with_the_events_are_told(scene: ExplainedScene) -> None:
    scene.on("shared")
    scene.event("cpu", 10)
    await scene.bill_one()
    scene.used("cpu", 4, "2026-10-20T10:00")
    found = await scene.explain_one("MB-2026-000001/1")
    assert failed(found) == ["rollups_agree"]
    assert (found.now.amount, found.rollups.amount) == (Decimal("0.50"), Decimal("0.70"))


async def test_an_unreadable_plan_cannot_be_derived(scene: ExplainedScene) -> None:
    scene.on("shared")
    scene.event("cpu", 10)
    await scene.bill_one()
    contracts = scene.books.state.contracts["acme"]
    contracts[0] = replace(contracts[0], document={"name": "x", "currency": "USD", "charges": [{"id": "cpu"}]})
    found = await scene.explain_one("MB-2026-000001/1")
    assert found.outcome is Outcome.UNDERIVABLE
    assert "CANNOT BE DERIVED" in shown(found)
    assert explanation_document(found)["derived"] is None


async def test_a_meter_added_later_counts_from_its_activation(scene: ExplainedScene) -> None:
    scene.on("shared")
    scene.event("cpu", 10)
    scene.event("cpu", 5)
    scene.events.first_offsets["cpu", 0] = 1
    scene.usage.hours["acme"].pop(0)
    await scene.bill_one()
    found = await scene.explain_one("MB-2026-000001/1")
    assert (found.outcome, found.now.quantity) == (Outcome.EQUAL, Decimal(5))


async def test_fees_in_advance_coupons_and_a_change_put_down_later(scene: ExplainedScene) -> None:
    base = {"id": "base", "model": "flat", "flat_amount": "31", "bill": "in_advance"}
    cpu = {"id": "cpu", "model": "per_unit", "meter": "cpu", "unit_amount": "0.05"}
    plan = plan_of(base, cpu)
    dear = replace(plan_of({**base, "flat_amount": "62"}, cpu), plan_id="dear")
    scene.subscribe(plan, dear)
    ten = Coupon("ten", "Ten off", at("2026-01-01"), percent_off=Decimal(10), duration=Duration.FOREVER)
    scene.redeem(ten, "2026-10-02")
    scene.event("cpu", 100)
    await scene.bill_one()
    found = await scene.explain("MB-2026-000001", whole=True)
    # October's and November's fee, and what was used: 31 + 31 + 5, ten percent off each.
    assert [str(one.line.amount) for one in found] == ["31.00", "5.00", "-3.10", "-0.50", "31.00", "-3.10"]
    assert [(one.line.kind, failed(one)) for one in found] == [(one.line.kind, []) for one in found]
    scene.switch(dear, "2026-10-21", put_down="2026-11-10")
    scene.clock.travel_to("2026-11-12")
    fee = await scene.explain_one("MB-2026-000001/1")
    assert (failed(fee), fee.owed) == (["nothing_since"], Decimal("-11.00"))  # 31 × 20/31 = 20
    assert "plan changed, effective 2026-10-21T00:00:00Z, put down 2026-11-10T00:00:00Z" in shown(fee)
    assert "11.00 USD less is owed" in shown(fee)


async def test_a_fixed_coupon_on_a_fee_in_advance_falls_on_what_was_billed_ahead(scene: ExplainedScene) -> None:
    base = {"id": "base", "model": "flat", "flat_amount": "31", "bill": "in_advance"}
    scene.subscribe(plan_of(base, {"id": "desk", "model": "flat", "flat_amount": "9"}))
    ten = Coupon("ten", "Ten off", at("2026-01-01"), amount_off=Decimal(10), currency="USD", duration=Duration.FOREVER)
    scene.redeem(ten, "2026-10-01")
    await scene.bill_one()
    found = await scene.explain("MB-2026-000001", whole=True)
    # 31 + 9 less 10 (7.75 and 2.25); November's 31 less 10, for its desk is not billed ahead.
    assert sorted(str(one.line.amount) for one in found if one.line.kind == "coupon") == ["-10.00", "-2.25", "-7.75"]
    assert [failed(one) for one in found] == [[]] * len(found)


async def test_a_line_from_before_lines_had_periods_is_explained(scene: ExplainedScene) -> None:
    scene.on("shared")
    scene.event("cpu", 10)
    invoice = await scene.bill_one()
    line = invoice.draft.lines[0]
    old = structs.replace(line, item_key=line.item_key.rpartition("|")[0], period=None, settles=None)
    scene.archive.tampered["MB-2026-000001", 1] = old
    assert (await scene.explain_one("MB-2026-000001/1")).outcome is Outcome.EQUAL
    (found,) = await scene.explain(old.item_key)
    assert (found.outcome, found.billed_in_all.amount) == (Outcome.EQUAL, Decimal("0.50"))


async def test_documents_and_overview_say_the_same(scene: ExplainedScene) -> None:
    scene.on("lite")
    scene.event("cpu", "100.5")
    await scene.bill_one()
    found = await scene.explain("MB-2026-000001", whole=True)
    document = explanation_document(found[1])
    assert (document["line"], document["outcome"], document["owed"]) == ("MB-2026-000001/2", "equal", "0.00")
    assert document["derived"]["as_known_then"]["steps"] == ["100.5 × 0.05 = 5.025"]
    json.dumps(document)
    written = io.StringIO()
    console = Console(file=written, width=220, color_system=None)
    print_overview(found, console)
    print_recipe(console)
    assert "104.03 USD in all" in written.getvalue()  # 99 + 5.03
    assert "RFC 8785" in written.getvalue()


@pytest.mark.parametrize(
    ("text", "whole"),
    [("", False), ("MB-2026-000001", False), ("MB-2026-000001/x", False), ("MB-2026-000001/1", True), ("a|b", True),
     ("x" * 2_000 + "|", False), ("MB-2026-000001/-1", False), ("'; DROP TABLE invoices/1", False)],
)  # fmt: skip
def test_a_reference_that_makes_no_sense_is_refused(text: str, whole: bool) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_reference(text, whole=whole)
    assert [fault.code for fault in refused.value.faults] == ["invalid_line"]


@pytest.mark.parametrize("line", ["MB-2026-000009/1", "MB-2026-000001/9", "sub|no|such|item"])
async def test_what_is_not_there_is_not_found(scene: ExplainedScene, line: str) -> None:
    scene.on("shared")
    scene.event("cpu", 10)
    await scene.bill_one()
    with pytest.raises(NotFoundError):
        await scene.explain(line)
