"""Measuring raw events a second time, in SQL and row by row, comes to what the stream measured, to the last digit."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from core.corrections import ANY_AGE
from core.meters import Filter, Meter, Registry
from core.quantity import unscale
from core.usage_event import UsageEvent, parse_event
from metering.reconcile.adapters.clickhouse_views import ClickHouseViews
from metering.reconcile.domain.event_count import count_events
from metering.reconcile.domain.gap import Cell, Key, Side
from metering.reconcile.domain.measure_sql import measure_queries, quoted
from metering.reconcile.domain.raw_measure import measure
from runtime.settings import Settings
from tests.streams.observed import clickhouse

START = datetime(2026, 3, 1, tzinfo=UTC)
TYPE = "again.llm"
METERS = (
    Meter("again_sum", "token", TYPE, "sum", "tokens", ("model", "region")),
    Meter("again_count", "call", TYPE, "count", None, ("model",)),
    Meter("again_average", "ms", TYPE, "average", "x.y ms"),
    Meter("again_unique", "user", TYPE, "unique", "user", ("region",)),
    Meter("again_max", "token", TYPE, "max", "tokens"),
    Meter(
        "again_filtered",
        "token",
        TYPE,
        "sum",
        "tokens",
        (),
        (Filter("region", "in", ("eu", "it's", "true")), Filter("tokens", "gte", ("10.5",))),
    ),
    Meter("again_missing", "call", TYPE, "count", None, (), (Filter("user", "missing"), Filter("model", "ne", ("a",)))),
    Meter(
        "again_exists", "call", TYPE, "count", None, (), (Filter("x.y ms", "exists"), Filter("user", "not_in", ("7",)))
    ),
    Meter("again_small", "call", TYPE, "count", None, (), (Filter("tokens", "lt", ("1e3",)),)),
)
NUMBERS = [
    "0", "7", "123456789012", "0.1", "123456789012.123456789012", "1e3", "1.5E-3", "0.100000000000000000", "-0",
    '"0.25"', '"12"', '" 3 "', '"1_000"', '"1e2"', '".5"', "999999999999999.999999999999", "1E+2", "1.50", "0.0000001",
    "10.5", "10.499999999999",
]  # fmt: skip
TEXTS = [
    '"eu"', '"a"', '"it\'s"', '"größer"', '"gr\\u00f6\\u00dfer"', '"a\\\\b"', '"say \\"tokens\\": 5"', "true", "false",
    "null", "7", "1.5", "-3", '""', '"tokens"',
]  # fmt: skip


def make_data(rng: random.Random) -> str:
    """Return an event's data as a producer might write them, spaces, escapes, repeated and nested names included."""

    def space() -> str:
        return rng.choice(["", "", " ", "\n\t"])

    pairs = []
    for name, values in (
        ("tokens", NUMBERS),
        ("model", TEXTS),
        ("region", TEXTS),
        ("user", TEXTS),
        ("x.y ms", NUMBERS),
    ):
        if rng.random() < 0.85:
            written = name if rng.random() < 0.95 else f"\\u{ord(name[0]):04x}{name[1:]}"
            pairs.append(f'"{written}"{space()}:{space()}{rng.choice(values)}')
            if rng.random() < 0.05:
                pairs.append(f'"{name}":{rng.choice(values)}')
    if rng.random() < 0.15:
        pairs.append(f'"nested": {{"tokens": {rng.choice(NUMBERS)}, "user": null}}')
    rng.shuffle(pairs)
    return "{" + f",{space()}".join(pairs) + "}"


def read(data: str, time: datetime, registry: Registry) -> UsageEvent | None:
    head = {"specversion": "1.0", "id": "1", "source": "s", "type": TYPE, "subject": "t", "time": time.isoformat()}
    raw = json.dumps(head)[:-1] + f', "data": {data}}}'
    event = parse_event(raw.encode(), registry, ANY_AGE, int(time.timestamp() * 1e6))
    return event if isinstance(event, UsageEvent) else None


@pytest.fixture
async def views(settings: Settings) -> AsyncIterator[ClickHouseViews]:
    views = ClickHouseViews(settings)
    yield views
    await views.close()


def expected_of(event: UsageEvent) -> dict[tuple[str, tuple[str, ...]], Decimal]:
    found = {(meter, values): unscale(quantity) for meter, values, quantity in event.measures}
    for meter, values, value in event.samples:
        is_text = meter == "again_unique"
        found[meter, values] = Decimal(zlib.crc32(value.encode())) if is_text else unscale(int(value))
    return found


@pytest.mark.integration
async def test_both_ways_come_to_the_same(settings: Settings, views: ClickHouseViews) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    rng, tenant, registry = random.Random(seed), f"again'{uuid4().hex[:8]}", Registry.of(["t"], METERS)
    made: dict[Cell, str] = {}
    expected: dict[Key, Side] = {}
    while len(made) < 600:
        hour = START + timedelta(hours=len(made))
        data = make_data(rng)
        event = read(data, hour, registry)
        if event is None:
            continue
        cell = Cell(tenant, int(hour.timestamp()))
        made[cell] = data
        for (meter, values), quantity in expected_of(event).items():
            expected[Key(cell, meter, values)] = Side(quantity, 1)
            assert measure(registry.by_id[meter], data) == (values, quantity), data
        for meter in METERS:
            if meter.meter_id not in {key.meter for key in expected if key.cell == cell}:
                assert measure(meter, data) is None, data
    store(settings, made)
    found: dict[Key, Side] = {}
    for meter in METERS:
        found |= await views.measured(meter, list(made), as_if_always=True)
    wrong = {key: (made[key.cell], expected.get(key), found.get(key)) for key in {*expected, *found}
             if expected.get(key) != found.get(key)}  # fmt: skip
    assert not wrong, list(wrong.items())[:3]
    others = sum(
        len(clickhouse(settings.clickhouse).query(measure_queries(meter, list(made), None, 10**6).others).result_rows)
        for meter in METERS
    )
    assert others < 0.6 * len(METERS) * len(made), "SQL itself reads a good part even of this"


def store(settings: Settings, made: dict[Cell, str], **changes: Any) -> None:
    columns = ("tenant", "source", "id", "type", "time", "data", "source_partition", "source_offset", "version")
    rows = [
        [
            changes.get("tenant", cell.tenant), "s", f"{changes.get('id', 'e')}{number}", changes.get("type", TYPE),
            datetime.fromtimestamp(cell.hour, UTC), data, 3, changes.get("offset", number), 2**62 - number,
        ]
        for number, (cell, data) in enumerate(made.items())
    ]  # fmt: skip
    client = clickhouse(settings.clickhouse)
    client.insert("usage_events", rows, column_names=columns)
    client.close()


@pytest.mark.integration
async def test_voids_and_what_was_corrected_and_what_came_before_a_meter_are_not_counted(
    settings: Settings, views: ClickHouseViews
) -> None:
    tenant, meter = f"again-{uuid4().hex[:8]}", Meter(f"again-{uuid4().hex[:8]}", "call", TYPE, "count", None)
    cell = Cell(tenant, int(START.timestamp()))
    store(settings, {cell: "{}"}, id="live", offset=10)
    store(settings, {cell: "{}"}, id="taken-out", offset=11)
    store(settings, {cell: "{}"}, id="void", offset=12, type="meterbook.usage.void")
    store(settings, {cell: "{}"}, id="before", offset=9)
    client = clickhouse(settings.clickhouse)
    for target, kind in (("taken-out0", "void"), ("live0", "backfill")):
        client.command(
            "INSERT INTO usage_corrections (tenant, target_source, target_id, kind, source, id, source_partition)"
            f" VALUES ('{tenant}', 's', '{target}', '{kind}', 's', 'c', 3)"
        )
    assert await views.measured(meter, [cell]) == {}, "no partition counts this meter"
    client.command(f"INSERT INTO meter_activations VALUES ('{meter.meter_id}', 3, 10, 1)")
    key = Key(cell, meter.meter_id, ())
    assert await views.measured(meter, [cell]) == {key: Side(Decimal(1), 1)}
    assert await views.measured(meter, [cell], as_if_always=True) == {key: Side(Decimal(2), 2)}
    assert meter.meter_id in await views.later_activated()
    client.command(f"INSERT INTO meter_activations VALUES ('{meter.meter_id}', 3, 0, 2)")
    assert await views.measured(meter, [cell]) == {key: Side(Decimal(2), 2)}
    assert meter.meter_id not in await views.later_activated()
    assert await views.unsettled([cell], {3: 13}) == set()
    assert await views.unsettled([cell], {3: 12}) == {cell}
    client.close()


def test_a_text_is_a_literal_whatever_it_holds():
    assert quoted("it's \\ a") == "'it\\'s \\\\ a'"


def event(**changes: Any) -> bytes:
    return json.dumps({"type": "t", "data": {}, **changes}).encode()


BACKFILL = event(type="meterbook.usage.backfill", data={"events": [{"id": "1"}, {"id": "2"}, {"id": "3"}]})


@pytest.mark.parametrize(
    ("value", "refused", "events"),
    [
        (None, [(7, -1)], 1),
        (b"", [(7, -1)], 1),
        (event(), [], 1),
        (b" [%b, %b]" % (event(), event()), [(7, 1)], 2),
        (b"[]", [], 0),
        (b"[1, 2, 3", [(7, -1)], 1),
        (b"[1, 2, 3]", [(7, -1)], 1),
        (b"[1, 2, 3", [], 1),
        (BACKFILL, [], 3),
        (BACKFILL, [(7, 1)], 3),
        (BACKFILL, [(7, -1)], 1),
        (BACKFILL.replace(b"meterbook", b"\\u006deterbook"), [], 3),
        (event(data={"events": [1, 2], "note": "backfill"}), [], 1),
    ],
)
def test_events_of_a_record_are_counted(value: bytes | None, refused: list[tuple[int, int]], events: int):
    assert count_events(7, value, frozenset(refused)) == events
