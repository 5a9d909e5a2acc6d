"""Timelines: phases follow from changes, as known now and as known then; withdrawing is never having made."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BrokenInvariantError
from core.period import Period
from rating.domain.contract import Contract
from rating.domain.cycle import Cycle, Interval
from rating.domain.proration import Convention, share
from rating.domain.timeline import (
    Change,
    ChangeKind,
    Held,
    State,
    SubscriptionStart,
    Timeline,
    build_timeline,
    lay_contracts,
    replay,
    standing_changes,
)

UTC_MONTHS = Cycle(Interval.MONTH, date(2026, 1, 1))
STARTED = datetime(2026, 1, 10, tzinfo=UTC)
HORIZON = Period(datetime(2025, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def started(trial_ends_at: datetime | None = None) -> SubscriptionStart:
    state = State.TRIAL if trial_ends_at else State.ACTIVE
    held = Held("starter", 1, state=state)
    return SubscriptionStart("sub_1", "acme", UTC_MONTHS, Convention.DAYS, STARTED, STARTED, held, trial_ends_at)


def change(number: int, kind: ChangeKind, effective: str, recorded: str | None = None, **payload: Any) -> Change:
    return Change(number, kind, at(effective), at(recorded or effective), payload)


def story(timeline: Timeline) -> list[tuple[str, str | None, str]]:
    return [
        (
            f"{phase.start:%m-%d}",
            f"{phase.end:%m-%d}" if phase.end else None,
            f"{phase.held.plan_id} v{phase.held.plan_version} x{phase.held.quantity} {phase.held.state.value}"
            + "".join(f" +{one.plan_id} x{one.quantity}" for one in phase.held.add_ons),
        )
        for phase in timeline.phases
    ]


def test_a_life() -> None:
    changes = [
        change(1, ChangeKind.PLAN_CHANGED, "2026-02-15", plan_id="pro", plan_version=2, overrides={}),
        change(2, ChangeKind.QUANTITY_CHANGED, "2026-03-01", quantity="5"),
        change(3, ChangeKind.ADD_ON_ADDED, "2026-03-01", plan_id="backup", plan_version=1, quantity="2"),
        change(4, ChangeKind.PAUSED, "2026-04-01"),
        change(5, ChangeKind.RESUMED, "2026-05-01"),
        change(6, ChangeKind.ADD_ON_REMOVED, "2026-05-01", plan_id="backup"),
        change(7, ChangeKind.CANCELED, "2026-06-01"),
        change(8, ChangeKind.REACTIVATED, "2026-07-01"),
    ]
    assert story(build_timeline(started(at("2026-01-24")), changes)) == [
        ("01-10", "01-24", "starter v1 x1 trial"),
        ("01-24", "02-15", "starter v1 x1 active"),
        ("02-15", "03-01", "pro v2 x1 active"),
        ("03-01", "04-01", "pro v2 x5 active +backup x2"),
        ("04-01", "05-01", "pro v2 x5 paused +backup x2"),
        ("05-01", "06-01", "pro v2 x5 active"),
        ("07-01", None, "pro v2 x5 active"),
    ]


def test_a_downgrade_at_the_periods_end_that_was_withdrawn_is_seen_only_as_known_then() -> None:
    downgrade = change(
        1, ChangeKind.PLAN_CHANGED, "2026-03-01", "2026-02-10", plan_id="free", plan_version=1, overrides={}
    )
    changes = [downgrade, change(2, ChangeKind.WITHDRAWN, "2026-02-20", sequence=1)]
    assert build_timeline(started(), changes) == build_timeline(started(), [])
    then = build_timeline(started(), changes, known_at=at("2026-02-15"))
    assert story(then) == [("01-10", "03-01", "starter v1 x1 active"), ("03-01", None, "free v1 x1 active")]
    assert standing_changes(changes) == []


def test_before_it_was_recorded_a_subscription_is_not_known() -> None:
    assert build_timeline(started(), [], known_at=at("2026-01-09")).phases == ()


def test_renewing_from_the_end_leaves_no_trace() -> None:
    changes = [
        change(1, ChangeKind.CANCELED, "2026-03-01", "2026-02-01"),
        change(2, ChangeKind.RENEWED, "2026-03-01", "2026-02-20"),
        change(3, ChangeKind.CANCELED, "2026-04-01", "2026-02-20"),
    ]
    assert story(build_timeline(started(), changes)) == [("01-10", "04-01", "starter v1 x1 active")]


def test_a_paused_one_that_ended_begins_again_unpaused() -> None:
    changes = [
        change(1, ChangeKind.PAUSED, "2026-02-01"),
        change(2, ChangeKind.CANCELED, "2026-03-01"),
        change(3, ChangeKind.REACTIVATED, "2026-04-01"),
    ]
    assert story(build_timeline(started(), changes))[-1] == ("04-01", None, "starter v1 x1 active")


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ([change(1, ChangeKind.RESUMED, "2026-02-01")], ["not_paused"]),
        ([change(1, ChangeKind.PAUSED, "2026-02-01"), change(2, ChangeKind.PAUSED, "2026-02-02")], ["already_paused"]),
        ([change(1, ChangeKind.QUANTITY_CHANGED, "2026-01-09", quantity="2")], ["before_start"]),
        ([change(1, ChangeKind.CANCELED, "2026-02-01"), change(2, ChangeKind.PAUSED, "2026-02-01")], ["after_end"]),
        ([change(1, ChangeKind.REACTIVATED, "2026-02-01")], ["not_canceled"]),
        ([change(1, ChangeKind.ADD_ON_REMOVED, "2026-02-01", plan_id="backup")], ["unknown_add_on"]),
        (
            [change(1, ChangeKind.QUANTITY_CHANGED, "2026-02-01", quantity="2", add_on="backup")],
            ["unknown_add_on"],
        ),
        ([change(1, ChangeKind.TRIAL_ENDED, "2026-02-01")], ["not_in_trial"]),
        ([change(1, ChangeKind.WITHDRAWN, "2026-02-01", sequence=7)], ["unknown_change"]),
    ],
)
def test_what_contradicts_is_told_and_stored_contradictions_are_our_own_mistake(
    changes: list[Change], codes: list[str]
) -> None:
    assert [fault.code for _, fault in replay(started(), changes).faults] == codes
    with pytest.raises(BrokenInvariantError):
        build_timeline(started(), changes)


SCHEDULE = st.lists(
    st.tuples(
        st.sampled_from([kind for kind in ChangeKind if kind is not ChangeKind.WITHDRAWN]),
        st.integers(-5, 300),
        st.integers(0, 5),
    ),
    max_size=12,
)


def possible(start: SubscriptionStart, drawn: list[tuple[ChangeKind, int, int]]) -> list[Change]:
    """Return the drawn changes that do not contradict each other, put down one day after the other."""
    found: list[Change] = []
    for kind, day, number in drawn:
        payload: dict[str, Any] = {}
        if kind in (ChangeKind.PLAN_CHANGED, ChangeKind.MIGRATED):
            payload = {"plan_id": f"plan{number % 2}", "plan_version": number + 1, "overrides": {}}
        elif kind is ChangeKind.QUANTITY_CHANGED:
            payload = {"quantity": str(number)}
        elif kind in (ChangeKind.ADD_ON_ADDED, ChangeKind.ADD_ON_REMOVED):
            payload = {"plan_id": f"add_on{number % 2}", "plan_version": 1, "quantity": str(number)}
        recorded = STARTED + timedelta(days=len(found))
        candidate = Change(len(found) + 1, kind, STARTED + timedelta(days=day), recorded, payload)
        if not replay(start, [*found, candidate]).faults:
            found.append(candidate)
    return found


@given(SCHEDULE, st.none() | st.integers(1, 40))
def test_phases_tile_from_the_start_but_for_gaps_after_an_end(
    drawn: list[tuple[ChangeKind, int, int]], trial_days: int | None
) -> None:
    start = started(STARTED + timedelta(days=trial_days) if trial_days else None)
    changes = possible(start, drawn)
    timeline = build_timeline(start, changes)
    edges = [(phase.start, phase.end) for phase in timeline.phases]
    assert all(end is None or begun < end for begun, end in edges)
    ends = {one.effective_at for one in changes if one.kind is ChangeKind.CANCELED}
    for (_, end), (begun, _) in pairwise(edges):
        assert end is not None
        assert end == begun or (end < begun and end in ends)
    assert not edges or edges[0][0] >= start.started_at
    for phase in timeline.within(HORIZON):
        assert timeline.at(phase.start) == phase.held
        assert timeline.at(phase.period.end - timedelta(microseconds=1)) == phase.held


@given(SCHEDULE, st.data())
def test_withdrawing_is_never_having_made_but_what_was_known_stays_known(
    drawn: list[tuple[ChangeKind, int, int]], data: st.DataObject
) -> None:
    changes = possible(started(), drawn)
    if not changes:
        return
    unwanted = data.draw(st.sampled_from(changes))
    later = max(one.recorded_at for one in changes) + timedelta(days=1)
    withdrawal = Change(len(changes) + 1, ChangeKind.WITHDRAWN, later, later, {"sequence": unwanted.sequence})
    without = [one for one in changes if one is not unwanted]
    with_withdrawal = [*changes, withdrawal]
    assert replay(started(), with_withdrawal).phases == replay(started(), without).phases
    before = later - timedelta(hours=1)
    assert build_timeline(started(), with_withdrawal, known_at=before) == build_timeline(started(), changes)


@given(SCHEDULE, st.randoms())
def test_the_order_in_which_changes_are_read_does_not_matter(
    drawn: list[tuple[ChangeKind, int, int]], random: Any
) -> None:
    changes = possible(started(), drawn)
    shuffled = list(changes)
    random.shuffle(shuffled)
    assert build_timeline(started(), shuffled) == build_timeline(started(), changes)


@given(SCHEDULE, st.sampled_from(Convention))
def test_shares_of_all_phases_and_gaps_of_a_period_are_at_most_the_whole(
    drawn: list[tuple[ChangeKind, int, int]], convention: Convention
) -> None:
    timeline = build_timeline(started(), possible(started(), drawn))
    for period in timeline.periods(HORIZON):
        held = sum(share(phase.period, period, convention) for phase in timeline.within(period))
        assert 0 <= held <= 1
        phases = timeline.within(period)
        if phases[0].start == period.start and sum(
            (phase.period.end - phase.period.start for phase in phases), timedelta()
        ) == (period.end - period.start):
            assert held == 1


def test_a_contract_cuts_phases_and_lies_over_the_overrides() -> None:
    contract = Contract(
        "c1", 2, "acme", "starter", at("2026-03-01"), at("2026-04-01"),
        {"charges": [{"id": "base", "flat_amount": "20"}]}, "seconds",
    )  # fmt: skip
    timeline = lay_contracts(build_timeline(started(), []), [contract])
    assert [(f"{one.start:%m-%d}", one.held.contract) for one in timeline.phases] == [
        ("01-10", None), ("03-01", ("c1", 2)), ("04-01", None),
    ]  # fmt: skip
    assert timeline.phases[1].held.overrides == {"charges": [{"id": "base", "flat_amount": "20"}]}
    assert timeline.phases[0].held.plan_key == timeline.phases[2].held.plan_key != timeline.phases[1].held.plan_key
    conventions = [timeline.convention_in(one) for one in timeline.periods(Period(at("2026-02-01"), at("2026-05-01")))]
    assert conventions == [Convention.DAYS, Convention.SECONDS, Convention.DAYS]


def test_a_contract_for_an_add_on_lies_over_the_add_on() -> None:
    changes = [
        change(1, ChangeKind.ADD_ON_ADDED, "2026-02-01", plan_id="backup", plan_version=1, quantity="1"),
    ]
    contract = Contract("c2", 1, "acme", "backup", at("2026-03-01"), None, {"name": "Backup for Acme"})
    phases = lay_contracts(build_timeline(started(), changes), [contract]).phases
    assert [[one.overrides for one in phase.held.add_ons] for phase in phases] == [
        [],
        [{}],
        [{"name": "Backup for Acme"}],
    ]


def test_a_contract_of_another_tenant_or_plan_changes_nothing() -> None:
    timeline = build_timeline(started(), [])
    others = [
        Contract("c1", 1, "other", "starter", at("2026-03-01"), None, {}),
        Contract("c2", 1, "acme", "pro", at("2026-03-01"), None, {}),
    ]
    assert lay_contracts(timeline, others) == timeline


def test_quantities_are_exact() -> None:
    timeline = build_timeline(started(), [change(1, ChangeKind.QUANTITY_CHANGED, "2026-02-01", quantity="2.5")])
    held = timeline.at(at("2026-02-02"))
    assert held is not None
    assert held.quantity == Decimal("2.5")
