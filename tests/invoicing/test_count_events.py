"""Usage counted again from single events: against the oracle, whatever the order, as known at any instant."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.event_time import to_microseconds
from core.meters import Meter
from core.period import Period
from invoicing.domain.count_entries import EntryCount
from invoicing.domain.count_events import EventCount
from invoicing.domain.stored_event import MeterReader, StoredEvent, TakenOut
from invoicing.domain.usage_evidence import UsageEvidence
from rating.domain.fine_usage import FineUsage
from rating.domain.price import Grain
from rating.domain.usage import UsageTotals
from rating.domain.windows import Windows
from tests.metering.usage_oracle import Event, Question, answer
from tests.rating.plans import OCTOBER

AGGREGATIONS = ("sum", "count", "average", "unique", "max", "min", "latest", "time_weighted")
DIMENSIONS = ("class", "region")
WINDOW = Period(OCTOBER.start + timedelta(days=10), OCTOBER.end)


def meter_of(aggregation: str) -> Meter:
    weight: Any = "month" if aggregation == "time_weighted" else None
    value = None if aggregation == "count" else "v"
    return Meter(aggregation, "u", "kind", cast(Any, aggregation), value, DIMENSIONS, weight_per=weight)


def stored(event: Event, *, received: datetime | None = None, taken_out: TakenOut | None = None) -> StoredEvent:
    data = {**{name: value for name, value in event.dims if value}, "v": f"{event.value:f}"}
    return StoredEvent(
        "acme", "s", f"e{event.place}", "kind", "", to_microseconds(event.at), json.dumps(data),
        received or event.at, 0, event.place, 0, taken_out,
    )  # fmt: skip


def evidence_of(meter: Meter, events: list[StoredEvent], windows: Windows = WINDOW) -> UsageEvidence:
    counted = EventCount(windows, {meter.meter_id: meter}, OCTOBER)
    reader = MeterReader("acme", {meter.meter_id: meter}, {(meter.meter_id, 0): 0})
    for event in events:
        for reading in reader.read(event):
            counted.add(event, reading)
    return counted.evidence()


def totals(evidence: UsageEvidence, meter: Meter, split: tuple[str, ...]) -> dict[tuple[str, ...], Decimal]:
    found = UsageTotals(evidence.totals()).of_meter(meter.meter_id, split)
    if not meter.is_additive or meter.aggregation == "average":
        return {tuple(dict(dims).get(name, "") for name in split): quantity for dims, quantity in found.items()}
    by_group: dict[tuple[str, ...], Decimal] = {}
    for dims, quantity in found.items():
        group = tuple(dict(dims).get(name, "") for name in split)
        by_group[group] = by_group.get(group, Decimal(0)) + quantity
    return by_group


# The window is from the 11th to the end: most are in it, some before and after.
moments = st.integers(6 * 86_400, 33 * 86_400)
happenings = st.lists(
    st.tuples(moments, st.sampled_from(("hot", "")), st.sampled_from(("eu", "us")), st.integers(0, 10**15)),
    min_size=3,
    max_size=25,
)


def events_of(found: list[Any]) -> list[Event]:
    events = []
    for place, (seconds, kind, region, value) in enumerate(found):
        value = Decimal(value).scaleb(-6)
        instant = OCTOBER.start + timedelta(seconds=seconds)
        events.append(Event(instant, (("class", kind), ("region", region)), value, f"{value:f}", place))
    return events


@settings(max_examples=12, deadline=None)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@given(found=happenings, order=st.randoms(use_true_random=False))
def test_counting_again_gives_what_the_oracle_says_in_any_order(aggregation: str, found: list[Any], order: Any) -> None:
    meter, events = meter_of(aggregation), events_of(found)
    kept = [stored(event) for event in events]
    evidence = evidence_of(meter, kept)
    for split in ((), ("class",), ("region",)):
        question = Question(aggregation, "total", WINDOW.start, WINDOW.end, group_by=split, weight_per="month")
        expected = {group: quantity for _, _, group, quantity, _ in answer(question, events)}
        measured = {} if not evidence.totals() else totals(evidence, meter, split)
        assert {group: quantity for group, quantity in measured.items() if quantity or group in expected} == expected
    order.shuffle(kept)
    shuffled = evidence_of(meter, kept)
    assert (shuffled.digest, shuffled.totals()) == (evidence.digest, evidence.totals())


@given(happenings, st.integers(1, 30))
def test_levels_of_two_windows_are_those_of_the_whole(found: list[Any], day: int) -> None:
    meter, kept = meter_of("time_weighted"), [stored(event) for event in events_of(found)]
    cut = OCTOBER.start + timedelta(days=day)
    parts = (Period(OCTOBER.start, cut), Period(cut, OCTOBER.end))
    whole = evidence_of(meter, kept, OCTOBER).measured_total("time_weighted", ())
    pieces = evidence_of(meter, kept, parts).measured_total("time_weighted", ())
    assert (whole is None) == (pieces is None)
    if whole is not None and pieces is not None:
        # Each piece is rounded to 12 places by itself.
        assert abs(whole.quantity - pieces.quantity) <= Decimal("1e-12")
        assert whole.events == pieces.events


def test_what_stood_at_an_instant() -> None:
    received, voided = datetime(2026, 10, 5, tzinfo=UTC), datetime(2026, 10, 9, tzinfo=UTC)
    event = Event(OCTOBER.start, (("class", ""), ("region", "eu")), Decimal(1))
    alone = stored(event, received=received)
    taken = stored(event, received=received, taken_out=TakenOut("void", "s", "x", voided))
    second = timedelta(seconds=1)
    assert [alone.stood_at(at) for at in (received - second, received, None)] == [False, True, True]
    assert [taken.stood_at(at) for at in (received - second, received, voided - second, voided, None)] == [
        False, True, True, False, False,
    ]  # fmt: skip


def test_an_event_one_meter_refuses_still_feeds_the_others() -> None:
    good = meter_of("count")
    picky = Meter("picky", "u", "kind", "sum", "w")
    reader = MeterReader("acme", {"count": good, "picky": picky}, {("count", 0): 0, ("picky", 0): 0})
    event = stored(Event(OCTOBER.start, (("class", ""), ("region", "eu")), Decimal(1)))
    event = StoredEvent(**{**{name: getattr(event, name) for name in event.__slots__}, "data": '{"w": -1}'})
    assert [reading.meter.meter_id for reading in reader.read(event)] == ["count"]


def test_entries_are_slots_and_single_events_with_their_own_amount() -> None:
    meter = Meter("m", "u", "kind", "sum", "v", ("class",))
    wanted = [FineUsage(Grain.SLOT, "m"), FineUsage(Grain.EVENT, "m", "price")]
    count = EntryCount(OCTOBER, wanted)
    reader = MeterReader("acme", {"m": meter}, {("m", 0): 0})
    bodies = ['{"v": 1, "price": "0.25"}', '{"v": 2, "price": 0.5, "class": "hot"}', '{"v": 4, "price": [1]}']
    for place, body in enumerate(bodies):
        event = StoredEvent(
            "acme", "s", f"e{place}", "kind", "", to_microseconds(OCTOBER.start) + place * 1_000_000, body,
            OCTOBER.start, 0, place, 0,
        )  # fmt: skip
        for reading in reader.read(event):
            assert count.add(event, reading)
    slots, events = (count.entries()[one] for one in wanted)
    assert [(one.quantity, one.dimensions, one.events) for one in slots] == [
        (Decimal(5), (), 2), (Decimal(2), (("class", "hot"),), 1),
    ]  # fmt: skip
    assert [(one.quantity, one.amount) for one in events] == [
        (Decimal(1), Decimal("0.25")), (Decimal(2), Decimal("0.5")), (Decimal(4), None),
    ]  # fmt: skip
