"""What may be asked about usage, how windows are cut, how pages go on; and the documents."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.calendar import Calendar
from core.clock import ManualClock
from core.errors import InvalidInputError, NotFoundError
from core.meters import Meter, Registry
from core.period import Period, format_instant
from metering.domain.carried_levels import Change
from metering.domain.usage_query import Position, UsageQuery, format_cursor, read_query
from metering.domain.windows import WINDOWS_MAX, WindowSize, cut_windows
from metering.ports import Found
from metering.summarize_usage import summarize_usage
from metering.usage_desk import UsageDesk

NOW = datetime(2026, 10, 20, 12, 0, 30, tzinfo=UTC)
TOKENS = Meter("tokens", "token", "llm", "sum", "tokens", ("model", "region"))
STORED = Meter("stored", "GB-month", "disk", "time_weighted", "gb", ("class",), weight_per="month")
MEAN = Meter("mean", "ms", "latency", "average", "ms")
REGISTRY = Registry.of(["acme", "berlin"], [TOKENS, STORED, MEAN], {"berlin": Calendar("Europe/Berlin", 15)})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def read(**asked: Any) -> UsageQuery:
    return read_query(REGISTRY, now=NOW, **{"tenant": "acme", "meter": "tokens", **asked})


def test_without_a_span_it_is_the_tenants_month_so_far() -> None:
    assert read().span == Period(at("2026-10-01"), at("2026-10-20T12:01"))
    # Berlin is two hours ahead in October
    assert read(tenant="berlin").span == Period(at("2026-09-30T22:00"), at("2026-10-20T12:01"))


def test_a_day_is_the_tenants_own_midnight_and_an_instant_is_itself() -> None:
    span = read(tenant="berlin", start="2026-10-25", end="2026-10-26").span
    assert span == Period(at("2026-10-24T22:00"), at("2026-10-25T23:00"))  # 25 hours
    span = read(start="2026-10-25T00:00:00+05:30", end="2026-10-25T00:00Z").span
    assert span == Period(at("2026-10-24T18:30"), at("2026-10-25"))


def test_filters_of_one_dimension_allow_each_and_a_value_may_hold_a_colon_or_be_empty() -> None:
    query = read(filters=["model:a", "region:", "model:b:c"], group_by=["region"])
    assert query.filters == (("model", ("a", "b:c")), ("region", ("",)))
    assert query.group_by == ("region",)


@pytest.mark.parametrize(
    ("asked", "codes"),
    [
        ({"window": "week"}, ["unknown_window"]),
        ({"start": "yesterday"}, ["invalid_time"]),
        ({"start": "2026-10-01T00:00:00"}, ["invalid_time"]),
        ({"start": "2026-13-01", "end": "2026-02-30"}, ["invalid_time", "invalid_time"]),
        ({"start": "2026-10-01T00:00:30Z"}, ["not_on_minute"]),
        ({"start": "1999-12-31"}, ["time_out_of_bounds"]),
        ({"end": "2100-01-02"}, ["time_out_of_bounds"]),
        ({"start": "0001-01-01T00:00:00+14:00"}, ["time_out_of_bounds"]),
        ({"start": "2026-10-01", "end": "2026-10-01"}, ["invalid_range"]),
        ({"group_by": ["colour"]}, ["unknown_dimension"]),
        ({"group_by": ["model", "model"]}, ["duplicate_dimension"]),
        ({"filters": ["model"]}, ["invalid_filter"]),
        ({"filters": ["colour:red"]}, ["unknown_dimension"]),
        ({"filters": ["model:x"] * 201}, ["too_many_values"]),
        ({"limit": 0}, ["invalid_limit"]),
        ({"limit": 10_001}, ["invalid_limit"]),
        ({"cursor": "%%%"}, ["invalid_cursor"]),
        ({"cursor": "größer"}, ["invalid_cursor"]),
        ({"cursor": format_cursor(Position(1, ("a",)))}, ["invalid_cursor"]),
        ({"window": "week", "start": "x", "group_by": ["y"]}, ["unknown_window", "invalid_time", "unknown_dimension"]),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_with_all_its_faults(asked: dict[str, Any], codes: list[str]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read(**asked)
    assert [fault.code for fault in refused.value.faults] == codes


@pytest.mark.parametrize("asked", [{"tenant": "nobody"}, {"meter": "nothing"}])
def test_a_stranger_is_not_found(asked: dict[str, str]) -> None:
    with pytest.raises(NotFoundError):
        read(**asked)


@given(st.integers(0, 2**32 - 1), st.lists(st.text(max_size=9), min_size=2, max_size=2))
def test_a_cursor_comes_back_as_it_was(start: int, group: list[str]) -> None:
    position = Position(start, tuple(group))
    assert read(group_by=["model", "region"], cursor=format_cursor(position)).after == position


def codes_of(asked: dict[str, Any]) -> set[str]:
    try:
        read(**asked)
    except InvalidInputError as refused:
        return {fault.code for fault in refused.faults}
    return set()


@given(st.text(max_size=40))
def test_no_text_is_a_crash_as_a_cursor_or_a_time(text: str) -> None:
    known = {"invalid_cursor", "invalid_time", "time_out_of_bounds", "not_on_minute", "invalid_range",
             "invalid_filter", "unknown_dimension"}  # fmt: skip
    for asked in ({"cursor": text}, {"start": text}, {"filters": [text]}):
        assert codes_of(asked) <= known


def windows(size: WindowSize, start: str, end: str, zone: str, anchor: int = 1) -> list[str]:
    found = cut_windows(size, Period(at(start), at(end)), Calendar(zone, anchor))
    assert all(first.end == second.start for first, second in itertools.pairwise(found))
    return [format_instant(window.start) for window in found] + [format_instant(found[-1].end)]


def test_days_and_hours_follow_the_local_clock_over_its_moves() -> None:
    assert windows("day", "2026-10-24T12:00", "2026-10-26T12:00", "Europe/Berlin") == [
        "2026-10-24T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", "2026-10-26T12:00:00Z"
    ]  # fmt: skip
    assert windows("hour", "2026-10-25T00:30", "2026-10-25T03:00", "Europe/Berlin")[1:3] == [
        "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"
    ]  # fmt: skip
    # Lord Howe Island: at 15:00 UTC the clock goes from 02:00 back to 01:30, so that hour has 90 minutes.
    assert windows("hour", "2026-04-04T13:00", "2026-04-04T17:00", "Australia/Lord_Howe") == [
        "2026-04-04T13:00:00Z", "2026-04-04T14:00:00Z", "2026-04-04T15:30:00Z", "2026-04-04T16:30:00Z",
        "2026-04-04T17:00:00Z",
    ]  # fmt: skip
    # Samoa left the 30th of December 2011 out.
    assert windows("day", "2011-12-29T10:00", "2011-12-31T10:00", "Pacific/Apia")[1:3] == [
        "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"
    ]  # fmt: skip


def test_billing_periods_begin_on_the_anchor_or_the_months_last_day() -> None:
    assert windows("billing_period", "2026-01-31", "2026-04-30", "UTC", 31) == [
        "2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z", "2026-04-30T00:00:00Z"
    ]  # fmt: skip


def test_too_many_windows_are_refused_before_they_are_cut() -> None:
    start = at("2026-01-01")
    fits = Period(start, start + timedelta(minutes=WINDOWS_MAX))
    assert len(cut_windows("minute", fits, Calendar())) == WINDOWS_MAX
    one_more = {"minute": timedelta(minutes=WINDOWS_MAX + 1), "hour": timedelta(hours=WINDOWS_MAX, minutes=1)}
    for size, span in one_more.items():
        with pytest.raises(InvalidInputError) as refused:
            cut_windows(cast(WindowSize, size), Period(start, start + span), Calendar())
        assert refused.value.faults[0].code == "too_many_windows"


class MemoryStore:
    """Answers with what it is given, by meter."""

    def __init__(self, found: dict[str, list[Any]]) -> None:
        self.found = found

    async def added_up(self, query: UsageQuery, starts: Any, limit: int) -> list[Found]:
        return self.found.get(query.meter.meter_id, [])

    sampled = added_up

    async def level_changes(self, query: UsageQuery, starts: Any, until_us: int, limit: int) -> list[Change]:
        return self.found.get(query.meter.meter_id, [])


async def test_a_page_as_a_document_has_its_quantities_in_plain_digits() -> None:
    start = int(at("2026-10-01").timestamp())
    store = MemoryStore({"tokens": [(start, ("gpt4",), Decimal("1E+3"), 2), (start, ("x",), Decimal("0.500"), 1)]})
    desk = UsageDesk(store, ManualClock(NOW))
    page = await desk.query(REGISTRY, tenant="acme", meter="tokens", group_by=["model"], limit=1)
    assert page == {
        "tenant_id": "acme",
        "meter": "tokens",
        "unit": "token",
        "aggregation": "sum",
        "window": "total",
        "time_zone": "UTC",
        "group_by": ["model"],
        "data": [
            {
                "start": "2026-10-01T00:00:00Z",
                "end": "2026-10-20T12:01:00Z",
                "dimensions": {"model": "gpt4"},
                "quantity": "1000",
                "events": 2,
            }
        ],
        "next_cursor": format_cursor(Position(start, ("gpt4",))),
    }


async def test_a_summary_weighs_a_level_by_the_period_it_is_of() -> None:
    # 10 GB since long ago: the billing period from 15 September to 15 October holds 10 GB-months.
    changes = [Change(0, (), 10 * 10**12, 0, 0)]
    store = MemoryStore({"stored": changes, "mean": [(int(at("2026-09-14T22:00").timestamp()), (), Decimal(10), 3)]})
    summary = await summarize_usage(REGISTRY, tenant="berlin", period="2026-09-15", store=store, now=NOW)
    assert [(query.meter.meter_id, row.quantity) for query, row in summary.totals] == [
        ("stored", Decimal(10)),
        ("mean", Decimal("3.333333333333")),  # 10 / 3
    ]
    present = await summarize_usage(REGISTRY, tenant="berlin", period=None, store=MemoryStore({}), now=NOW)
    assert present.name == "2026-10-15"
    with pytest.raises(InvalidInputError):
        await summarize_usage(REGISTRY, tenant="berlin", period="2026-10-14", store=store, now=NOW)
    with pytest.raises(NotFoundError):
        await summarize_usage(REGISTRY, tenant="nobody", period=None, store=store, now=NOW)
