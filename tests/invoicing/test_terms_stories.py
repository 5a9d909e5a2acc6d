"""Billing stories over terms and prices: coupons, credits, contracts, one-time fees, prices of hours and events, each
with its sums, each ending with "run again: nothing new"."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from rating.domain.contract import Contract as ContractVersion
from rating.domain.credit import CreditKind
from rating.domain.price import UsageEntry
from rating.domain.timeline import ChangeKind
from tests.invoicing.scene import Scene, amounts, at, subscribed_to
from tests.invoicing.story import COUPON, CPU, base, plan, requests, settled, the_one


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.story
async def test_a_coupon_ends_after_two_months(scene: Scene) -> None:
    """20 % off for two months, then none, late usage as October's; owed 28.04, 24.00, 30.00, 0.80."""
    scene.subscribe(plan("p", base("30"), CPU), started="2026-10-01")
    scene.redeem(COUPON, "2026-10-01")
    scene.used("cpu", 101, "2026-10-10T10:00")
    october = await the_one(scene, "2026-11-02", "2026-10")
    # (30.00 + 5.05) × 20 % = 7.01, as 6.00 of the fee and 1.01 of usage
    assert amounts(october) == {
        "Base": "30.00",
        "Cpu": "5.05",
        "Welcome, 20 % off — Base": "-6.00",
        "Welcome, 20 % off — Cpu": "-1.01",
    }
    shown = october.snapshot["groups"][-1]
    assert (shown["name"], [(row["description"], row["amount"]) for row in shown["lines"]]) == (
        "Coupons", [("Welcome, 20 % off", "-7.01")],
    )  # fmt: skip
    assert (await the_one(scene, "2026-12-02", "2026-11")).total == Decimal("24.00")  # 30 - 6
    assert amounts(await the_one(scene, "2027-01-02", "2026-12")) == {"Base": "30.00"}
    await settled(scene, "2026-10", "2026-11", "2026-12")
    # Late usage of October is discounted as October was.
    scene.used("cpu", 20, "2026-10-31T10:00")
    late = await the_one(scene, "2027-01-03", "2026-10")
    assert amounts(late) == {"Cpu": "1.00", "Welcome, 20 % off — Cpu": "-0.20"}
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_a_credit_expires_between_two_invoices(scene: Scene) -> None:
    """50.00 of credit pay 30.00 and expire, 25.00 pay the next; owed 0.00, then 5.00."""
    scene.subscribe(plan("p", base("30")), started="2026-10-01")
    await scene.grant("50", "2026-10-01", expires="2026-11-20", kind=CreditKind.PROMOTIONAL)
    await scene.grant("25", "2026-10-01")
    october = await the_one(scene, "2026-11-02", "2026-10")
    assert (october.total, october.credits_applied, october.amount_due) == (Decimal(30), Decimal(30), Decimal(0))
    assert october.status == "paid"
    november = await the_one(scene, "2026-12-02", "2026-11")
    # 20.00 of the first credit were left and are gone; the second pays 25.00 of 30.00.
    assert (november.credits_applied, november.amount_due) == (Decimal(25), Decimal(5))
    assert (november.snapshot["credits_applied"], november.snapshot["amount_due"]) == ("25.00", "5.00")
    assert november.status == "finalized"
    balances = {credit.grant.grant_id: credit.balance for credit in await scene.books.state.ledger.credits("acme")}
    assert balances == {"cred_1": Decimal(20), "cred_2": Decimal(0)}
    await settled(scene, "2026-10", "2026-11")


def contract(version: int, since: str, until: str | None, minimum: str) -> ContractVersion:
    charges = [{"id": "minimum", "minimum_amount": minimum}]
    return ContractVersion(
        "deal",
        version,
        "acme",
        "enterprise",
        at(since),
        at(until) if until else None,
        {"charges": charges},
        net_days=30,
    )


@pytest.mark.story
async def test_a_contract_whose_minimum_changes_within_a_month(scene: Scene) -> None:
    """A minimum of 6,000 for half a month, 9,000 for the rest; owed 1,000 + 2,000 + 5,000 = 8,000.00."""
    enterprise = plan(
        "enterprise", CPU, {"id": "minimum", "name": "Minimum", "model": "minimum", "minimum_amount": "3000"}
    )
    deal = (contract(1, "2026-09-01", "2026-11-16", "6000"), contract(2, "2026-11-16", None, "9000"))
    scene.subscribe(enterprise, started="2026-11-01", contracts=deal)
    scene.used("cpu", 20_000, "2026-11-10T10:00")
    scene.used("cpu", 100_000, "2026-11-20T10:00")
    invoice = await the_one(scene, "2026-12-02", "2026-11")
    assert [(line.description, str(line.amount)) for line in invoice.draft.lines] == [
        ("Cpu", "1000.00"),
        ("Minimum — 1/2 of the period", "2000.00"),  # 6,000 × 15/30 - 1,000
        ("Cpu", "5000.00"),  # beyond 9,000 × 15/30
    ]
    assert invoice.draft.lines[1].evidence["held"][0]["contract"] == ["deal", 1]
    assert (invoice.due_at - invoice.issued_at).days == 30, "the contract's"
    await settled(scene, "2026-11")


@pytest.mark.story
async def test_one_time_fees_are_due_once_whatever_comes_after(scene: Scene) -> None:
    """A plan with a set-up fee is taken up twice; owed 30.00, 590.00, 30.00 and 90.00."""
    setup = {"id": "setup", "name": "Set-up", "model": "flat", "flat_amount": "500", "type": "one_time"}
    small, large = plan("small", base("30")), plan("large", base("90"), setup)
    scene.subscribe(small, large, started="2026-10-01")
    scene.switch(large, "2026-11-01T00:00")
    scene.switch(small, "2026-12-01T00:00")
    scene.switch(large, "2027-01-01T00:00")
    totals = []
    for now, month in (("2026-11-02", "2026-10"), ("2026-12-02", "2026-11"), ("2027-01-02", "2026-12"),
                       ("2027-02-02", "2027-01")):  # fmt: skip
        totals.append(str((await the_one(scene, now, month)).total))
    assert totals == ["30.00", "590.00", "30.00", "90.00"]
    await settled(scene, "2026-10", "2026-11", "2026-12", "2027-01")


@pytest.mark.story
async def test_two_subscriptions_have_invoices_of_their_own(scene: Scene) -> None:
    """Two plans side by side; owed 30.50 and 8.00."""
    scene.subscribe(plan("p", base("30"), CPU), started="2026-10-01")
    other = subscribed_to(plan("q", base("7"), requests(0, "0.10")), started="2026-10-01", tenant_id="acme")
    second = replace(other, start=replace(other.start, subscription_id="sub_second"))
    scene.books.state.subscribed["acme"].append(second)
    scene.used("cpu", 10, "2026-10-10T10:00")
    scene.used("api_requests", 10, "2026-10-10T10:00")
    first, second = await scene.bill_at("2026-11-02", "2026-10")
    assert (amounts(first), amounts(second)) == (
        {"Base": "30.00", "Cpu": "0.50"}, {"Base": "7.00", "Requests — beyond 0": "1.00"},
    )  # fmt: skip
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_prices_by_the_hour_and_by_the_event(scene: Scene) -> None:
    """Night and day rates, resold cost that is corrected; owed 2.00 + 3.00 + 2.10, then 1.14."""
    night = {
        "id": "cpu", "model": "scheduled", "meter": "cpu", "unit_amount": "0.30",
        "windows": [{"from": "22:00", "to": "06:00", "unit_amount": "0.10"}],
    }  # fmt: skip
    resold = {
        "id": "resold",
        "model": "dynamic",
        "meter": "api_requests",
        "amount_property": "cost",
        "multiplier": "1.2",
    }
    scene.subscribe(plan("p", night, resold), started="2026-10-01", zone="Europe/Berlin")
    scene.used("cpu", 10, "2026-10-05T19:00")  # 21:00 in Berlin
    scene.used("cpu", 10, "2026-10-05T20:00")  # 22:00
    scene.used("cpu", 10, "2026-10-31T22:45")  # 23:45 on the last day
    scene.used("cpu", 10, "2026-10-31T23:00")  # November in Berlin
    for hour, amount in ((8, "0.70"), (9, "1.05")):
        entry = UsageEntry(at(f"2026-10-06T{hour:02}:00"), Decimal(1), (), 1, Decimal(amount))
        scene.usage.events["acme"].append(("api_requests", entry))
    invoice = await the_one(scene, "2026-11-02", "2026-10")
    assert [(line.description.split(" — ")[0], str(line.amount)) for line in invoice.draft.lines] == [
        ("Cpu", "2.00"),  # 20 × 0.10
        ("Cpu", "3.00"),  # 10 × 0.30
        ("Resold", "2.10"),  # (0.70 + 1.05) × 1.2
    ]
    fine = {line.charge_id: line.evidence["fine"] for line in invoice.draft.lines}
    assert (fine["cpu"]["grain"], fine["cpu"]["entries"], fine["resold"]["amount_property"]) == ("slot", 3, "cost")
    await settled(scene, "2026-10")
    digest = invoice.draft.lines[0].evidence["usage_digest"]
    scene.usage.events["acme"][-1] = ("api_requests", UsageEntry(at("2026-10-06T09:00"), Decimal(1), (), 1, Decimal(2)))
    corrected = await the_one(scene, "2026-11-03", "2026-10")
    assert amounts(corrected) == {"Resold": "1.14"}, "(2.00 - 1.05) × 1.2"
    assert corrected.draft.lines[0].evidence["usage_digest"] != digest
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_reserved_capacity_is_paid_ahead_and_beyond_it_afterwards(scene: Scene) -> None:
    """A reservation ahead, usage beyond it after; owed 290.00, then 55.00."""
    reserved = {
        "id": "cpu", "model": "reserved", "meter": "cpu", "capacity": "100", "flat_amount": "40",
        "upfront_amount": "250", "unit_amount": "0.50", "bill": "in_advance",
    }  # fmt: skip
    scene.subscribe(plan("p", reserved), started="2026-10-15", anchored=True)
    scene.used("cpu", 130, "2026-11-10T10:00")
    ahead = await the_one(scene, "2026-11-01", "2026-10")
    assert sorted(str(line.amount) for line in ahead.draft.lines) == ["250.00", "40.00"]
    november = await the_one(scene, "2026-12-01", "2026-11")
    # The second month's reservation in advance, and 30 × 0.50 beyond the first one's.
    assert sorted(str(line.amount) for line in november.draft.lines if line.amount) == ["15.00", "40.00"]
    await settled(scene, "2026-10", "2026-11")


async def test_what_cannot_be_rated_parks_the_account(scene: Scene) -> None:
    scene.subscribe(plan("p", base("30")), started="2026-10-01")
    scene.change(ChangeKind.PLAN_CHANGED, "2026-10-10T00:00", plan_id="gone", plan_version=7, overrides={})
    assert await scene.bill_at("2026-11-02", "2026-10") == []
    assert scene.parked == "there is no plan gone v7"
