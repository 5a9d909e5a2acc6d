"""The stream's own processes on the real engines. What they do when killed, moved or cut off is `tests/chaos`."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runtime.settings import Settings
from runtime.stack import StackState, launcher
from tests.on_topics import read_all
from tests.streams.observed import Urls, compare, dead_letters, unread
from tests.streams.oracle import expect
from tests.streams.traffic import COMPLETION, RULES, RUN, Record, Sent, Traffic, dumps, produce
from tests.streams.worker_process import WorkerProcess

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SEED = random.SystemRandom().randrange(10**6)


@dataclass
class Pipeline:
    """The three workers and where their stores are."""

    urls: Urls
    home: Path
    folder: Path
    workers: dict[str, list[WorkerProcess]] = field(default_factory=dict)

    def start(self, name: str) -> WorkerProcess:
        worker = WorkerProcess(
            name,
            self.home,
            self.folder,
            METERBOOK_MICRO_BATCH_MS="50",
            METERBOOK_MICRO_BATCH_EVENTS="500",
            METERBOOK_REGISTRY_REFRESH_SECONDS="1",
        )
        self.workers.setdefault(name, []).append(worker)
        return worker

    def running(self, name: str) -> list[WorkerProcess]:
        return [worker for worker in self.workers.get(name, []) if worker.running]

    def the(self, name: str) -> WorkerProcess:
        """Return the running worker of a name, started if there is none."""
        running = self.running(name)
        return running[0] if running else self.start(name)

    async def caught_up(self) -> None:
        """Wait until no stage has anything left to read."""
        for name, topic in [("meter", "usage.events"), ("quota", "usage.journal"), ("warehouse", "usage.journal")]:

            async def nothing_left(name: str = name, topic: str = topic) -> bool:
                return await unread(self.urls.kafka, f"meterbook-{name}", topic) == 0

            await self.wait_for(nothing_left, f"{name} to read all of {topic}")

    async def wait_for(self, holds: Callable[[], Awaitable[bool]], what: str, seconds: float = 60) -> None:
        """Poll until `holds`; the workers' logs say why when it never does."""
        began = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not await holds():
                    await asyncio.sleep(0.1)
                print(f"{what}: {time.monotonic() - began:.1f} s")
                return
        tails = "\n\n".join(worker.tail() for workers in self.workers.values() for worker in workers[-3:])
        pytest.fail(f"waited {seconds} s in vain for {what} (seed {SEED})\n{tails}")

    def assert_unharmed(self) -> None:
        """No worker has ended that nobody ended."""
        for workers in self.workers.values():
            for worker in workers:
                assert worker.process.poll() in (None, 0, -9), worker.tail(60)


@pytest.fixture(scope="module")
def pipeline(stack: StackState, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    urls = Urls(settings.kafka_bootstrap, settings.clickhouse, settings.redis, settings.postgres)
    register(urls, [], meters=True)
    pipeline = Pipeline(urls, stack.home, tmp_path_factory.mktemp("workers"))
    print(f"seed {SEED}")
    for name in ("quota", "warehouse", "meter"):
        pipeline.start(name)
    yield pipeline
    for workers in pipeline.workers.values():
        for worker in workers:
            worker.discard()


def register(urls: Urls, tenants: list[str], *, meters: bool = False) -> None:
    with psycopg.connect(urls.postgres, autocommit=True) as connection:
        for tenant in tenants:
            connection.execute(
                "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
                " VALUES (%s, %s, 'billing@example.com', 'DE', 'EUR', now())",
                (tenant, tenant),
            )
        for rule in RULES if meters else ():
            connection.execute(
                "INSERT INTO meters (meter_id, unit, event_type, aggregation, value_property, dimensions, created_at)"
                " VALUES (%s, 'unit', %s, %s, %s, %s, now())",
                (rule.name, rule.event_type, "sum" if rule.value else "count", rule.value, list(rule.dimensions)),
            )


def events_of(sent: list[Sent]) -> list[dict[str, Any]]:
    return [event for one in sent for event in one.record.events]


async def assert_dead_letters(pipeline: Pipeline, sent: list[Sent]) -> None:
    found = await dead_letters(pipeline.urls.kafka)
    wanted = [one for one in sent if one.record.refused]
    assert wanted
    for one in wanted:
        letter = found[one.partition, one.offset, -1]
        assert letter.code == one.record.refused, (letter, one)
        assert (letter.body, letter.key) == (one.record.value, one.record.key)
        assert letter.reason
    places = {(one.partition, one.offset) for one in sent} - {(one.partition, one.offset) for one in wanted}
    assert not [place for place in found if place[:2] in places], "good records were refused"


GOOD = {
    "specversion": "1.0",
    "id": "good",
    "source": "gateway/1",
    "type": COMPLETION,
    "subject": "poisoned",
    "data": {"input": 7, "model": "gpt4"},
}


def now(**shift: float) -> str:
    return (datetime.now(UTC) + timedelta(**shift)).isoformat().replace("+00:00", "Z")


def event(**changes: Any) -> bytes:
    return json.dumps({**GOOD, "time": now(), **changes}).encode()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in {**GOOD, "time": now()}.items() if key != name}).encode()


def bad_records() -> dict[str, tuple[bytes | None, str]]:
    """Return every kind of bad input the topic can bring: name -> (value, code). Made when needed: some are of now."""
    return {
        "tombstone": (None, "tombstone"),
        "empty": (b"", "empty"),
        "not json": (b"hello \xff", "not_json"),
        "cut off": (event()[:-9], "not_json"),
        "utf-16": (event().decode().encode("utf-16"), "not_json"),
        "deeply nested": (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "too_large"),
        "deeply nested and small": (b"[" * 900, "not_json"),
        "not an object": (b"17", "not_an_object"),
        "no id": (without("id"), "missing_field"),
        "id with line break": (event(id="a\r\nb"), "invalid_field"),
        "unknown tenant": (event(subject="nobody"), "unknown_tenant"),
        "unknown meter": (event(type="coffee"), "unknown_meter"),
        "no time": (without("time"), "missing_field"),
        "time without zone": (event(time=now()[:-1]), "time_without_zone"),
        "in the future": (event(time=now(minutes=20)), "future_time"),
        "too old": (event(time=now(days=-36)), "too_old"),
        "year 1": (event(time="0001-01-01T00:00:00Z"), "time_out_of_bounds"),
        "negative": (event(data={"input": -1}), "negative_quantity"),
        "not a number": (event(data={"input": "many"}), "invalid_quantity"),
        "1e400": (event().replace(b'"input": 7', b'"input": 1e400'), "quantity_out_of_range"),
        "no quantity": (event(data={"model": "gpt4"}), "missing_quantity"),
        "oversize": (event(data={"input": 7, "note": "x" * 70_000}), "too_large"),
        "array without end": (b"[" + event() + b",", "not_json"),
        "array of too many": (b"[" + b",".join([b"1"] * 10_001) + b"]", "too_many_events"),
        "array too large": (
            b"[" + b",".join([event(data={"input": 7, "note": "x" * 9_000})] * 500) + b"]",
            "too_large",
        ),
    }


async def test_every_bad_input_becomes_a_dead_letter_and_its_neighbours_count(pipeline: Pipeline) -> None:
    register(pipeline.urls, ["poisoned"])
    meter = pipeline.the("meter")
    records, events = [], []
    for number, (value, code) in enumerate(bad_records().values()):
        neighbour = {**GOOD, "id": f"n{number}", "time": now()}
        events.append(neighbour)
        records += [Record(b"poisoned", value, (), code), Record(b"poisoned", dumps(neighbour), (neighbour,))]
    inside = [{**GOOD, "id": f"in-{number}", "time": now()} for number in range(3)]
    mixed = [dumps(inside[0]), b"5", dumps(inside[1]), event(id="x", type="coffee"), dumps(inside[2])]
    records.append(Record(b"poisoned", b"[" + b", ".join(mixed) + b"]", tuple(inside)))
    sent = await produce(pipeline.urls.kafka, records, compression="gzip")
    # Larger than its dead-letter topic takes, and still a small record on its own topic.
    huge = Record(b"poisoned", b"[" + b" " * 30_000_000 + b"]", (), "too_large")
    [bomb] = await produce(pipeline.urls.kafka, [huge], compression="gzip")
    await pipeline.caught_up()

    assert meter.running
    pipeline.assert_unharmed()
    await assert_dead_letters(pipeline, sent[:-1])
    letters = await dead_letters(pipeline.urls.kafka)
    array = sent[-1]
    found = {index: letters.get((array.partition, array.offset, index)) for index in range(-1, 5)}
    assert {index: (letter.code, letter.body) for index, letter in found.items() if letter} == {
        1: ("not_an_object", b"5"),
        3: ("unknown_meter", mixed[3]),
    }
    cut = letters[bomb.partition, bomb.offset, -1]
    assert cut.code == "too_large"
    assert "of 30000002 bytes are kept" in cut.reason
    assert huge.value is not None
    assert cut.body == huge.value[: len(cut.body or b"")]
    assert compare(expect([*events, *inside], RULES), pipeline.urls, ["poisoned"], RULES) == []


async def test_a_clickhouse_that_is_away_is_waited_for_and_a_waiting_worker_ends_when_asked(
    pipeline: Pipeline, stack: StackState
) -> None:
    register(pipeline.urls, ["outage"])
    traffic = Traffic(SEED + 3, ["outage"], duplicates=0.05, poison=0, unkeyed=0)
    for name in ("meter", "warehouse"):
        pipeline.the(name)
    sent = await produce(pipeline.urls.kafka, traffic.records(300))
    await pipeline.caught_up()
    launcher(stack.home, "clickhouse").kill()
    waiting = pipeline.the("warehouse")
    sent += await produce(pipeline.urls.kafka, traffic.records(300))

    async def tells() -> bool:
        return waiting.logged("waiting")

    await pipeline.wait_for(tells, "the warehouse agent to wait")
    assert waiting.terminate() == 0, waiting.tail()
    patient = pipeline.start("warehouse")
    launcher(stack.home, "clickhouse").start()
    await pipeline.caught_up()
    assert patient.running
    pipeline.assert_unharmed()
    assert compare(expect(events_of(sent), RULES), pipeline.urls, ["outage"], RULES) == []


async def test_each_crossing_has_one_alert_id_although_the_quota_agent_is_killed(pipeline: Pipeline) -> None:
    register(pipeline.urls, ["limited"])
    with psycopg.connect(pipeline.urls.postgres, autocommit=True) as connection:
        connection.execute("INSERT INTO quota_limits VALUES ('limited', 'story_runs', 100, true, 'run')")
    pipeline.the("meter")
    agent = pipeline.the("quota")

    async def told(*percents: int) -> bool:
        found = [json.loads(r.value) async for r in read_all(pipeline.urls.kafka, "quota.crossed")]
        mine = {(one["percent"], one["limit"]) for one in found if one["tenant_id"] == "limited"}
        return mine == {(percent, "100") for percent in percents}

    def runs(first: int, last: int) -> list[Record]:
        made = [
            {**GOOD, "subject": "limited", "id": f"run-{number}", "type": RUN, "time": now(), "data": {"kind": "chat"}}
            for number in range(first, last)
        ]
        return [Record(b"limited", dumps(one), (one,)) for one in made]

    await produce(pipeline.urls.kafka, runs(0, 79))
    await pipeline.caught_up()
    assert await told()
    await produce(pipeline.urls.kafka, runs(79, 80))
    await pipeline.wait_for(lambda: told(80), "80 % to be announced")
    agent.kill()
    await produce(pipeline.urls.kafka, [*runs(0, 80), *runs(80, 99)])
    agent = pipeline.start("quota")
    await pipeline.caught_up()
    assert await told(80)
    await produce(pipeline.urls.kafka, runs(99, 130))
    await pipeline.wait_for(lambda: told(80, 100), "100 % to be announced")
    for worker in [agent, *pipeline.running("meter"), *pipeline.running("warehouse")]:
        assert worker.terminate() == 0, worker.tail()
