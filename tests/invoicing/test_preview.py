"""What is previewed is what is billed later, to the cent, whatever is changed and whenever."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from core.errors import InvalidInputError, NotFoundError
from invoicing.preview_invoice import Preview, Wish, preview_invoice
from invoicing.preview_text import preview_document, print_preview
from rating.domain.credit import CreditKind
from rating.domain.proration import Convention
from rating.domain.timeline import Change, ChangeKind
from tests.invoicing.scene import Scene, at
from tests.invoicing.story import COUPON, CPU, base, plan, requests, seats

SMALL = plan("small", base("29.99", bill="in_advance"), seats("7.77"), requests(100, "0.013"), CPU)
LARGE = plan("large", base("100"), seats("6.01", bill="in_advance"), {**CPU, "unit_amount": "0.031"})
YEARLY = plan("yearly", base("999.95", recurring={"interval": "year"}), seats("3.33"), requests(10, "0.02"))
PACK = plan("pack", base("5.55"))
PLANS = {"small": SMALL, "large": LARGE, "yearly": YEARLY}
_MINUTES = 75 * 24 * 60


def scene_of(plan_id: str = "small", **facts: Any) -> Scene:
    scene = Scene()
    first, *others = PLANS[plan_id], *(one for one in PLANS.values() if one.plan_id != plan_id), PACK
    scene.subscribe(first, *others, **{"started": "2026-10-01", "quantity": "3", **facts})
    return scene


async def preview_of(scene: Scene, when: datetime, *changes: Change, wish: Wish | None = None) -> Preview:
    return await preview_invoice("acme", when, books=scene.books, usage=scene.usage, changes=changes, wish=wish)


minutes = st.integers(0, _MINUTES).map(lambda count: at("2026-10-01") + timedelta(minutes=count))
changes = st.one_of(
    st.sampled_from(sorted(PLANS)).map(
        lambda name: (ChangeKind.PLAN_CHANGED, {"plan_id": name, "plan_version": 1, "overrides": {}})
    ),
    st.integers(0, 20).map(lambda seats: (ChangeKind.QUANTITY_CHANGED, {"quantity": str(seats)})),
    st.just((ChangeKind.PAUSED, {})),
    st.just((ChangeKind.CANCELED, {})),
    st.just((ChangeKind.ADD_ON_ADDED, {"plan_id": "pack", "plan_version": 1, "quantity": "3"})),
)


@given(
    started_with=st.sampled_from(sorted(PLANS)),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]),
    anchored=st.booleans(),
    convention=st.sampled_from(list(Convention)),
    first=st.tuples(minutes, changes),
    second=st.tuples(minutes, changes),
    used=st.lists(st.tuples(minutes, st.sampled_from(["api_requests", "cpu"]), st.integers(1, 400)), max_size=6),
    with_coupon=st.booleans(),
    credit=st.sampled_from(["0", "40.01", "500"]),
)
async def test_the_preview_is_the_later_invoice(
    started_with: str,
    zone: str,
    anchored: bool,
    convention: Convention,
    first: tuple[datetime, Any],
    second: tuple[datetime, Any],
    used: list[tuple[datetime, str, int]],
    with_coupon: bool,
    credit: str,
) -> None:
    scene = scene_of(started_with, zone=zone, anchored=anchored, convention=convention)
    for when, meter, quantity in used:
        scene.usage.add("acme", meter, quantity, when.replace(minute=0))
    if with_coupon:
        scene.redeem(COUPON, "2026-10-01")
    if Decimal(credit):
        await scene.grant(credit, "2026-10-01", kind=CreditKind.PROMOTIONAL)
    (earlier, (kind, payload)), (when, (wished, wanted)) = sorted([first, second], key=lambda one: one[0])
    cycle = scene.subscribed.start.cycle
    made = Change(1, kind, earlier, earlier, payload)
    wish = Change(2, wished, when, when, wanted)
    scene.books.state.subscribed["acme"][0] = scene.subscribed.__class__(
        scene.subscribed.start, (made,), (), scene.subscribed.documents, scene.subscribed.redemptions
    )
    # All periods before are billed as they end.
    period = cycle.period_at(when)
    for one in cycle.periods(cycle.period_at(at("2026-10-01T12:00")).__class__(at("2026-09-01"), period.start)):
        if one.end <= period.start:
            scene.clock.travel_to(one.end)
            await scene.bill(period=one.end.isoformat())
    if scene.parked is not None:
        return
    try:
        previewed = await preview_of(scene, when, wish)
    except InvalidInputError:
        return  # it contradicts the first change
    one = scene.subscribed
    scene.books.state.subscribed["acme"] = [one.__class__(one.start, (made, wish), (), one.documents, one.redemptions)]
    scene.clock.travel_to(period.end)
    invoices = await scene.bill(period=period.end.isoformat())
    assert scene.parked is None
    billed = [(line.item_key, line.amount) for invoice in invoices for line in invoice.draft.lines]
    assert sorted((line.item_key, line.amount) for line in previewed.lines) == sorted(billed)
    assert previewed.total == sum((invoice.total for invoice in invoices), Decimal(0))
    if previewed.total >= 0:
        assert previewed.amount_due == sum((invoice.amount_due for invoice in invoices), Decimal(0))
    assert await scene.bill(period=period.end.isoformat()) == []


async def test_a_preview_stores_nothing_and_shows_the_sum() -> None:
    scene = scene_of()
    scene.used("api_requests", 150, "2026-10-10T10:00")
    await scene.grant("10", "2026-10-01")
    shown = await preview_of(scene, at("2026-10-17"), wish=Wish(plan_id="large", quantity=Decimal(4)))
    assert (scene.books.state.invoices, scene.subscribed.changes) == ([], ())
    by_line = {line.description: str(line.amount) for line in shown.lines}
    assert by_line == {
        "Base — 16/31 of the period": "15.48",  # 29.99 × 16/31 = 15.478...
        "Seats — 16/31 of the period": "12.03",  # 3 × 7.77 × 16/31 = 12.030...
        "Requests — included, up to 100": "0.00",
        "Requests — beyond 100": "0.65",  # 50 × 0.013
        "Base — 15/31 of the period": "48.39",  # 100 × 15/31 = 48.387...
        "Seats — 15/31 of the period": "11.63",  # 4 × 6.01 × 15/31 = 11.632...
        "Seats": "24.04",  # November's in advance, 4 × 6.01
    }
    assert (shown.total, shown.credits_applied, shown.amount_due) == (
        Decimal("112.22"), Decimal("10.00"), Decimal("102.22"),
    )  # fmt: skip
    document = preview_document(shown)
    assert json.loads(json.dumps(document))["amount_due"] == "102.22"
    written = io.StringIO()
    print_preview(shown, Console(file=written, width=120, color_system=None))
    text = written.getvalue()
    for said in ("Next invoice of 2026-10", "Seats [2026-11-01/2026-12-01]", "112.22", "Credit applied", "102.22"):
        assert said in text


async def test_what_cannot_be_previewed_is_refused() -> None:
    scene = scene_of()
    when = datetime(2026, 10, 17, tzinfo=UTC)
    with pytest.raises(NotFoundError, match="no plan 'gold'"):
        await preview_of(scene, when, wish=Wish(plan_id="gold"))
    with pytest.raises(NotFoundError, match="nobody"):
        await preview_invoice("nobody", when, books=scene.books, usage=scene.usage)
    with pytest.raises(NotFoundError, match="sub_x"):
        await preview_invoice("acme", when, books=scene.books, usage=scene.usage, subscription_id="sub_x")
    scene.change(ChangeKind.CANCELED, "2026-10-10")
    with pytest.raises(InvalidInputError) as refused:
        await preview_of(scene, when, wish=Wish(quantity=Decimal(5)))
    assert [fault.code for fault in refused.value.faults] == ["after_end"]
