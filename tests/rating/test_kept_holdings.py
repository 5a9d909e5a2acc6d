"""What is remembered of others who hold alike is what would be worked out: one memory, very different subscriptions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import rating.kept_holdings
from rating.domain.cycle import Cycle, Interval
from rating.domain.plan import Plan
from rating.domain.proration import Convention
from rating.domain.timeline import AddOn, Held, Phase, State, Timeline
from rating.kept_holdings import KeptHoldings
from rating.rate_timeline import holdings_of
from tests.rating.plans import plan_of

_USED = {"id": "cpu", "model": "per_unit", "meter": "cpu", "unit_amount": "0.05"}
_BASE = {"id": "base", "model": "flat", "flat_amount": "99.99"}
_SEATS = {"id": "seats", "model": "per_unit", "unit_amount": "7.77", "recurring": {"usage_type": "licensed"}}
PLANS = {
    ("monthly", 1): plan_of(_BASE, _SEATS, _USED),
    ("monthly", 2): plan_of(_BASE | {"flat_amount": "109.99"}, _SEATS, _USED),
    ("in advance", 1): plan_of(_BASE | {"bill": "in_advance"}, _USED),
    ("set up", 1): plan_of(_BASE, {"id": "setup", "model": "flat", "type": "one_time", "flat_amount": "500"}, _USED),
    ("yearly", 1): plan_of(_BASE | {"recurring": {"interval": "year"}}, _USED),
}
INSTANTS = [
    datetime(2026, month, day, tzinfo=UTC)
    for month in (8, 9, 10, 11)
    for day in (1, 15, 31)
    if day < 31 or month in (8, 10)
]


def the_plan(plan_id: str, version: int, overrides: Mapping[str, Any]) -> Plan:
    return PLANS[plan_id, version]


held = st.builds(
    lambda plan, add_ons, **given: Held(plan[0], plan[1], add_ons=tuple(AddOn(*one) for one in add_ons), **given),
    plan=st.sampled_from(sorted(PLANS)),
    add_ons=st.lists(st.sampled_from(sorted(PLANS)), max_size=1),
    quantity=st.sampled_from([Decimal(1), Decimal(2)]),
    state=st.sampled_from(State),
    convention=st.sampled_from([None, Convention.SECONDS, Convention.NONE]),
    overrides=st.sampled_from([{}, {"name": "Special"}]),
    contract=st.sampled_from([None, ("contract", 1)]),
)


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    begins = sorted(draw(st.lists(st.sampled_from(INSTANTS), min_size=1, max_size=2, unique=True)))
    last = draw(st.sampled_from([None, *(one for one in INSTANTS if one > begins[-1])]))
    ends = [*begins[1:], last]
    anchor = date(2026, draw(st.integers(1, 2)), draw(st.sampled_from([1, 15, 28])))
    cycle = Cycle(
        draw(st.sampled_from([Interval.MONTH, Interval.MONTH, Interval.YEAR])),
        anchor,
        draw(st.sampled_from(["UTC", "Europe/Berlin"])),
    )
    phases = tuple(Phase(start, end, draw(held)) for start, end in zip(begins, ends, strict=True))
    convention = draw(st.sampled_from([Convention.DAYS, Convention.SECONDS]))
    return Timeline(draw(st.text(max_size=2)), draw(st.text(max_size=2)), cycle, convention, phases)


def nearly(timeline: Timeline) -> Iterator[Timeline]:
    """Yield the timeline, and others that differ from it in one thing."""
    yield timeline
    yield replace(timeline, subscription_id="other")
    yield replace(timeline, convention=Convention.NONE)
    *before, last = timeline.phases
    ends = [None, *(one for one in INSTANTS if one > last.start)]
    phases = [replace(last, end=end) for end in ends]
    phases += [replace(last, held=replace(last.held, state=state)) for state in State]
    phases += [replace(last, held=replace(last.held, convention=one)) for one in (None, *Convention)]
    phases += [replace(last, held=replace(last.held, plan_id=plan, plan_version=version)) for plan, version in PLANS]
    more = tuple(replace(one, quantity=one.quantity + 1) for one in last.held.add_ons)
    others = ({"contract": ("other", 1)}, {"add_ons": ()}, {"add_ons": more}, {"overrides": {"name": "Other"}})
    phases += [replace(last, held=replace(last.held, **one)) for one in others]
    phases += [replace(last, start=start) for start in INSTANTS if start < (last.end or INSTANTS[-1]) and not before]
    for phase in phases:
        yield replace(timeline, phases=(*before, phase))
    yield replace(timeline, phases=(last,))
    for zone in ("Europe/Paris", "Africa/Accra", "Asia/Tokyo"):
        yield replace(timeline, cycle=replace(timeline.cycle, time_zone=zone))


@given(timelines(), st.sampled_from(INSTANTS))
def test_it_answers_as_if_it_remembered_nothing(timeline: Timeline, at: datetime) -> None:
    kept = KeptHoldings()
    for one in nearly(timeline):
        period = one.cycle.period_at(at)
        for ahead in (False, True):
            assert kept.of(one, period, the_plan, ahead=ahead) == holdings_of(one, period, the_plan, ahead=ahead)


def test_those_who_hold_alike_share_one_answer_and_others_have_their_own() -> None:
    kept, month = KeptHoldings(), Cycle(Interval.MONTH, date(2026, 1, 1))
    october = month.period_at(INSTANTS[-3])

    def of(start: datetime, quantity: int = 1, version: int = 1, added: int = 1) -> object:
        add_ons = (AddOn("in advance", 1, Decimal(added)),)
        phase = Phase(start, None, Held("monthly", version, quantity=Decimal(quantity), add_ons=add_ons))
        return kept.of(Timeline("sub", "acme", month, Convention.DAYS, (phase,)), october, the_plan)

    assert of(INSTANTS[0]) is of(INSTANTS[1])
    assert of(INSTANTS[0]) is not of(october.start)
    assert of(INSTANTS[0]) is not of(INSTANTS[0], quantity=2)
    assert of(INSTANTS[0]) is not of(INSTANTS[0], version=2)
    assert of(INSTANTS[0]) is not of(INSTANTS[0], added=2)


def test_the_same_reference_of_other_prices_has_an_answer_of_its_own() -> None:
    kept, month = KeptHoldings(), Cycle(Interval.MONTH, date(2026, 1, 1))
    timeline = Timeline("sub", "acme", month, Convention.DAYS, (Phase(INSTANTS[0], None, Held("monthly", 1)),))
    october = month.period_at(INSTANTS[-3])
    dearer = PLANS["monthly", 2]
    (now,) = kept.of(timeline, october, the_plan)
    (then,) = kept.of(timeline, october, lambda *_: dearer)
    assert (now.plan, then.plan) == (PLANS["monthly", 1], dearer)


def test_it_does_not_grow_for_ever(monkeypatch: Any) -> None:
    monkeypatch.setattr(rating.kept_holdings, "_KEPT", 3)
    kept, month = KeptHoldings(), Cycle(Interval.MONTH, date(2026, 1, 1))
    for quantity in range(1, 20):
        phase = Phase(INSTANTS[0], None, Held("monthly", 1, quantity=Decimal(quantity)))
        (found,) = kept.of(
            Timeline("sub", "acme", month, Convention.DAYS, (phase,)), month.period_at(INSTANTS[3]), the_plan
        )
        assert found.quantity == quantity
        assert len(kept._kept) <= 3
