"""A meter that was added later and filled is the meter that had been there all along: counted twice, never doubled."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from hypothesis import given
from hypothesis import strategies as st

from core.calendar import Calendar
from core.corrections import MeterBackfill, read_reserved
from core.meters import Filter, Meter, Registry
from core.period import Period
from core.usage_event import IngestLimits, ReservedEvent, parse_event
from metering import backfill_meter as module
from metering.adapters import kafka_parts
from metering.adapters.clickhouse_raw_events import ClickHouseRawEvents
from metering.adapters.clickhouse_usage import ClickHouseUsageStore
from metering.adapters.kafka_parts import KafkaPartSender
from metering.backfill_meter import MeterNotCountedError, WarehouseBehindError, backfill_meter, missed_corrections
from metering.domain.meter_parts import MEASURES_PER_PART, Measured, Part, RawEvent, cut_parts, measure
from metering.domain.usage_query import UsageQuery
from metering.query_usage import query_usage
from runtime.clickhouse import INSERT_SETTINGS, connect_clickhouse
from runtime.settings import Settings
from streams.domain.meter_partition import MeterPartition
from streams.domain.warehouse_rows import COLUMNS, event_rows, journal_rows, source_range
from tests.streams.in_memory import Record, count, log_of, partition_in_memory

NOW = datetime(2026, 10, 31, 12, tzinfo=UTC)
DIMENSIONS = ("model",)


def raw(tenant: str, number: int, data: dict[str, Any], *, minute: int = 0, customer: str = "") -> RawEvent:
    time = f"2026-10-01T00:{minute:02}:30.5Z"
    return RawEvent(tenant, "s", f"e{number}", "llm", customer, time, data, number, 0)


def parts_of(meter: Meter, events: list[RawEvent], max_bytes: int = 65_536) -> tuple[list[MeterBackfill], Measured]:
    """Return the parts as the meter worker reads them."""
    measured = Measured()
    measures = measure(iter(events), meter, measured)
    parts = list(cut_parts(measures, meter.meter_id, 3, 99, time="2026-10-31T12:00:00Z", max_bytes=max_bytes))
    registry = Registry.of({event.tenant for event in events}, [meter])
    read = []
    for part in parts:
        assert len(part.value) <= max_bytes
        event = parse_event(part.value, registry, IngestLimits(max_bytes=max_bytes), int(NOW.timestamp() * 1e6))
        assert isinstance(event, ReservedEvent), event
        found = read_reserved(event, registry, 0)
        assert isinstance(found, MeterBackfill), found
        assert (found.tenant, found.meter, found.before) == (part.tenant, meter.meter_id, 99)
        read.append(found)
    return read, measured


data = st.fixed_dictionaries(
    {"v": st.one_of(st.integers(0, 10**14), st.decimals(0, 10**9, places=12), st.just("0.1"), st.just(-1))},
    optional={"model": st.sampled_from(("a", "größer", ""))},
)
happenings = st.lists(st.tuples(st.sampled_from("abc"), data, st.integers(0, 3)), max_size=40)


@given(happenings, st.sampled_from(("sum", "count", "average", "unique", "max", "time_weighted")))
def test_parts_hold_exactly_what_the_events_count(found: list[Any], aggregation: Any) -> None:
    meter = Meter("m", "u", "llm", aggregation, None if aggregation == "count" else "v", DIMENSIONS)
    events = [raw(tenant, n, body, minute=minute) for n, (tenant, body, minute) in enumerate(sorted(found, key=str))]
    parts, measured = parts_of(meter, events, max_bytes=1_200)
    assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True] * bool(parts)
    assert [part.id for part in parts] == [f"backfill-m-3-{number}" for number in range(len(parts))]
    good = [event for event in events if event.data["v"] != -1 or aggregation in ("unique", "count")]
    assert measured.events == len(good)
    assert measured.refused == Counter({"negative_quantity": len(events) - len(good)}) - Counter()
    if meter.is_additive:
        assert sum(window[3] for part in parts for window in part.windows) == len(good)
        keys = [(part.tenant, window[0], window[1]) for part in parts for window in part.windows]
        assert len(keys) == len(set(keys)), "a minute stands in one measure only"
    else:
        places = [(part.tenant, sample[3]) for part in parts for sample in part.samples]
        assert places == [(event.tenant, event.offset) for event in good]


def test_a_part_has_at_most_so_many_measures_and_one_tenant() -> None:
    meter = Meter("m", "u", "llm", "max", "v")
    events = [raw("a", number, {"v": number}) for number in range(2 * MEASURES_PER_PART + 1)] + [raw("b", 1, {"v": 1})]
    parts, _ = parts_of(meter, events)
    assert [(part.tenant, len(part.samples)) for part in parts] == [("a", 300), ("a", 300), ("a", 1), ("b", 1)]


def test_what_a_filter_passes_by_or_a_customer_used_is_as_it_was() -> None:
    meter = Meter("m", "u", "llm", "sum", "v", DIMENSIONS, (Filter("model", "eq", ("a",)),))
    events = [raw("a", 1, {"v": 1, "model": "a"}, customer="c/9"), raw("a", 2, {"v": 1, "model": "b"})]
    [part], measured = parts_of(meter, events)
    assert measured == Measured(1)
    assert part.windows == [(("a",), 1_790_812_800, 10**12, 1)]


class MemoryRaw:
    def __init__(self, activations: dict[int, int | None], events: list[RawEvent]) -> None:
        self.known, self.events = activations, events

    def activations(self, meter: Meter) -> dict[int, int | None]:
        return self.known

    def stored_up_to(self, partition: int) -> int:
        return 50

    def events_before(self, meter: Meter, partition: int, before: int, seen: int) -> Iterator[RawEvent]:
        assert seen == 50
        return iter(event for event in self.events if event.offset < before)

    def corrections_between(self, meter: Meter, partition: int, before: int, first: int, last: int) -> list[str]:
        return [f"{partition}:{before}:{first}:{last}"]


class MemorySender:
    def __init__(self, end: int = 0) -> None:
        self.sent: dict[int, list[Part]] = {}
        self.end, self.has_records = end, True

    async def end_offset(self, partition: int) -> int:
        return self.end

    async def has_record(self, partition: int, first: int, end: int) -> bool:
        assert (first, end) == (50, self.end)
        return self.has_records

    async def send(self, meter_id: str, partition: int, parts: Iterator[Part]) -> tuple[int, int | None]:
        self.sent[partition] = list(parts)
        return len(self.sent[partition]), 70 if self.sent[partition] else None


async def test_each_partition_is_filled_up_to_where_it_counts_the_meter() -> None:
    meter = Meter("m", "u", "llm", "count", None)
    source = MemoryRaw({0: 0, 1: 5, 2: 1}, [raw("a", number, {}) for number in (3, 4, 5, 6)])
    sender = MemorySender()
    filled = await backfill_meter(meter, raw=source, sender=sender, now=NOW, max_bytes=65_536)
    assert [(share.partition, share.before, share.events, share.last_offset) for share in filled] == [
        (1, 5, 2, 70), (2, 1, 0, None)
    ]  # fmt: skip
    assert await missed_corrections(meter, filled, raw=source) == ["1:5:50:70"]


async def test_nothing_is_sent_while_a_partition_does_not_count_the_meter() -> None:
    sender = MemorySender()
    source = MemoryRaw({0: 5, 1: None}, [raw("a", 1, {})])
    with pytest.raises(MeterNotCountedError, match="partitions 1 do"):
        await backfill_meter(Meter("m", "u", "llm", "count", None), raw=source, sender=sender, now=NOW, max_bytes=9_999)
    assert sender.sent == {}
    assert module.MeterNotCountedError.code == "meter_not_counted"


async def test_the_warehouse_must_have_come_to_where_the_partition_ends_but_for_markers() -> None:
    meter, source = Meter("m", "u", "llm", "count", None), MemoryRaw({1: 5}, [raw("a", 3, {})])
    sender = MemorySender(end=51)
    with pytest.raises(WarehouseBehindError):
        await backfill_meter(meter, raw=source, sender=sender, now=NOW, max_bytes=65_536, patience_seconds=0)
    assert sender.sent == {}
    sender.has_records = False
    [share] = await backfill_meter(meter, raw=source, sender=sender, now=NOW, max_bytes=65_536, patience_seconds=0)
    assert (share.seen, share.events) == (50, 1)


# On the real ClickHouse, with the meter worker's own state


class World:
    """A source partition, its state in memory, and what the warehouse makes of it."""

    def __init__(self, settings: Settings, tenant: str, kind: str) -> None:
        self.client, self._settings = connect_clickhouse(settings), settings
        self.tenant, self.kind = tenant, kind
        self.log: list[Record] = []
        self.state: MeterPartition = partition_in_memory()
        self.version = 0

    def count(self, bodies: list[bytes], registry: Registry) -> Any:
        first = len(self.log)
        records = [Record(first + n, 1_793_448_000_000 + first + n, None, body) for n, body in enumerate(bodies)]
        self.log += records
        entry = count(self.state, records, registry, log_of(self.log)).entry
        self.version += 1
        covered = source_range(0, entry)
        self._insert("usage_events", [row for record in records for row in event_rows(covered, record)])
        for table, rows in journal_rows(0, self.version, entry).items():
            self._insert(table, rows)
        end = len(self.log)
        progress = [NOW + timedelta(seconds=self.version), "warehouse", 0, end, end, 0, 0, 0, 0, NOW]
        self._insert("pipeline_progress", [progress])
        return entry

    def _insert(self, table: str, rows: list[list[Any]]) -> None:
        if rows:
            self.client.insert(table, rows, column_names=COLUMNS[table], settings=INSERT_SETTINGS)

    def usage(self, number: int, value: int, model: str, day: int) -> bytes:
        time = f"2026-10-{day:02}T10:{number % 60:02}:00Z"
        return self._event(f"e{number}", self.kind, {"v": value, "model": model}, time)

    def void(self, number: int, target: str) -> bytes:
        return self._event(f"v{number}", "meterbook.usage.void", {"corrects": {"source": "s", "id": target}})

    def amend(self, number: int, target: str, value: int, day: int) -> bytes:
        content = {"type": self.kind, "time": f"2026-10-{day:02}T11:00:00Z", "data": {"v": value, "model": "a"}}
        body = {"corrects": {"source": "s", "id": target}, "event": content}
        return self._event(f"a{number}", "meterbook.usage.amend", body)

    def _event(self, event_id: str, kind: str, body: dict[str, Any], time: str = "2026-10-31T11:00:00Z") -> bytes:
        event = {"specversion": "1.0", "id": event_id, "source": "s", "type": kind, "subject": self.tenant}
        return json.dumps({**event, "time": time, "data": body}).encode()

    async def answers(self, meters: list[Meter]) -> list[Any]:
        store = ClickHouseUsageStore(self._settings)
        try:
            return [
                [(row.window, row.group, row.quantity, row.events) for row in page.rows]
                for meter in meters
                for window in ("total", "hour")
                for page in [
                    await query_usage(
                        UsageQuery(self.tenant, meter, window, OCTOBER, Calendar(), DIMENSIONS, limit=10_000),  # type: ignore[arg-type]
                        store=store,
                        now=NOW,
                    )
                ]
            ]
        finally:
            await store.close()


OCTOBER = Period(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))


@pytest.mark.integration
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_meter_that_was_filled_is_the_meter_that_was_there_all_along(settings: Settings, seed: int) -> None:
    dice, name = random.Random(seed), uuid4().hex[:8]
    kinds = ("sum", "count", "average", "unique", "max", "min", "latest", "time_weighted")
    old = Meter(f"old-{name}", "u", f"kind-{name}", "sum", "v")
    new = [
        Meter(
            f"{kind}-{name}", "u", f"kind-{name}", kind, None if kind == "count" else "v", DIMENSIONS,
            (Filter("model", "ne", ("c",)),), "month" if kind == "time_weighted" else None,
        )  # type: ignore[arg-type]
        for kind in kinds
    ]  # fmt: skip
    late, early = World(settings, f"late-{name}", f"kind-{name}"), World(settings, f"early-{name}", f"kind-{name}")
    before = Registry.of([late.tenant, early.tenant], [old])
    after = Registry.of([late.tenant, early.tenant], [old, *new])
    drawn = [(dice.randrange(1, 50), dice.choice("abc"), dice.randrange(1, 31)) for _ in range(60)]

    def story(world: World) -> list[list[bytes]]:
        usage = [world.usage(number, *one) for number, one in enumerate(drawn)]
        corrected = [world.void(1, "e3"), world.amend(2, "e4", 17, 9), world.amend(3, "e5", 9, 3), world.void(4, "a3")]
        # Corrected before and after the meters came, and after they were filled.
        later = [world.void(5, "e6"), world.amend(6, "e7", 21, 20), world.void(7, "a2"), usage[7]]
        last = [world.void(8, "e8"), world.amend(9, "e9", 40, 2), world.void(10, "a6"), world.void(11, "e55")]
        return [usage[:30], corrected, usage[30:40], later + usage[40:], last]

    for world, first in ((early, after), (late, before)):
        for number, bodies in enumerate(story(world)[:4]):
            world.count(bodies, first if number < 2 else after)
    raw_events = ClickHouseRawEvents(late.client)
    for meter in new:
        sender = MemorySender()
        # Another world's events are of the same type and partition: there they were counted all along.
        filled = await backfill_meter(meter, raw=OneTenant(raw_events, late), sender=sender, now=NOW, max_bytes=2_000)
        [share] = filled
        assert share.before == 34, "30 events and 4 corrections came before"
        late.count([part.value for part in sender.sent[0]], after)
        again = late.count([part.value for part in sender.sent[0]], after)
        assert (again.accepted, again.duplicates, again.rejected) == (0, len(sender.sent[0]), 0)
        assert late.state.activations[meter.meter_id] == 0
    for world in (early, late):
        world.count(story(world)[4], after)
    found, expected = await late.answers(new), await early.answers(new)
    assert found == expected
    assert all(rows for rows in found)
    # e6, e7 and a2 were corrected after the meters came: those are of events before.
    between = raw_events.corrections_between(new[0], 0, 34, 44, 48)
    assert sorted(set(between)) == ["s a6", "s v5", "s v7"]


class OneTenant:
    """The raw events of one world; worlds share partition 0 of one warehouse, where each has offsets of its own."""

    def __init__(self, raw_events: ClickHouseRawEvents, world: World) -> None:
        self._raw, self._world = raw_events, world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def activations(self, meter: Meter) -> dict[int, int | None]:
        assert self._raw.activations(meter).keys() == {0}
        return {0: self._world.state.activations[meter.meter_id]}

    def stored_up_to(self, partition: int) -> int:
        return len(self._world.log)

    def events_before(self, meter: Meter, partition: int, before: int, seen: int) -> Iterator[RawEvent]:
        found = self._raw.events_before(meter, partition, before, seen)
        return iter([event for event in found if event.tenant == self._world.tenant])


@pytest.mark.integration
def test_a_partition_with_events_but_without_the_meter_is_told_apart(settings: Settings) -> None:
    name = uuid4().hex[:8]
    world = World(settings, f"t-{name}", f"kind-{name}")
    old = Meter(f"old-{name}", "u", world.kind, "sum", "v")
    world.count([world.usage(1, 5, "a", 1)], Registry.of([world.tenant], [old]))
    source = ClickHouseRawEvents(world.client)
    assert source.activations(old) == {0: 0}
    assert source.activations(Meter(f"new-{name}", "u", world.kind, "count", None)) == {0: None}
    assert source.activations(Meter(f"new-{name}", "u", "nothing", "count", None)) == {}
    assert source.stored_up_to(0) > 0
    assert source.stored_up_to(64_999) == 0


@pytest.fixture
async def topic(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"parts.{uuid4().hex[:8]}"
    monkeypatch.setattr(kafka_parts, "USAGE_EVENTS", type("Topic", (), {"name": name}))
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 2, 1)])
    await admin.close()
    return name


async def read_all(settings: Settings, topic: str, partition: int) -> list[Any]:
    where = TopicPartition(topic, partition)
    reader = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    await reader.start()
    try:
        reader.assign([where])
        end, found = (await reader.end_offsets([where]))[where], list[Any]()
        while await reader.position(where) < end:
            found += (await reader.getmany(where, timeout_ms=200)).get(where, [])
        return found
    finally:
        await reader.stop()


@pytest.mark.integration
async def test_parts_stand_on_their_partition_all_or_none(settings: Settings, topic: str) -> None:
    sender = KafkaPartSender(settings)
    parts = [Part(f"tenant-{number % 3}", b"%d" % number, 1) for number in range(450)]

    def breaking() -> Iterator[Part]:
        yield from parts
        raise RuntimeError("ClickHouse is gone")

    with pytest.raises(RuntimeError):
        await sender.send("m", 1, breaking())
    assert await read_all(settings, topic, 1) == []
    assert await sender.send("m", 1, iter([])) == (0, None)
    sent, last = await sender.send("m", 1, iter(parts))
    assert last is not None
    # The commit is answered before its marker stands on the partition.
    found: list[Any] = []
    async with asyncio.timeout(20):
        while not found:
            found = await read_all(settings, topic, 1)
    assert [(record.key.decode(), record.value) for record in found] == [(part.tenant, part.value) for part in parts]
    assert (sent, last) == (450, found[-1].offset)
    assert await read_all(settings, topic, 0) == []
    end = await sender.end_offset(1)
    assert end > last + 1, "a marker stands behind the records"
    assert await sender.has_record(1, last, end)
    assert not await sender.has_record(1, last + 1, end)
    assert not await sender.has_record(0, 0, 0)
