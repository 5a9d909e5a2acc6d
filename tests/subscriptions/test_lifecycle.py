"""Every verb of a subscription's life, its refusals and repetitions; in memory and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.errors import NotFoundError
from rating.domain.cycle import Interval
from rating.domain.proration import Convention
from rating.domain.timeline import AddOn, ChangeKind, Timeline
from runtime.settings import Settings
from subscriptions.cancel_subscription import cancel_subscription
from subscriptions.change_add_ons import add_add_on, remove_add_on
from subscriptions.change_plan import change_plan
from subscriptions.change_quantity import change_quantity
from subscriptions.create_subscription import ANCHOR_AT_START, NewSubscription, create_subscription
from subscriptions.domain.proposals import Moment
from subscriptions.end_trial import end_trial
from subscriptions.migrate_subscribers import Migration, migrate_subscribers
from subscriptions.pause_subscription import pause_subscription
from subscriptions.reactivate_subscription import reactivate_subscription
from subscriptions.record_changes import Asked, KeyReusedError
from subscriptions.renew_subscription import renew_subscription
from subscriptions.resume_subscription import resume_subscription
from subscriptions.subscription_document import as_document, show_lines
from subscriptions.withdraw_change import withdraw_change
from tests.subscriptions.lifecycle import ACME, BY, Desk, contract, flat, memory_desk, metered, plan, real_desk
from tests.subscriptions.memory import MemoryStore

END = Moment.PERIOD_END


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
async def memory() -> Desk:
    return await memory_desk(ACME)


@pytest.fixture
async def real(settings: Settings) -> AsyncIterator[Desk]:
    async with real_desk(settings, ACME) as desk:
        yield desk


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.integration)])
def desk(request: pytest.FixtureRequest) -> Desk:
    found: Desk = request.getfixturevalue(request.param)
    return found


def story(timeline: Timeline) -> list[str]:
    return [
        f"{phase.start:%m-%dT%H:%M}..{f'{phase.end:%m-%dT%H:%M}' if phase.end else ''} {phase.held.state.value}"
        f" {phase.held.plan_id} v{phase.held.plan_version} x{phase.held.quantity:f}"
        + "".join(f" +{one.plan_id} x{one.quantity:f}" for one in phase.held.add_ons)
        for phase in timeline.phases
    ]


async def test_an_upgrade_counts_at_once_and_a_downgrade_with_the_periods_end(desk: Desk) -> None:
    subscription = await desk.subscribe("small")
    desk.clock.travel_to("2026-10-11T09:15:42")
    upgraded = await desk.do(change_plan, subscription, "large")
    assert upgraded.is_new
    await desk.do(change_plan, subscription, "small", when=END)
    assert story(await desk.timeline(subscription)) == [
        "10-05T10:30..10-11T09:15 active small v1 x1",
        "10-11T09:15..11-01T00:00 active large v1 x1",
        "11-01T00:00.. active small v1 x1",
    ]


async def test_all_of_a_life_is_stored_as_it_was_put_down(desk: Desk) -> None:
    subscription = await desk.subscribe(
        "team", trial_days=10, quantity=Decimal("2.5"), add_ons=[("support", Decimal(1))], interval=Interval.QUARTER,
        anchor=date(2026, 8, 31), convention=Convention.SECONDS, overrides={"name": "Team of Acme"},
    )  # fmt: skip
    desk.clock.travel_to("2026-10-20")
    await desk.do(change_quantity, subscription, Decimal(7))
    await desk.do(change_quantity, subscription, Decimal(3), add_on="support")
    await desk.do(add_add_on, subscription, "compute", when=at("2026-10-21"))
    desk.clock.travel_to("2026-10-22")
    await desk.do(remove_add_on, subscription, "support")
    await desk.do(pause_subscription, subscription, until=at("2026-10-25"))
    desk.clock.travel_to("2026-10-26")
    await desk.do(cancel_subscription, subscription, when=END)
    timeline = await desk.timeline(subscription)
    assert story(timeline) == [
        "10-05T10:30..10-15T00:00 trial team v1 x2.5 +support x1",
        "10-15T00:00..10-20T00:00 active team v1 x2.5 +support x1",
        "10-20T00:00..10-21T00:00 active team v1 x7 +support x3",
        "10-21T00:00..10-22T00:00 active team v1 x7 +support x3 +compute x1",
        "10-22T00:00..10-25T00:00 paused team v1 x7 +compute x1",
        "10-25T00:00..11-30T00:00 active team v1 x7 +compute x1",
    ]
    assert (timeline.cycle.interval, timeline.cycle.anchor) == (Interval.QUARTER, date(2026, 8, 31))
    assert timeline.convention is Convention.SECONDS
    assert timeline.phases[0].held.overrides == {"name": "Team of Acme"}
    [stored] = await desk.everything()
    assert [(request.recorded_by, request.reason) for _, request in stored.entries] == [("ann", "because")] * 7
    assert stored.ended_at == at("2026-11-30")
    then = await desk.timeline(subscription, known_at=at("2026-10-23"))
    assert story(then)[-1] == "10-25T00:00.. active team v1 x7 +compute x1"
    assert (await desk.timeline(subscription, known_at=at("2026-10-01"))).phases == ()


async def test_the_same_key_is_the_same_request_and_nothing_else(desk: Desk) -> None:
    subscription = await desk.subscribe("team")
    keyed = Asked("ann", key="order-1")
    first = await desk.do(change_quantity, subscription, Decimal(5), asked=keyed)
    desk.clock.advance(timedelta(days=2))
    again = await desk.do(change_quantity, subscription, Decimal("5.0"), asked=keyed)
    assert (first.is_new, again.is_new) == (True, False)
    assert again.changes == first.changes
    assert [one.kind for one in again.subscription.changes] == [ChangeKind.QUANTITY_CHANGED]
    with pytest.raises(KeyReusedError):
        await desk.do(change_quantity, subscription, Decimal(6), asked=keyed)
    with pytest.raises(KeyReusedError):
        await desk.do(pause_subscription, subscription, asked=keyed)


async def test_creating_twice_by_the_same_key_is_creating_once(desk: Desk) -> None:
    keyed = Asked("ann", key="signup")
    started_at = desk.clock.now()
    first = await desk.subscribe("small", asked=keyed, started_at=started_at)
    desk.clock.advance(timedelta(hours=1))
    assert await desk.subscribe("small", asked=keyed, started_at=started_at) == first
    assert len(await desk.everything()) == 1
    with pytest.raises(KeyReusedError):
        await desk.subscribe("large", asked=keyed, started_at=started_at)
    assert await desk.refusal(
        create_subscription, NewSubscription(desk.tenant.tenant_id, "team", started_at, add_ons=[("team", Decimal(1))])
    ) == ["add_on_exists"]


async def test_asking_for_what_is_so_already_changes_nothing(desk: Desk) -> None:
    subscription = await desk.subscribe("team", quantity=Decimal(3))
    desk.clock.advance(timedelta(days=1))
    for verb, wanted in ((change_quantity, Decimal("3.00")), (change_plan, "team")):
        outcome = await desk.do(verb, subscription, wanted)
        assert (outcome.changes, outcome.is_new) == ((), False)
    await desk.do(cancel_subscription, subscription, when=END)
    assert not (await desk.do(cancel_subscription, subscription, when=END)).is_new
    assert len((await desk.everything())[0].changes) == 1


async def test_a_meter_has_one_price_at_a_time_across_subscriptions(desk: Desk) -> None:
    first = await desk.subscribe("calls")
    assert await desk.refusal(
        create_subscription, NewSubscription(desk.tenant.tenant_id, "more-calls", desk.clock.now())
    ) == ["meter_priced_twice"]
    second = await desk.subscribe("compute")
    assert await desk.refusal(change_plan, second, "more-calls") == ["meter_priced_twice"]
    assert await desk.refusal(add_add_on, second, "more-calls") == ["meter_priced_twice"]
    assert await desk.refusal(add_add_on, first, "more-calls") == ["meter_priced_twice"]
    # Once the first has ended, its meter is free, and then it cannot come back.
    await desk.do(cancel_subscription, first, when=END)
    await desk.do(change_plan, second, "more-calls", when=END)
    assert await desk.refusal(reactivate_subscription, first) == ["meter_priced_twice"]
    desk.clock.travel_to("2026-11-05")
    assert await desk.refusal(reactivate_subscription, first) == ["meter_priced_twice"]
    assert len(await desk.everything()) == 2


async def test_currencies_do_not_mix(desk: Desk) -> None:
    subscription = await desk.subscribe("small")
    assert await desk.refusal(change_plan, subscription, "euros") == ["currency_mismatch"]
    assert await desk.refusal(
        create_subscription, NewSubscription(desk.tenant.tenant_id, "euros", desk.clock.now())
    ) == ["currency_mismatch"]


async def test_a_scheduled_downgrade_is_withdrawn_and_stays_known_as_it_was_then(desk: Desk) -> None:
    subscription = await desk.subscribe("large")
    [downgrade] = (await desk.do(change_plan, subscription, "small", when=END)).changes
    desk.clock.travel_to("2026-10-20")
    await desk.do(withdraw_change, subscription, downgrade.sequence)
    assert story(await desk.timeline(subscription)) == ["10-05T10:30.. active large v1 x1"]
    then = story(await desk.timeline(subscription, known_at=at("2026-10-19")))
    assert then == ["10-05T10:30..11-01T00:00 active large v1 x1", "11-01T00:00.. active small v1 x1"]
    assert await desk.refusal(withdraw_change, subscription, downgrade.sequence) == ["unknown_change"]


async def test_migrating_moves_everyone_who_can_be_moved_and_says_who_cannot(desk: Desk) -> None:
    name = f"old-{desk.tenant.tenant_id}"
    await desk.sell(plan(name, flat("30")))
    # The same tenant holds it three times: with overrides that the new version has no charge for, and moved already.
    overrides = {"charges": [{"id": "base", "flat_amount": "25"}]}
    easy = await desk.subscribe(name, asked=Asked("ann", key="easy"))
    odd = await desk.subscribe(name, asked=Asked("ann", key="odd"), overrides=overrides)
    busy = await desk.subscribe(name, asked=Asked("ann", key="busy"))
    await desk.do(change_plan, busy, "small", when=at("2026-12-15"))
    await desk.sell(plan(name, {**flat("35"), "id": "fee"}))

    async def moved(**more: Any) -> list[Migration]:
        found = migrate_subscribers(name, asked=BY, open_store=desk.store, clock=desk.clock, **more)
        return sorted([one async for one in found], key=lambda one: [easy, odd, busy].index(one.subscription_id))

    before = await desk.everything()
    tried = await moved(dry_run=True)
    assert await desk.everything() == before
    done = await moved()
    assert done == tried
    assert [(one.from_version, one.to_version, one.effective_at) for one in done] == [(1, 2, at("2026-11-01"))] * 3
    assert done[0].refusal is None
    # Overriding a charge that is not there would be a new charge without a model.
    assert "unknown_price_model" in (done[1].refusal or "")
    assert "change_scheduled" in (done[2].refusal or "")
    assert story(await desk.timeline(easy))[-1] == f"11-01T00:00.. active {name} v2 x1"
    assert [one.subscription_id for one in await moved()] == [odd, busy], "who was moved is not moved again"
    assert await moved(tenants=["somebody else"]) == []
    with pytest.raises(NotFoundError):
        await moved(version=9)


async def test_the_plans_versions_are_kept_until_moved(desk: Desk) -> None:
    name = f"kept-{desk.tenant.tenant_id}"
    await desk.sell(plan(name, flat("30")))
    subscription = await desk.subscribe(name)
    await desk.sell(plan(name, flat("40")))
    assert story(await desk.timeline(subscription)) == [f"10-05T10:30.. active {name} v1 x1"]
    assert [phase.held.plan_version for phase in (await desk.timeline(await desk.subscribe(name, quantity=Decimal(2),
            asked=Asked("ann", key="second")))).phases] == [2]  # fmt: skip
    with pytest.raises(NotFoundError):
        await desk.subscribe(name, version=3, asked=Asked("ann", key="third"))


async def test_unknown_subscriptions_tenants_and_plans_are_not_found(desk: Desk) -> None:
    subscription = await desk.subscribe()
    with pytest.raises(NotFoundError):
        await desk.do(pause_subscription, "sub_nobody")
    with pytest.raises(NotFoundError):
        await desk.do(change_plan, subscription, "platinum")
    with pytest.raises(NotFoundError):
        await desk.do(create_subscription, NewSubscription("nobody", "small", desk.clock.now()))


# What follows is arithmetic of the domain: in memory.


async def test_a_trial_ends_by_itself_or_earlier(memory: Desk) -> None:
    subscription = await memory.subscribe("small", trial_days=14)
    # The 5th is the first day, the 18th the fourteenth.
    assert story(await memory.timeline(subscription))[0] == "10-05T10:30..10-19T00:00 trial small v1 x1"
    assert await memory.refusal(pause_subscription, subscription) == ["in_trial"]
    memory.clock.travel_to("2026-10-08T12:00")
    await memory.do(end_trial, subscription)
    assert story(await memory.timeline(subscription)) == [
        "10-05T10:30..10-08T12:00 trial small v1 x1",
        "10-08T12:00.. active small v1 x1",
    ]
    assert await memory.refusal(end_trial, subscription, when=at("2026-10-09")) == ["not_in_trial"]


async def test_the_end_of_a_period_is_the_trials_end_while_there_is_one(memory: Desk) -> None:
    subscription = await memory.subscribe("small", trial_days=14)
    await memory.do(cancel_subscription, subscription, when=END)
    assert story(await memory.timeline(subscription)) == ["10-05T10:30..10-19T00:00 trial small v1 x1"]


async def test_pausing_and_resuming(memory: Desk) -> None:
    subscription = await memory.subscribe()
    assert await memory.refusal(resume_subscription, subscription) == ["not_paused"]
    await memory.do(pause_subscription, subscription, until=at("2026-12-01"))
    memory.clock.travel_to("2026-10-10")
    assert await memory.refusal(pause_subscription, subscription) == ["change_scheduled"]
    # Resumed earlier than was planned: the planned resumption is withdrawn with it.
    outcome = await memory.do(resume_subscription, subscription)
    assert [one.kind for one in outcome.changes] == [ChangeKind.WITHDRAWN, ChangeKind.RESUMED]
    await memory.do(pause_subscription, subscription, when=at("2026-10-12"))
    assert await memory.refusal(pause_subscription, subscription, when=at("2026-10-13")) == ["already_paused"]
    assert await memory.refusal(pause_subscription, subscription, until=at("2026-10-01")) == ["invalid_time"]
    assert story(await memory.timeline(subscription)) == [
        "10-05T10:30..10-10T00:00 paused small v1 x1",
        "10-10T00:00..10-12T00:00 active small v1 x1",
        "10-12T00:00.. paused small v1 x1",
    ]


async def test_nothing_counts_before_the_start_or_after_the_end(memory: Desk) -> None:
    subscription = await memory.subscribe()
    assert await memory.refusal(change_plan, subscription, "large", when=at("2026-10-04")) == ["before_start"]
    await memory.do(cancel_subscription, subscription)
    memory.clock.advance(timedelta(days=1))
    for verb, *wanted in ((change_plan, "large"), (change_quantity, Decimal(2)), (pause_subscription,)):
        assert await memory.refusal(verb, subscription, *wanted) == ["after_end"]
    assert await memory.refusal(cancel_subscription, subscription) == ["after_end"]
    assert await memory.refusal(renew_subscription, subscription) == ["after_end"]


async def test_a_subscription_cancelled_before_it_began_was_never_held(desk: Desk) -> None:
    subscription = await desk.subscribe(started_at=at("2026-12-01"))
    await desk.do(cancel_subscription, subscription)
    assert story(await desk.timeline(subscription)) == []
    assert not (await desk.do(cancel_subscription, subscription)).is_new
    await desk.do(reactivate_subscription, subscription)
    assert story(await desk.timeline(subscription)) == ["12-01T00:00.. active small v1 x1"]


async def test_an_end_that_has_not_come_is_taken_back_and_one_that_has_leaves_a_gap(desk: Desk) -> None:
    subscription = await desk.subscribe()
    assert await desk.refusal(reactivate_subscription, subscription) == ["not_canceled"]
    await desk.do(cancel_subscription, subscription, when=END)
    await desk.do(reactivate_subscription, subscription)
    assert story(await desk.timeline(subscription)) == ["10-05T10:30.. active small v1 x1"]
    await desk.do(cancel_subscription, subscription, when=END)
    desk.clock.travel_to("2026-11-20")
    await desk.do(reactivate_subscription, subscription)
    assert story(await desk.timeline(subscription)) == [
        "10-05T10:30..11-01T00:00 active small v1 x1",
        "11-20T00:00.. active small v1 x1",
    ]


async def test_a_term_ends_and_is_renewed(desk: Desk) -> None:
    subscription = await desk.subscribe(term_periods=2)
    assert story(await desk.timeline(subscription)) == ["10-05T10:30..12-01T00:00 active small v1 x1"]
    await desk.do(change_quantity, subscription, Decimal(4))
    await desk.do(renew_subscription, subscription, periods=3)
    assert story(await desk.timeline(subscription)) == ["10-05T10:30..03-01T00:00 active small v1 x4"]
    await desk.do(renew_subscription, subscription)
    assert story(await desk.timeline(subscription)) == ["10-05T10:30.. active small v1 x4"]
    assert await desk.refusal(renew_subscription, subscription) == ["no_term"]
    assert await desk.refusal(
        create_subscription, NewSubscription(desk.tenant.tenant_id, "large", desk.clock.now(), term_periods=0)
    ) == ["invalid_term"]


async def test_a_term_is_cut_short_by_cancelling_and_made_endless_by_reactivating(memory: Desk) -> None:
    subscription = await memory.subscribe(term_periods=12)
    await memory.do(cancel_subscription, subscription, when=END)
    assert story(await memory.timeline(subscription)) == ["10-05T10:30..11-01T00:00 active small v1 x1"]
    await memory.do(reactivate_subscription, subscription)
    assert story(await memory.timeline(subscription)) == ["10-05T10:30.. active small v1 x1"]


async def test_an_end_comes_no_later_by_cancelling_again(memory: Desk) -> None:
    subscription = await memory.subscribe(term_periods=2)
    assert await memory.refusal(cancel_subscription, subscription, when=at("2027-03-01")) == ["after_end"]
    await memory.do(cancel_subscription, subscription, when=END)
    assert await memory.refusal(cancel_subscription, subscription, when=at("2026-12-01")) == ["after_end"]


async def test_creating_now_by_the_same_key_later_is_the_same_request(memory: Desk) -> None:
    wanted, keyed = NewSubscription(memory.tenant.tenant_id, "small"), Asked("ann", key="signup")
    first = await memory.do(create_subscription, wanted, asked=keyed)
    memory.clock.advance(timedelta(minutes=5))
    again = await memory.do(create_subscription, wanted, asked=keyed)
    assert (again.is_new, again.subscription) == (False, first.subscription)
    assert first.subscription.started_at == at("2026-10-05T10:30")


async def test_a_change_before_a_scheduled_one_of_the_same_is_refused_unless_it_may_be_replaced(memory: Desk) -> None:
    subscription = await memory.subscribe("large")
    await memory.do(change_plan, subscription, "small", when=END)
    assert await memory.refusal(change_plan, subscription, "team") == ["change_scheduled"]
    assert await memory.refusal(cancel_subscription, subscription) == ["change_scheduled"]
    # Seats are another matter.
    await memory.do(change_quantity, subscription, Decimal(2))
    replacing = replace(BY, replace_scheduled=True)
    outcome = await memory.do(change_plan, subscription, "team", asked=replacing)
    assert [one.kind for one in outcome.changes] == [ChangeKind.WITHDRAWN, ChangeKind.PLAN_CHANGED]
    assert story(await memory.timeline(subscription))[-1] == "10-05T10:30.. active team v1 x2"


async def test_backdating_is_for_a_month_unless_asked_for(memory: Desk) -> None:
    subscription = await memory.subscribe(started_at=at("2026-01-01"))
    await memory.do(change_quantity, subscription, Decimal(2), when=at("2026-09-05"))
    assert await memory.refusal(change_plan, subscription, "large", when=at("2026-08-01")) == ["backdated"]
    assert await memory.refusal(change_quantity, subscription, Decimal(3), when=at("2026-09-04T10:31")) == [
        "later_change"
    ]
    await memory.do(change_plan, subscription, "large", when=at("2026-08-01"), asked=replace(BY, allow_backdated=True))
    assert story(await memory.timeline(subscription))[1] == "08-01T00:00..09-05T00:00 active large v1 x1"


async def test_add_ons_are_known_and_held_once(memory: Desk) -> None:
    subscription = await memory.subscribe()
    assert await memory.refusal(remove_add_on, subscription, "support") == ["unknown_add_on"]
    assert await memory.refusal(change_quantity, subscription, Decimal(2), add_on="support") == ["unknown_add_on"]
    await memory.do(add_add_on, subscription, "support")
    assert await memory.refusal(add_add_on, subscription, "support") == ["add_on_exists"]
    assert await memory.refusal(change_plan, subscription, "support") == ["add_on_exists"]
    held = (await memory.timeline(subscription)).at(memory.clock.now())
    assert held is not None
    assert held.add_ons == (AddOn("support", 1),)


async def test_a_plan_and_its_seats_change_together(memory: Desk) -> None:
    subscription = await memory.subscribe("small")
    await memory.do(change_plan, subscription, "team", quantity=Decimal(8), when=END)
    assert story(await memory.timeline(subscription))[-1] == "11-01T00:00.. active team v1 x8"
    # Seats until then would be lost on the way: the scheduled change says how many there are.
    assert await memory.refusal(change_quantity, subscription, Decimal(3)) == ["change_scheduled"]


@pytest.mark.parametrize(
    ("anchor", "first_end"),
    [
        (None, "2026-11-15"),
        (ANCHOR_AT_START, "2026-11-05"),
        (date(2026, 1, 31), "2026-10-31"),
    ],
)
async def test_periods_follow_the_tenants_day_the_start_or_a_day_of_ones_own(anchor: Any, first_end: str) -> None:
    desk = await memory_desk(replace(ACME, billing_anchor_day=15))
    subscription = await desk.subscribe(anchor=anchor, started_at=at("2026-10-15" if anchor is None else "2026-10-05"))
    timeline = await desk.timeline(subscription)
    assert timeline.cycle.period_at(timeline.phases[0].start).end == at(first_end)


async def test_a_tenants_day_begins_at_its_own_midnight() -> None:
    desk = await memory_desk(replace(ACME, time_zone="America/Los_Angeles"))
    subscription = await desk.subscribe(trial_days=1, started_at=at("2026-10-06T06:30"))
    # 06:30 UTC is 23:30 on the 5th in Los Angeles, whose 6th begins at 07:00 UTC.
    assert story(await desk.timeline(subscription))[0].startswith("10-06T06:30..10-06T07:00 trial")


async def test_a_contracts_charges_count_for_the_rule_of_one_price(memory: Desk) -> None:
    await memory.subscribe("calls")
    overrides = {"charges": [metered("api_requests")]}
    async with memory.store() as store:
        assert isinstance(store, MemoryStore)
        store.contract_list.append(contract(memory, "support", at("2026-12-01"), overrides))
    assert await memory.refusal(
        create_subscription, NewSubscription(memory.tenant.tenant_id, "support", memory.clock.now())
    ) == ["meter_priced_twice"]


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"trial_days": -1}, "invalid_trial"),
        ({"trial_days": 731}, "invalid_trial"),
        ({"term_periods": 1201}, "invalid_term"),
        ({"overrides": {"charges": [{"id": "base", "flat_amount": "-1"}]}}, "negative_amount"),
    ],
)
async def test_what_makes_no_sense_is_refused(memory: Desk, wanted: dict[str, Any], code: str) -> None:
    new = NewSubscription(memory.tenant.tenant_id, "small", memory.clock.now(), **wanted)
    assert await memory.refusal(create_subscription, new) == [code]


@pytest.mark.parametrize("asked", [Asked("a\nb"), Asked("ann", key=""), Asked("ann", reason="x" * 201)])
async def test_texts_that_cannot_be_kept_are_refused(memory: Desk, asked: Asked) -> None:
    subscription = await memory.subscribe()
    assert await memory.refusal(pause_subscription, subscription, asked=asked) == ["invalid_text"]


async def test_a_timeline_is_shown_with_what_led_to_it(memory: Desk) -> None:
    subscription = await memory.subscribe("team", trial_days=10, quantity=Decimal(5))
    [scheduled] = (await memory.do(change_plan, subscription, "small", when=at("2026-12-01"))).changes
    memory.clock.travel_to("2026-10-20")
    await memory.do(withdraw_change, subscription, scheduled.sequence)
    [stored] = await memory.everything()
    shown = show_lines(stored, now=memory.clock.now())
    assert shown == [
        f"{subscription}  tenant {memory.tenant.tenant_id}  active",
        "billed by the month, periods counted from 2026-10-01, times in UTC, shares by days",
        "this period: 2026-10-01 00:00 to 2026-11-01 00:00",
        "",
        "  2026-10-05 10:30 → 2026-10-15 00:00  trial   team v1 × 5",
        "▶ 2026-10-15 00:00 → open              active  team v1 × 5",
        "",
        "changes",
        "  1 plan changed small v1 from 2026-12-01 00:00 (put down 2026-10-05 10:30 by ann: because, withdrawn by 2)",
        "  2 withdrawn change 1 from 2026-12-01 00:00 (put down 2026-10-20 00:00 by ann: because)",
    ]
    document = as_document(stored, now=memory.clock.now(), known_at=at("2026-10-19"))
    assert [one["sequence"] for one in document["changes"]] == [1]
    assert [one["plan_id"] for one in document["phases"]] == ["team", "team", "small"]
    assert document["held"]["quantity"] == "5"
