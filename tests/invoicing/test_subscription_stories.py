"""Billing stories over what a subscription goes through: each with its sums, each ending with "run again: nothing new".

Days are the tenant's; a month is billed on the second of the next one, if not said otherwise.
"""

from __future__ import annotations

from decimal import Decimal

import pytest

from rating.domain.cycle import Interval
from rating.domain.proration import Convention
from rating.domain.timeline import ChangeKind
from tests.invoicing.scene import Scene, amounts
from tests.invoicing.story import CPU, LARGE, SMALL, base, plan, requests, seats, settled, the_one
from tests.rating.plans import TIERS


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.story
async def test_upgrade_in_the_middle_of_a_month(scene: Scene) -> None:
    """Small until the 10th, Large from the 11th of 30 days; owed 10 + 5 + 60 + 10 = 85.00."""
    scene.subscribe(SMALL, LARGE, started="2026-11-01")
    scene.switch(LARGE, "2026-11-11T09:30")
    scene.used("api_requests", 150, "2026-11-11T08:00")
    scene.used("api_requests", 1_200, "2026-11-20T10:00")
    invoice = await the_one(scene, "2026-12-02", "2026-11")
    assert amounts(invoice) == {
        "Base — 1/3 of the period": "10.00",  # 30 × 10/30: the day of the change belongs to what comes after
        "Requests — included, up to 100": "0.00",
        "Requests — beyond 100": "5.00",  # 50 × 0.10
        "Base — 2/3 of the period": "60.00",  # 90 × 20/30
        "Requests — included, up to 1,000": "0.00",
        "Requests — beyond 1,000": "10.00",  # 200 × 0.05
    }
    assert invoice.total == Decimal("85.00")
    await settled(scene, "2026-11")


@pytest.mark.story
async def test_downgrade_at_the_end_of_the_period(scene: Scene) -> None:
    """Large until November's end, then Small; owed 90.00 and 30.00."""
    scene.subscribe(LARGE, SMALL, started="2026-11-01")
    scene.switch(SMALL, "2026-12-01T00:00", put_down="2026-11-15T10:00")
    assert amounts(await the_one(scene, "2026-12-02", "2026-11")) == {"Base": "90.00"}
    assert amounts(await the_one(scene, "2027-01-02", "2026-12")) == {"Base": "30.00"}
    await settled(scene, "2026-11", "2026-12")


@pytest.mark.story
async def test_there_and_back_again_buys_no_second_allowance(scene: Scene) -> None:
    """Small, Large and Small again within a month; owed 20 + 6 + 30 = 56.00, one allowance each."""
    scene.subscribe(SMALL, LARGE, started="2026-11-01")
    scene.switch(LARGE, "2026-11-11T00:00")
    scene.switch(SMALL, "2026-11-21T00:00")
    scene.used("api_requests", 80, "2026-11-05T10:00")
    scene.used("api_requests", 10, "2026-11-15T10:00")
    scene.used("api_requests", 80, "2026-11-25T10:00")
    invoice = await the_one(scene, "2026-12-02", "2026-11")
    assert amounts(invoice) == {
        "Base — 2/3 of the period": "20.00",  # 30 × (10 + 10)/30
        "Requests — included, up to 100": "0.00",
        "Requests — beyond 100": "6.00",  # 80 + 80 - 100 = 60, × 0.10
        "Base — 1/3 of the period": "30.00",  # 90 × 10/30
        "Requests — included, up to 1,000": "0.00",
    }
    line = invoice.draft.lines[1]
    assert line.evidence["windows"] == [
        "2026-11-01T00:00:00Z/2026-11-11T00:00:00Z", "2026-11-21T00:00:00Z/2026-12-01T00:00:00Z",
    ]  # fmt: skip
    await settled(scene, "2026-11")


@pytest.mark.story
async def test_seats_come_and_go(scene: Scene) -> None:
    """Five seats, eight for ten days; owed 163.33 + 130.67 = 294.00."""
    scene.subscribe(plan("team", seats("49")), started="2026-11-01", quantity="5")
    scene.change(ChangeKind.QUANTITY_CHANGED, "2026-11-11T12:00", quantity="8")
    scene.change(ChangeKind.QUANTITY_CHANGED, "2026-11-21T12:00", quantity="5")
    invoice = await the_one(scene, "2026-12-02", "2026-11")
    assert amounts(invoice) == {
        "Seats — 2/3 of the period": "163.33",  # 5 × 49 × 20/30 = 163.333...
        "Seats — 1/3 of the period": "130.67",  # 8 × 49 × 10/30 = 130.666...
    }
    assert [(line.kind, line.quantity) for line in invoice.draft.lines] == [("licensed", 5), ("licensed", 8)]
    await settled(scene, "2026-11")


@pytest.mark.story
async def test_a_trial_costs_nothing_and_then_it_is_paid(scene: Scene) -> None:
    """A trial until the 20th, then Small; owed 11.00 + 2.00 = 13.00."""
    scene.subscribe(SMALL, started="2026-11-06", trial_ends="2026-11-20")
    scene.used("api_requests", 500, "2026-11-10T10:00")
    scene.used("api_requests", 120, "2026-11-25T10:00")
    invoice = await the_one(scene, "2026-12-02", "2026-11")
    assert amounts(invoice) == {
        "Base — 11/30 of the period": "11.00",  # 30 × 11/30, from the 20th
        "Requests — included, up to 100": "0.00",
        "Requests — beyond 100": "2.00",  # 20 × 0.10; the trial's 500 cost nothing
    }
    await settled(scene, "2026-11")


@pytest.mark.story
async def test_a_trial_that_covers_only_fees(scene: Scene) -> None:
    """A month of trial in which usage is paid; owed 0.50."""
    scene.subscribe(plan("tried", base("30"), CPU, trial_covers="fees"), started="2026-11-01", trial_ends="2026-12-01")
    scene.used("cpu", 10, "2026-11-10T10:00")
    assert amounts(await the_one(scene, "2026-12-02", "2026-11")) == {"Cpu": "0.50"}  # 10 × 0.05
    await settled(scene, "2026-11")


@pytest.mark.story
async def test_a_pause_over_new_year(scene: Scene) -> None:
    """Paused from 21 December to 11 January, usage goes on; owed 19.85 and 20.32."""
    scene.subscribe(SMALL, started="2026-12-01")
    scene.change(ChangeKind.PAUSED, "2026-12-21T10:00")
    scene.change(ChangeKind.RESUMED, "2027-01-11T10:00")
    scene.used("api_requests", 105, "2026-12-28T10:00")
    december = await the_one(scene, "2027-01-12", "2026-12")
    assert amounts(december) == {
        "Base — 20/31 of the period": "19.35",  # 30 × 20/31 = 19.354...
        "Requests — included, up to 100": "0.00",
        "Requests — beyond 100": "0.50",  # usage that still comes is rated: 5 × 0.10
    }
    january = await the_one(scene, "2027-02-02", "2027-01")
    assert amounts(january) == {"Base — 21/31 of the period": "20.32"}  # 30 × 21/31 = 20.322...
    assert [december.number, january.number] == ["MB-2027-000001", "MB-2027-000002"]
    await settled(scene, "2026-12", "2027-01")


@pytest.mark.story
async def test_the_anchor_on_the_31st_and_a_leap_day(scene: Scene) -> None:
    """Periods from the 31st over 29 February, cancelled in May; owed three times 30.00, then 14.52."""
    scene.subscribe(SMALL, started="2028-01-31", anchored=True)
    periods = []
    for now, month in (("2028-03-02", "2028-02"), ("2028-04-02", "2028-03"), ("2028-05-02", "2028-04")):
        invoice = await the_one(scene, now, month)
        assert amounts(invoice) == {"Base": "30.00"}, "a period is a period, however long"
        periods.append(str(invoice.draft.period))
    assert periods == [
        "2028-01-31T00:00:00Z/2028-02-29T00:00:00Z",
        "2028-02-29T00:00:00Z/2028-03-31T00:00:00Z",
        "2028-03-31T00:00:00Z/2028-04-30T00:00:00Z",
    ]
    scene.change(ChangeKind.CANCELED, "2028-05-15T10:00")
    last = await the_one(scene, "2028-06-02", "2028-05")
    assert amounts(last) == {"Base — 15/31 of the period": "14.52"}  # 30 × 15/31 = 14.516...: from 30 April to 31 May
    await settled(scene, "2028-02", "2028-03", "2028-04", "2028-05")


@pytest.mark.story
async def test_the_day_the_clocks_go_back(scene: Scene) -> None:
    """An upgrade on the day after it, measured in seconds; owed 24.20 + 0.50 + 17.40 + 3.00 = 45.10."""
    scene.subscribe(
        plan("small", base("30"), CPU), plan("large", base("90"), CPU),
        started="2026-10-01", zone="Europe/Berlin", convention=Convention.SECONDS,
    )  # fmt: skip
    scene.switch(plan("large", base("90"), CPU), "2026-10-26T00:00")
    scene.used("cpu", 10, "2026-10-25T22:59")  # 23:59 in Berlin, before the change
    scene.used("cpu", 20, "2026-10-25T23:00")  # midnight
    scene.used("cpu", 40, "2026-10-31T22:59")
    scene.used("cpu", 80, "2026-10-31T23:00")  # November in Berlin
    invoice = await the_one(scene, "2026-11-01T00:00", "2026-10")
    # October has 31 × 24 + 1 = 745 hours there; up to the change 25 × 24 + 1 = 601.
    assert amounts(invoice) == {
        "Base — 601/745 of the period": "24.20",  # 30 × 601/745 = 24.201...
        "Cpu": "3.00",  # the large plan's: (20 + 40) × 0.05; the small plan's is the line before
        "Base — 144/745 of the period": "17.40",  # 90 × 144/745 = 17.395...
    }
    assert [str(line.amount) for line in invoice.draft.lines if line.meter_id] == ["0.50", "3.00"]
    assert invoice.snapshot["annex"]["tables"][0]["days"] == [["2026-10-25", "10"]]
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_a_quarter_of_months(scene: Scene) -> None:
    """A quarter's fee ahead, seats by the month, a seat more in it; owed 300.00, then 408.00."""
    quarterly = plan("quarterly", base("300", recurring={"interval": "quarter"}), seats("10"), requests(100, "0.10"))
    scene.subscribe(quarterly, started="2026-10-15", interval=Interval.QUARTER, anchored=True, quantity="3")
    scene.change(ChangeKind.QUANTITY_CHANGED, "2026-11-30T00:00", quantity="4")
    scene.used("api_requests", 130, "2027-01-14T23:00")
    ahead = await the_one(scene, "2026-11-02", "2026-10")
    assert amounts(ahead) == {"Base": "300.00"}, "a quarter's fee is due when it begins"
    assert str(ahead.draft.period) == "2026-10-15T00:00:00Z/2027-01-15T00:00:00Z"
    invoice = await the_one(scene, "2027-02-02", "2027-01")
    assert (invoice.draft.period, invoice.draft.sequence) == (ahead.draft.period, 2)
    by_month = [(line.description, str(line.amount), str(line.period.start)[:10]) for line in invoice.draft.lines]
    assert by_month == [
        ("Seats", "30.00", "2026-10-15"),  # 3 × 10 for the month from 15 October
        ("Seats — 1/2 of the period", "15.00", "2026-11-15"),  # 3 × 10 × 15/30
        ("Seats — 1/2 of the period", "20.00", "2026-11-15"),  # 4 × 10 × 15/30
        ("Seats", "40.00", "2026-12-15"),
        ("Requests — included, up to 100", "0.00", "2026-10-15"),
        ("Requests — beyond 100", "3.00", "2026-10-15"),  # 30 × 0.10, of the quarter
        ("Base", "300.00", "2027-01-15"),
    ]
    await settled(scene, "2026-10", "2027-01")


@pytest.mark.story
async def test_a_year_in_advance_cancelled_in_the_fifth_month(scene: Scene) -> None:
    """A year is paid ahead and cancelled after 130 days; owed 365.00, 235.00 come back, 50.00 usage."""
    yearly = plan("yearly", base("365", recurring={"interval": "year"}), CPU)
    scene.subscribe(yearly, started="2026-10-05")
    scene.used("cpu", 1_000, "2027-02-10T10:00")
    assert amounts(await the_one(scene, "2026-11-02", "2026-10")) == {"Base": "365.00"}
    assert await scene.bill_at("2026-12-02", "2026-11") == []
    scene.change(ChangeKind.CANCELED, "2027-02-12T00:00")
    # 130 days were held, 235 come back: 365 × 130/365 - 365. Usage of 1,000 × 0.05 is a supply of its own.
    note, usage = await scene.bill_at("2027-03-02", "2027-02")
    assert (note.number, amounts(note)) == ("MB-CN-2027-000001", {"Base — 26/73 of the period": "-235.00"})
    assert (usage.number, amounts(usage)) == ("MB-2027-000001", {"Cpu": "50.00"})
    await settled(scene, "2026-10", "2026-11", "2027-02")


@pytest.mark.story
async def test_a_year_of_support_is_bought_whole(scene: Scene) -> None:
    """A licence with support is cancelled in its year; owed 60,000.00, and nothing comes back."""
    scene.subscribe(TIERS["airgapped"], started="2026-10-05")
    assert (await the_one(scene, "2026-11-02", "2026-10")).total == Decimal("60000.00")  # 50,000 + 10,000
    scene.change(ChangeKind.CANCELED, "2027-02-12T00:00")
    assert await scene.bill_at("2027-03-02", "2027-02") == []
    assert scene.parked is None
    await settled(scene, "2026-10", "2027-02")


@pytest.mark.story
async def test_a_year_in_advance_and_what_is_used_by_month(scene: Scene) -> None:
    """A yearly fee ahead, usage by the month; owed 1,200.00, 5.00, and 1,200.00 a year later."""
    yearly = plan("yearly", base("1200", recurring={"interval": "year"}), CPU)
    scene.subscribe(yearly, started="2026-10-05")
    scene.used("cpu", 100, "2026-11-10T10:00")
    assert amounts(await the_one(scene, "2026-11-02", "2026-10")) == {"Base": "1200.00"}
    assert amounts(await the_one(scene, "2026-12-02", "2026-11")) == {"Cpu": "5.00"}
    assert amounts(await the_one(scene, "2027-11-02", "2027-10")) == {"Base": "1200.00"}
    await settled(scene, "2026-10", "2026-11", "2027-10")


@pytest.mark.story
async def test_in_advance_with_an_upgrade_in_between(scene: Scene) -> None:
    """Fees ahead, and an upgrade in mid-month; owed 60.00, then 45 - 15 + 90 = 120.00, then 90.00."""
    small, large = plan("small", base("30", bill="in_advance")), plan("large", base("90", bill="in_advance"))
    scene.subscribe(small, large, started="2026-10-01")
    october = await the_one(scene, "2026-11-02", "2026-10")
    assert [(line.description, str(line.amount), str(line.period)[:10]) for line in october.draft.lines] == [
        ("Base", "30.00", "2026-10-01"),  # the first month, because nothing was there to bill it before
        ("Base", "30.00", "2026-11-01"),
    ]
    scene.switch(large, "2026-11-16T08:00")
    november = await the_one(scene, "2026-12-02", "2026-11")
    assert [(line.description, str(line.amount), line.corrects_invoice) for line in november.draft.lines] == [
        ("Base — 1/2 of the period", "-15.00", october.draft.invoice_id),  # 30 × 15/30 - 30
        ("Base — 1/2 of the period", "45.00", None),  # 90 × 15/30
        ("Base", "90.00", None),  # December
    ]
    assert november.total == Decimal("120.00")
    assert november.snapshot["invoice"]["corrects"] == [october.number]
    assert amounts(await the_one(scene, "2027-01-02", "2026-12")) == {"Base": "90.00"}
    await settled(scene, "2026-10", "2026-11", "2026-12")


@pytest.mark.story
async def test_in_advance_and_cancelled_at_the_end(scene: Scene) -> None:
    """Fees ahead, an end put down late, late usage; owed 5.00 in the end: 35.00 less the fee of 30.00."""
    scene.subscribe(plan("ahead", base("30", bill="in_advance"), CPU), started="2026-10-01")
    scene.used("cpu", 800, "2026-11-20T10:00")
    await the_one(scene, "2026-11-02", "2026-10")
    await the_one(scene, "2026-12-02", "2026-11")  # December in advance, 30.00, and 40.00 of usage
    # Put down late: the subscription had ended with November, so December's fee goes back.
    scene.change(ChangeKind.CANCELED, "2026-12-01T00:00", put_down="2026-12-05T10:00")
    scene.used("cpu", 700, "2026-11-21T10:00")
    back = await the_one(scene, "2026-12-06", "2026-11")
    assert amounts(back) == {"Cpu": "35.00", "Base": "-30.00"}
    assert back.total == Decimal("5.00")
    await settled(scene, "2026-11", "2026-10")


@pytest.mark.story
async def test_late_usage_after_the_invoice(scene: Scene) -> None:
    """Late usage of the plan before the upgrade; owed 70.00, then 2.00."""
    scene.subscribe(SMALL, LARGE, started="2026-11-01")
    scene.switch(LARGE, "2026-11-11T00:00")
    scene.used("api_requests", 90, "2026-11-05T10:00")
    first = await the_one(scene, "2026-12-02", "2026-11")
    assert first.total == Decimal("70.00")  # 30 × 10/30 + 90 × 20/30
    scene.used("api_requests", 30, "2026-11-06T10:00")
    late = await the_one(scene, "2026-12-05", "2026-11")
    # 120 of the small plan's 100: 20 × 0.10; 10 more are within what is included.
    assert amounts(late) == {"Requests — included, up to 100": "0.00", "Requests — beyond 100": "2.00"}
    assert late.draft.sequence == 2
    await settled(scene, "2026-11")


@pytest.mark.story
async def test_an_add_on_taken_in_the_middle_and_doubled(scene: Scene) -> None:
    """An add-on twice from the 11th and four times from the 21st; owed 30 + 6.67 + 13.33 + 1 = 51.00."""
    pack = plan("pack", base("10", name="Storage pack"), {**CPU, "name": "Pack CPU"})
    scene.subscribe(plan("p", base("30")), pack, started="2026-11-01")
    scene.change(ChangeKind.ADD_ON_ADDED, "2026-11-11T00:00", plan_id="pack", plan_version=1, quantity="2")
    scene.change(ChangeKind.QUANTITY_CHANGED, "2026-11-21T00:00", add_on="pack", quantity="4")
    scene.used("cpu", 100, "2026-11-10T10:00")  # before there was a price for it
    scene.used("cpu", 20, "2026-11-12T10:00")
    invoice = await the_one(scene, "2026-12-02", "2026-11")
    assert amounts(invoice) == {
        "Base": "30.00",
        "Storage pack — 1/3 of the period × 2": "6.67",  # 10 × 10/30 × 2 = 6.666...
        "Storage pack — 1/3 of the period × 4": "13.33",  # 10 × 10/30 × 4 = 13.333...
        "Pack CPU": "1.00",  # 20 × 0.05
    }
    scene.change(ChangeKind.ADD_ON_REMOVED, "2026-12-01T00:00", plan_id="pack")
    assert amounts(await the_one(scene, "2027-01-02", "2026-12")) == {"Base": "30.00"}
    await settled(scene, "2026-11", "2026-12")


@pytest.mark.story
async def test_an_upgrade_put_down_after_the_invoice(scene: Scene) -> None:
    """October's upgrade is put down in November; owed 30.00, then 43.55 - 14.52 + 90.00 = 119.03."""
    scene.subscribe(plan("small", base("30")), plan("large", base("90")), started="2026-10-01")
    october = await the_one(scene, "2026-11-02", "2026-10")
    # Agreed on the phone in October, put down on 10 November: the next run finds it by itself.
    scene.switch(plan("large", base("90")), "2026-10-17T00:00", put_down="2026-11-10T09:00")
    november = await the_one(scene, "2026-12-02", "2026-11")
    assert [(line.description, str(line.amount), line.corrects_invoice) for line in november.draft.lines] == [
        ("Base — 16/31 of the period", "-14.52", october.draft.invoice_id),  # 30 × 16/31 = 15.483... - 30.00
        ("Base — 15/31 of the period", "43.55", None),  # 90 × 15/31 = 43.548...
        ("Base", "90.00", None),
    ]
    assert [str(line.period)[:7] for line in november.draft.lines] == ["2026-10", "2026-10", "2026-11"]
    await settled(scene, "2026-10", "2026-11")


@pytest.mark.story
async def test_a_change_that_is_taken_back(scene: Scene) -> None:
    """A cancellation is withdrawn before it counts; owed 30.00 for each month."""
    scene.subscribe(plan("small", base("30")), plan("large", base("90")), started="2026-10-01")
    scene.change(ChangeKind.CANCELED, "2026-11-01T00:00", put_down="2026-10-10T00:00")
    scene.change(ChangeKind.WITHDRAWN, "2026-10-20T00:00", sequence=1)
    assert amounts(await the_one(scene, "2026-11-02", "2026-10")) == {"Base": "30.00"}
    assert amounts(await the_one(scene, "2026-12-02", "2026-11")) == {"Base": "30.00"}
    await settled(scene, "2026-10", "2026-11")


@pytest.mark.story
async def test_an_anchored_period_may_be_billed_before_its_month_is_over(scene: Scene) -> None:
    """Periods from the 15th, billed on the 20th; owed 30.00 each."""
    scene.subscribe(SMALL, started="2026-09-15", anchored=True)
    assert amounts(await the_one(scene, "2026-10-20", "2026-10")) == {"Base": "30.00"}
    assert await scene.bill(period="2026-10-16T00:00:00Z") == [], "the same period, asked for by an instant"
    assert amounts((await scene.bill_at("2026-11-20", "2026-11-20T00:00:00Z"))[0]) == {"Base": "30.00"}
    await settled(scene, "2026-10", "2026-11")


@pytest.mark.story
async def test_taken_back_to_its_very_start(scene: Scene) -> None:
    """Cancelled as of its first day, after the invoice; owed 30.00 - 30.00, nothing."""
    scene.subscribe(plan("p", base("30")), started="2026-10-01")
    assert (await the_one(scene, "2026-11-02", "2026-10")).total == Decimal("30.00")
    scene.change(ChangeKind.CANCELED, "2026-10-01T00:00", put_down="2026-11-05T10:00")
    note = await the_one(scene, "2026-12-02", "2026-11")
    assert (note.number, amounts(note)) == ("MB-CN-2026-000001", {"Base": "-30.00"}), "nothing was ever held"
    await settled(scene, "2026-10", "2026-11")
