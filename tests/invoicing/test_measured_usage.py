"""What does not add up is measured alike for the running cost, the invoice and whoever asks: against the oracle."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import uuid4

import pytest

from core.calendar import Calendar
from core.meters import Meter
from core.period import Period
from invoicing.adapters.clickhouse import ClickHouseUsage
from metering.adapters.clickhouse_usage import ClickHouseUsageStore
from metering.domain.usage_query import UsageQuery
from metering.query_usage import query_usage
from rating.adapters.clickhouse import ClickHouseRating
from rating.domain.usage import UsageTotals
from runtime.clickhouse import INSERT_SETTINGS, connect_clickhouse
from runtime.settings import Settings
from streams.domain.warehouse_rows import COLUMNS
from tests.metering.usage_oracle import Event, Question, answer
from tests.rating.plans import OCTOBER

pytestmark = pytest.mark.integration
DIMENSIONS = ("class", "region")
AGGREGATIONS = ("average", "unique", "max", "min", "latest", "time_weighted")
# A contract from the 11th: the window is part of the month, by whose length levels are weighed all the same.
WINDOW = Period(OCTOBER.start + timedelta(days=10), OCTOBER.end)


class Desk:
    def __init__(self, settings: Settings) -> None:
        self.tenant = f"measured-{uuid4().hex[:10]}"
        self.client = connect_clickhouse(settings)
        self.invoicing, self.rating = ClickHouseUsage(settings), ClickHouseRating(settings)
        self.asking = ClickHouseUsageStore(settings)

    async def close(self) -> None:
        self.client.close()
        for store in (self.invoicing, self.rating, self.asking):
            await store.close()

    def put(self, meter: Meter, events: list[Event], *, removed: int = 0, version: int = 1) -> None:
        table = "usage_rollups" if meter.is_additive else "usage_samples"
        rows: list[list[Any]] = [
            [self.tenant, meter.meter_id, dict(event.dims), event.at.replace(second=0, microsecond=0), 0, event.place,
             event.value, 1, version]
            if meter.is_additive
            else [self.tenant, meter.meter_id, dict(event.dims), event.at, 0, event.place, 0, event.value, event.text,
                  removed, version]
            for event in events
        ]  # fmt: skip
        self.client.insert(table, rows, column_names=COLUMNS[table], settings=INSERT_SETTINGS)

    async def asked(self, meter: Meter, group_by: tuple[str, ...]) -> dict[tuple[str, ...], Decimal]:
        query = UsageQuery(
            self.tenant, meter, "total", WINDOW, Calendar(), group_by, limit=10_000, weight_period=OCTOBER
        )
        page = await query_usage(query, store=self.asking, now=OCTOBER.end)
        return {row.group: row.quantity for row in page.rows}


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    desk = Desk(settings)
    yield desk
    await desk.close()


def meter_of(aggregation: str, weight: Any = None) -> Meter:
    return Meter(aggregation, "u", "t", cast(Any, aggregation), "v", DIMENSIONS, weight_per=weight)


def events_of(seed: int) -> list[Event]:
    dice = random.Random(seed)
    return [
        Event(
            OCTOBER.start + timedelta(microseconds=dice.randrange(-10 * 86_400_000_000, 40 * 86_400_000_000)),
            (("class", dice.choice(("hot", "cold"))), ("region", dice.choice(("eu", "us", "")))),
            Decimal(dice.randrange(10**15)).scaleb(-12),
            dice.choice("abcdef"),
            place,
        )
        for place in range(60)
    ]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
async def test_the_invoice_the_running_cost_and_the_answer_say_what_the_oracle_says(
    desk: Desk, aggregation: str
) -> None:
    meter = meter_of(aggregation, "month" if aggregation == "time_weighted" else None)
    events = events_of(AGGREGATIONS.index(aggregation))
    gone, kept = events[:10], events[10:]
    if meter.is_additive:
        kept = events
    else:
        desk.put(meter, gone)
        desk.put(meter, gone, removed=1, version=2)
    desk.put(meter, kept)
    meters = {meter.meter_id: meter}
    evidence = await desk.invoicing.usage(desk.tenant, WINDOW, meters=meters, month=OCTOBER)
    running = await desk.rating.usage([desk.tenant], WINDOW, meters=meters, month=OCTOBER, until=OCTOBER.end)
    for split in ((), ("class",), ("region",)):
        question = Question(aggregation, "total", WINDOW.start, WINDOW.end, group_by=split, weight_per="month")
        expected = {group: quantity for _, _, group, quantity, _ in answer(question, kept)}
        assert await desk.asked(meter, split) == expected
        for rows in (evidence.totals(), running[desk.tenant]):
            found = UsageTotals(rows).of_meter(meter.meter_id, split)
            assert {
                tuple(dict(dims).get(name, "") for name in split): quantity for dims, quantity in found.items()
            } == expected
    assert evidence.measured_total(meter.meter_id, ()) is not None


async def test_the_digest_names_the_samples(desk: Desk) -> None:
    meter = meter_of("max")
    events = events_of(1)
    desk.put(meter, events)

    async def digest() -> tuple[str, Decimal]:
        evidence = await desk.invoicing.usage(desk.tenant, OCTOBER, meters={"max": meter}, month=OCTOBER)
        total = evidence.measured_total("max", ())
        assert total is not None
        return evidence.digest, total.quantity

    before = await digest()
    desk.put(meter, events, version=2)
    assert await digest() == before, "written again, they are the same samples"
    smallest = min((event for event in events if event.at in OCTOBER), key=lambda event: event.value)
    desk.put(meter, [replace(smallest, value=smallest.value / 2)], version=3)
    after = await digest()
    assert after[0] != before[0]
    assert after[1] == before[1], "the largest is the same, of other samples"


async def test_a_level_counts_until_now_and_no_further(desk: Desk) -> None:
    meter = meter_of("time_weighted", "hour")
    start = datetime(2026, 10, 1, tzinfo=UTC)
    desk.put(meter, [Event(start - timedelta(days=400), (("class", "hot"), ("region", "")), Decimal(3))])
    meters = {meter.meter_id: meter}
    for hours, expected in ((2, Decimal(6)), (0, None), (10_000, Decimal(3 * 24 * 31))):
        until = start + timedelta(hours=hours)
        rows = await desk.rating.usage([desk.tenant], OCTOBER, meters=meters, month=OCTOBER, until=until)
        found = [row.quantity for row in rows.get(desk.tenant, []) if row.grouped_by == ()]
        assert found == ([] if expected is None else [expected])
