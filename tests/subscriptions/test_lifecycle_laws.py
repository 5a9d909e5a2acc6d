"""Laws over any sequence of verbs: nothing half done, twice is once, no meter with two prices, what was known stays so.

The oracle for prices looks at every instant at which anything changes and counts; it shares no code with the rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConflictError, InvalidInputError
from rating.domain.timeline import Timeline
from subscriptions.cancel_subscription import cancel_subscription
from subscriptions.change_add_ons import add_add_on, remove_add_on
from subscriptions.change_plan import change_plan
from subscriptions.change_quantity import change_quantity
from subscriptions.domain.proposals import Moment
from subscriptions.end_trial import end_trial
from subscriptions.pause_subscription import pause_subscription
from subscriptions.reactivate_subscription import reactivate_subscription
from subscriptions.record_changes import Asked
from subscriptions.renew_subscription import renew_subscription
from subscriptions.resume_subscription import resume_subscription
from subscriptions.withdraw_change import withdraw_change
from tests.subscriptions.lifecycle import ACME, Desk, memory_desk
from tests.subscriptions.memory import MemoryStore

START = datetime(2026, 10, 5, 10, 30, tzinfo=UTC)
PRICED = {"calls": "api_requests", "more-calls": "api_requests", "compute": "cpu"}
PLANS = ["small", "large", "calls", "more-calls", "compute", "support"]


@dataclass(frozen=True)
class Step:
    """A verb, on which of two subscriptions, when, with what, and how much later it is asked for."""

    verb: str
    which: int
    when: int | None
    plan: str
    number: int
    wait: int
    flags: tuple[bool, bool]


VERBS: dict[str, Callable[[Step], tuple[Callable[..., Awaitable[Any]], tuple[Any, ...]]]] = {
    "plan": lambda step: (change_plan, (step.plan,)),
    "seats": lambda step: (change_quantity, (Decimal(step.number),)),
    "add": lambda step: (add_add_on, (step.plan,)),
    "remove": lambda step: (remove_add_on, (step.plan,)),
    "pause": lambda step: (pause_subscription, ()),
    "resume": lambda step: (resume_subscription, ()),
    "end trial": lambda step: (end_trial, ()),
    "cancel": lambda step: (cancel_subscription, ()),
    "reactivate": lambda step: (reactivate_subscription, ()),
    "renew": lambda step: (renew_subscription, ()),
    "withdraw": lambda step: (withdraw_change, (step.number,)),
}
WITHOUT_MOMENT = {"reactivate", "renew", "withdraw"}
STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(list(VERBS)),
        st.integers(0, 1),
        st.none() | st.just(0) | st.integers(-60 * 24, 90 * 24),
        st.sampled_from(PLANS),
        st.integers(0, 6),
        st.integers(0, 20 * 24),
        st.tuples(st.booleans(), st.booleans()),
    ),
    max_size=15,
)


async def opened() -> tuple[Desk, list[str]]:
    desk = await memory_desk(ACME)
    first = await desk.subscribe("small", trial_days=10, term_periods=3)
    return desk, [first, await desk.subscribe("compute")]


async def take(desk: Desk, subscriptions: list[str], step: Step, key: str) -> bool:
    """Take a step; returns whether it was taken. What was refused must have left nothing behind."""
    verb, wanted = VERBS[step.verb](step)
    asked = Asked("ann", key=key, allow_backdated=step.flags[0], replace_scheduled=step.flags[1])
    more: dict[str, Any] = {}
    if step.verb not in WITHOUT_MOMENT:
        moment = Moment.PERIOD_END if step.when is None else desk.clock.now() + timedelta(hours=step.when)
        more["when"] = Moment.NOW if step.when == 0 else moment
    before = await everything(desk)
    try:
        await desk.do(verb, subscriptions[step.which], *wanted, asked=asked, **more)
    except (InvalidInputError, ConflictError):
        assert await everything(desk) == before
        return False
    return True


async def everything(desk: Desk) -> Any:
    async with desk.store() as store:
        assert isinstance(store, MemoryStore)
        kept = await store.subscriptions(desk.tenant.tenant_id)
        return kept, dict(store.limits), dict(store.phases)


async def timelines_of(desk: Desk) -> list[Timeline]:
    return [one.timeline() for one in await desk.everything()]


@settings(max_examples=120, deadline=None)
@given(STEPS)
def test_whatever_is_asked_for_the_record_makes_sense(steps: list[Step]) -> None:
    async def run() -> None:
        desk, subscriptions = await opened()
        known: list[tuple[datetime, list[Timeline]]] = []
        for number, step in enumerate(steps):
            await take(desk, subscriptions, step, str(number))
            known.append((desk.clock.now(), await timelines_of(desk)))
            desk.clock.advance(timedelta(hours=step.wait, seconds=1))
        for timeline in await timelines_of(desk):
            phases_tile(timeline)
            async with desk.store() as store:
                assert store.phases[timeline.subscription_id] == timeline
        no_meter_has_two_prices(await timelines_of(desk))
        # Asked for as of then, the record still says what it said then.
        for then, timelines in known:
            assert [one.timeline(known_at=then) for one in await desk.everything()] == timelines
        async with desk.store() as store:
            limits_tile(store.limits[desk.tenant.tenant_id])

    asyncio.run(run())


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_asking_for_all_of_it_again_changes_nothing(steps: list[Step]) -> None:
    async def run() -> None:
        desk, subscriptions = await opened()
        taken = []
        for number, step in enumerate(steps):
            before = await everything(desk)
            if await take(desk, subscriptions, step, str(number)) and await everything(desk) != before:
                taken.append((number, replace(step, when=None if step.when is None else 0)))
            desk.clock.advance(timedelta(hours=step.wait, seconds=1))
        after = await everything(desk)
        for number, step in taken:
            again = steps[number]
            if again.when in (None, 0):
                # Moments that are named by words are the same request at any time.
                assert await take(desk, subscriptions, again, str(number))
            elif step.verb not in WITHOUT_MOMENT:
                # The same key for another moment is another request.
                assert not await take(desk, subscriptions, step, str(number))
            assert await everything(desk) == after

    asyncio.run(run())


def phases_tile(timeline: Timeline) -> None:
    for phase in timeline.phases:
        assert phase.end is None or phase.start < phase.end
        assert phase.start.second == phase.start.microsecond == 0
    for before, after in pairwise(timeline.phases):
        assert before.end is not None
        assert before.end <= after.start
        assert before.end < after.start or before.held != after.held


def no_meter_has_two_prices(timelines: list[Timeline]) -> None:
    edges = {edge for one in timelines for phase in one.phases for edge in (phase.start, phase.end) if edge}
    for edge in edges:
        for instant in (edge - timedelta(minutes=1), edge):
            held = [found for one in timelines if (found := one.at(instant)) is not None]
            plans = [name for one in held for name in (one.plan_id, *(each.plan_id for each in one.add_ons))]
            priced = [PRICED[name] for name in plans if name in PRICED]
            assert len(priced) == len(set(priced)), (instant, plans)


def limits_tile(limits: list[Any]) -> None:
    by_meter: dict[str, list[Any]] = {}
    for one in limits:
        by_meter.setdefault(one.limit.meter_id, []).append(one)
    for stretches in by_meter.values():
        for before, after in pairwise(stretches):
            assert before.end is not None
            assert before.end <= after.start
            assert before.end < after.start or before.limit != after.limit
