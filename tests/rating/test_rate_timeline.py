"""What a timeline owes for a billing period: laws over any cut of it, and cases that stories do not reach."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from core.calendar import Calendar
from core.period import Period
from rating.domain.cycle import Cycle, Interval, calendar_cycle
from rating.domain.plan import Plan
from rating.domain.proration import Convention
from rating.domain.timeline import Held, Phase, State, Timeline
from rating.domain.usage import usage_row
from rating.domain.windows import gaps_of, hull_of, join_windows, windows_of
from rating.rate_timeline import (
    Holding,
    HoldingLines,
    PlanReference,
    UsageOfHolding,
    holdings_of,
    period_name,
    rate_holding,
)
from tests.rating.plans import OCTOBER, plan_of

SEATS = {"id": "seats", "model": "per_unit", "unit_amount": "7.77", "recurring": {"usage_type": "licensed"}}
PLAN = plan_of({"id": "base", "model": "flat", "flat_amount": "99.99"}, SEATS,
               {"id": "cpu", "model": "per_unit", "meter": "cpu", "unit_amount": "0.05"})  # fmt: skip
ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"]
START = datetime(2026, 9, 1, tzinfo=UTC)


def the_plan(plan_id: str, version: int, overrides: Mapping[str, Any]) -> Plan:
    return PLAN


def timeline_of(
    *phases: tuple[datetime, Held], zone: str = "UTC", convention: Convention = Convention.DAYS
) -> Timeline:
    ends = [start for start, _ in phases[1:]]
    return Timeline(
        "sub_1", "acme", calendar_cycle(Interval.MONTH, Calendar(zone), phases[0][0]), convention,
        tuple(Phase(start, end, held) for (start, held), end in zip(phases, [*ends, None], strict=True)),
    )  # fmt: skip


def rated(timeline: Timeline, period: Period, cpu: Mapping[Period, int] | None = None) -> list[HoldingLines]:
    """Rate a period; `cpu` is used in whole minutes that lie in one window or another."""
    found = []
    for holding in holdings_of(timeline, period, the_plan):
        used = sum(quantity for minute, quantity in (cpu or {}).items() if _holds(holding, minute))
        found.append(rate_holding(holding, UsageOfHolding([usage_row("cpu", used)] if used else [])))
    return found


def _holds(holding: Holding, minute: Period) -> bool:
    return any(minute.start in window for window in windows_of(holding.windows or ()))


def exact(found: list[HoldingLines], charge: str) -> Fraction:
    lines = [line.rated for one in found for line in one.lines if line.rated.charge_id == charge]
    return sum((Fraction(line.exact_amount) for line in lines), Fraction(0))


minutes = st.integers(0, 31 * 24 * 60 - 1).map(lambda number: OCTOBER.start + timedelta(minutes=number))


@given(
    cuts=st.lists(minutes, max_size=4, unique=True),
    zone=st.sampled_from(ZONES),
    convention=st.sampled_from(list(Convention)),
    used=st.dictionaries(minutes.map(lambda at: Period(at, at + timedelta(minutes=1))), st.integers(1, 99), max_size=5),
)
def test_however_a_period_is_cut_its_parts_add_up_to_the_whole(
    cuts: list[datetime], zone: str, convention: Convention, used: dict[Period, int]
) -> None:
    held = Held("p", 1, quantity=Decimal(3))
    versions = [(START, held), *((at, Held("p", 2 + n, quantity=Decimal(3))) for n, at in enumerate(sorted(cuts)))]
    whole = timeline_of((START, held), zone=zone, convention=convention)
    period = whole.cycle.period_at(OCTOBER.start + timedelta(days=15))
    parts = rated(timeline_of(*versions, zone=zone, convention=convention), period, used)
    for charge in ("base", "seats", "cpu"):
        # 60 digits in amounts, fractions in shares: a remainder would be a share counted twice or not at all.
        difference = exact(parts, charge) - exact(rated(whole, period, used), charge)
        assert abs(difference) < Fraction(1, 10**40), charge
    windows = [window for one in parts for window in windows_of(one.holding.windows or ())]
    assert join_windows(windows) == period


@given(seats=st.lists(st.tuples(minutes, st.integers(0, 50)), max_size=5, unique_by=lambda one: one[0]))
def test_more_seats_never_cost_less(seats: list[tuple[datetime, int]]) -> None:
    held = [(START, Held("p", 1, quantity=Decimal(1)))]
    held += [(at, Held("p", 1, quantity=Decimal(number))) for at, number in sorted(seats)]
    more = [(at, Held("p", 1, quantity=one.quantity + 1)) for at, one in held]
    assert exact(rated(timeline_of(*held), OCTOBER), "seats") < exact(rated(timeline_of(*more), OCTOBER), "seats")


def test_a_pause_is_no_other_holding() -> None:
    pause, resume = OCTOBER.start + timedelta(days=10), OCTOBER.start + timedelta(days=20)
    held, paused = Held("p", 1), Held("p", 1, state=State.PAUSED)
    (one,) = rated(timeline_of((START, held), (pause, paused), (resume, held)), OCTOBER)
    assert one.holding.windows == OCTOBER, "usage of the whole month, rated once"
    assert one.holding.share == Fraction(21, 31)


def test_other_overrides_are_another_holding_with_a_name_of_its_own() -> None:
    cheap = PlanReference("p", 1, {"charges": [{"id": "cpu", "unit_amount": "0.01"}]})
    dear = PlanReference("p", 1, {"charges": [{"id": "cpu", "unit_amount": "0.10"}]})
    names = {cheap.text, dear.text, PlanReference("p", 1, {}).text, PlanReference("p", 1, {}, is_add_on=True).text}
    assert len(names) == 4
    assert PlanReference("p", 1, {}).text == "p@1"


def test_windows_join_and_know_their_gaps() -> None:
    first, second = (
        Period(OCTOBER.start, OCTOBER.start + timedelta(days=3)),
        Period(OCTOBER.end - timedelta(days=1), OCTOBER.end),
    )
    touching = Period(first.end, first.end + timedelta(days=1))
    joined = join_windows([second, touching, first])
    assert joined == (Period(first.start, touching.end), second)
    assert (hull_of(joined), gaps_of(joined)) == (OCTOBER, [Period(touching.end, second.start)])
    assert join_windows([]) is None
    assert gaps_of(OCTOBER) == []


def test_a_period_is_named_as_quotas_name_it() -> None:
    for cycle, name in (
        (calendar_cycle(Interval.MONTH, Calendar("Europe/Berlin"), START), "2026-10"),
        (calendar_cycle(Interval.MONTH, Calendar("Europe/Berlin", 15), START), "2026-10-15"),
        (Cycle(Interval.QUARTER, START.date().replace(month=10)), "2026-10-01"),
    ):
        instant = datetime(2026, 10, 20, tzinfo=UTC)
        assert period_name(cycle, cycle.period_at(instant)) == name
        if cycle.interval is Interval.MONTH:
            assert Calendar(cycle.time_zone, cycle.anchor.day).billing_name(instant) == name
