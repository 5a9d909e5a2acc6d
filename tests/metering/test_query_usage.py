"""Any question about usage, on the real engine, against an oracle that walks quarter hours and shares no code."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, note
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.calendar import Calendar
from core.meters import AGGREGATIONS, Meter
from core.period import Period
from metering.adapters.clickhouse_usage import ClickHouseUsageStore
from metering.domain.usage_query import UsageQuery
from metering.domain.windows import WINDOW_SIZES, WindowSize
from metering.query_usage import query_usage
from runtime.clickhouse import INSERT_SETTINGS, connect_clickhouse
from runtime.settings import Settings
from streams.domain.warehouse_rows import COLUMNS
from tests.metering.usage_oracle import Event, Question, Row, answer

pytestmark = pytest.mark.integration
_numbers = itertools.count()
DIMENSIONS = ("region", "class")
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "Asia/Kolkata", "Australia/Lord_Howe",
)  # fmt: skip
# Days around which clocks move in one of them, and the end of February.
CENTRES = tuple(
    datetime.fromisoformat(f"{day}T00:00:00Z") for day in ("2026-10-25", "2026-04-04", "2026-03-29", "2026-02-28")
)


EXAMPLES = 12


class Engine:
    """ClickHouse with a tenant of its own for each question."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = connect_clickhouse(settings)

    def close(self) -> None:
        self._client.close()

    def put(self, tenant: str, aggregation: str, events: list[Event], gone: list[Event]) -> None:
        if aggregation in ("sum", "count", "average"):
            # In two inserts, for the engine merges within one.
            self._insert("usage_rollups", list(_rollups(tenant, aggregation, events, 1)))
            self._insert("usage_rollups", list(_rollups(tenant, aggregation, events, 2)))
        else:
            self._insert("usage_samples", [*_samples(tenant, events, 0, 2), *_samples(tenant, gone, 0, 1)])
            self._insert("usage_samples", [*_samples(tenant, gone, 1, 2), *_samples("other", events, 0, 2)])

    def _insert(self, table: str, rows: list[list[Any]]) -> None:
        if rows:
            self._client.insert(table, rows, column_names=COLUMNS[table], settings=INSERT_SETTINGS)

    def ask(self, query: UsageQuery, now: datetime) -> list[Row]:
        return asyncio.run(self._all_pages(query, now))

    async def _all_pages(self, query: UsageQuery, now: datetime) -> list[Row]:
        store, rows, after = ClickHouseUsageStore(self._settings), list[Row](), None
        try:
            while True:
                page = await query_usage(replace(query, after=after), store=store, now=now)
                rows += [(r.window.start, r.window.end, r.group, r.quantity, r.events) for r in page.rows]
                assert len(page.rows) <= query.limit
                if page.next is None:
                    return rows
                assert len(page.rows) == query.limit
                after = page.next
        finally:
            await store.close()


def _rollups(tenant: str, aggregation: str, events: list[Event], version: int) -> Iterator[list[Any]]:
    """Each event in a segment of its own; version 1 is wrong, and another tenant's and meter's never count."""
    for number, event in enumerate(events):
        value = Decimal(1) if aggregation == "count" else event.value
        minute = event.at.replace(second=0, microsecond=0)
        quantity = value + 5 if version == 1 else value
        for owner, meter in ((tenant, "m"), ("other", "m"), (tenant, "other")):
            yield [owner, meter, dict(event.dims), minute, number % 2, number, quantity, 1, version]


def _samples(tenant: str, events: list[Event], removed: int, version: int) -> list[list[Any]]:
    return [
        [tenant, "m", dict(event.dims), event.at, 0, event.place, 0, event.value, event.text, removed, version]
        for event in events
    ]


@pytest.fixture(scope="module")
def engine(settings: Settings) -> Iterator[Engine]:
    engine = Engine(settings)
    yield engine
    engine.close()


values = st.one_of(
    st.integers(0, 3).map(Decimal),
    st.integers(0, 10**27 - 1).map(lambda scaled: Decimal(scaled).scaleb(-12)),
)
dims = st.tuples(st.sampled_from(("eu", "us", "")), st.sampled_from(("hot", "größer"))).map(
    lambda found: tuple(zip(DIMENSIONS, found, strict=True))
)


@st.composite
def scenes(draw: st.DrawFn, aggregation: str) -> tuple[Question, tuple[str, ...], list[Event], list[Event], int]:
    window = draw(st.sampled_from(WINDOW_SIZES))
    zone, centre = draw(st.sampled_from(ZONES)), draw(st.sampled_from(CENTRES))
    reach = {"minute": 90, "hour": 60 * 40, "day": 1_440 * 10}.get(window, 1_440 * 70)
    # Near local midnight of the day on which the clocks may move.
    centre = centre.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    start = centre + timedelta(minutes=draw(st.integers(-reach, reach)))
    end = start + timedelta(minutes=draw(st.integers(1, reach)))
    spread = st.integers(-reach * 60_000_000, 2 * reach * 60_000_000)
    edges = st.sampled_from((0, -1, int((end - start) / timedelta(microseconds=1)), 60_000_000))
    moments = draw(st.lists(st.one_of(spread, edges), min_size=draw(st.sampled_from((0, 8))), max_size=25))
    events = [
        Event(start + timedelta(microseconds=at), draw(dims), draw(values), draw(st.sampled_from("abc")), place)
        for place, at in enumerate(moments)
    ]
    is_sampled = aggregation not in ("sum", "count", "average")
    gone = [event for event in events if is_sampled and draw(st.integers(0, 5)) == 0]
    group_by = draw(st.sampled_from(((), ("region",), ("class", "region"))))
    now = start + timedelta(microseconds=draw(spread)) if draw(st.booleans()) else end + timedelta(days=1)
    question = Question(
        aggregation, window, start, end, zone, draw(st.integers(1, 31)), group_by,
        draw(st.sampled_from(("second", "hour", "month"))), now,
    )  # fmt: skip
    regions = draw(st.sampled_from(((), ("eu",), ("us", ""))))
    kept = [event for event in events if event not in gone]
    return question, regions, kept, gone, draw(st.sampled_from((1, 3, 10_000)))


def ask(question: Question, tenant: str, regions: tuple[str, ...], limit: int) -> UsageQuery:
    weight = question.weight_per if question.aggregation == "time_weighted" else None
    meter = Meter("m", "u", "t", cast(Any, question.aggregation), "v", DIMENSIONS, weight_per=cast(Any, weight))
    return UsageQuery(
        tenant,
        meter,
        cast(WindowSize, question.window),
        Period(question.start, question.end),
        Calendar(question.zone, question.anchor),
        question.group_by,
        (("region", regions),) if regions else (),
        limit,
    )


@pytest.mark.parametrize("aggregation", ["latest", "time_weighted"])
def test_of_two_at_one_instant_the_later_record_counts(engine: Engine, aggregation: str) -> None:
    start, tenant, eu = CENTRES[0], f"query-{next(_numbers)}", (("region", "eu"), ("class", "hot"))
    events = [Event(start, eu, Decimal(value), "", place) for place, value in enumerate((1, 9, 4))]
    engine.put(tenant, aggregation, events, [])
    question = Question(aggregation, "total", start, start + timedelta(hours=2), weight_per="hour")
    [row] = engine.ask(ask(question, tenant, (), 10), question.now)
    assert row[3] == (Decimal(8) if aggregation == "time_weighted" else Decimal(4))  # 4 x 2 h


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@given(data=st.data())
@hypothesis_settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_the_oracles(engine: Engine, aggregation: str, data: st.DataObject) -> None:
    question, regions, events, gone, limit = data.draw(scenes(aggregation))
    tenant = f"query-{next(_numbers)}"
    engine.put(tenant, question.aggregation, events, gone)
    counted = [event for event in events if not regions or dict(event.dims)["region"] in regions]
    expected = answer(question, counted)
    if limit == 1 and len(expected) > 15:
        limit = len(expected) // 10
    note(f"{question} {regions} {limit}")
    assert engine.ask(ask(question, tenant, regions, limit), question.now) == expected
