"""Reconciliation beside the stream's own processes: quiet under load, and every planted gap is found, named, repaired.

A stack of its own: what other tests leave on the topics would be gaps.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
import redis
from aiokafka import AIOKafkaProducer
from psycopg.types.json import Jsonb

from metering.dead_letters.desk import open_desk
from metering.dead_letters.domain.letter_filter import LetterFilter
from metering.dead_letters.replay_letters import ReplayOrder
from metering.reconcile.reconcile import Report, Scope, reconcile_lately, reconcile_scope
from metering.reconcile.repair_gaps import Repair, repair_gaps
from runtime.kafka_topics import create_topics
from runtime.migrations import migrate
from runtime.processes.reconcile import open_reconciler
from runtime.settings import Settings, load_settings
from runtime.stack import down, up
from tests.streams.observed import clickhouse, unread
from tests.streams.worker_process import WorkerProcess

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
TENANTS = ["rec-acme", "rec-globex", "rec-initech"]
LLM, DISK, LATER = "rec.llm", "rec.disk", "rec.coffee"
METERS: list[tuple[Any, ...]] = [
    ("rec_tokens", LLM, "sum", "tokens", ["model"], [], None),
    ("rec_calls", LLM, "count", None, [], [{"property": "model", "operator": "ne", "values": ["c"]}], None),
    ("rec_users", LLM, "unique", "user", [], [], None),
    ("rec_peak", LLM, "max", "tokens", ["model"], [], None),
    ("rec_disk", DISK, "time_weighted", "gb", ["disk"], [], "hour"),
]


class Site:
    """The stack, the workers, and a producer's side of things."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.workers: list[WorkerProcess] = []
        self.number = 0

    def start(self, name: str, **settings: str) -> WorkerProcess:
        fast = {"METERBOOK_MICRO_BATCH_MS": "50", "METERBOOK_REGISTRY_REFRESH_SECONDS": "1"}
        worker = WorkerProcess(name, self.settings.home, self.folder, **fast, **settings)
        self.workers.append(worker)
        return worker

    def add_meter(self, *meter: Any) -> None:
        with psycopg.connect(self.settings.postgres, autocommit=True) as connection:
            *fields, filters, weight = meter
            connection.execute(
                "INSERT INTO meters (meter_id, unit, event_type, aggregation, value_property, dimensions, filters,"
                " weight_per, created_at) VALUES (%s, 'unit', %s, %s, %s, %s, %s, %s, now())",
                (*fields, Jsonb(filters), weight),
            )

    def event(
        self, tenant: str, kind: str = LLM, *, id_: str | None = None, ago: float = 0, **data: Any
    ) -> dict[str, Any]:
        self.number += 1
        at = datetime.now(UTC) - timedelta(seconds=ago)
        return {
            "specversion": "1.0",
            "id": id_ or f"e{self.number}",
            "source": "rec/1",
            "type": kind,
            "subject": tenant,
            "time": at.isoformat(),
            "data": data,
        }

    def call(self, tenant: str, **changes: Any) -> dict[str, Any]:
        number = self.number
        data = {"tokens": f"{number % 1000}.{number:06}", "model": "abc"[number % 3], "user": f"u{number % 7}"}
        return self.event(tenant, **{**data, **changes})

    async def send(self, *records: Any, key: bytes | None = None) -> None:
        """Send events, lists of events and raw bytes, keyed by their tenant."""
        async with self.producer() as producer:
            for record in records:
                first = record[0] if isinstance(record, list) else record
                value = record if isinstance(record, bytes) else json.dumps(record).encode()
                own = first["subject"].encode() if isinstance(first, dict) else b"?"
                await producer.send("usage.events", value, key=key or own)

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[AIOKafkaProducer]:
        producer = AIOKafkaProducer(bootstrap_servers=self.settings.kafka_bootstrap, linger_ms=2)
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def caught_up(self) -> None:
        for name, topic in (("meter", "usage.events"), ("quota", "usage.journal"), ("warehouse", "usage.journal")):
            await self.wait_for(
                lambda name=name, topic=topic: self._nothing_left(name, topic), f"{name} to read all of {topic}"
            )

    async def _nothing_left(self, name: str, topic: str) -> bool:
        return await unread(self.settings.kafka_bootstrap, f"meterbook-{name}", topic) == 0

    async def wait_for(self, holds: Callable[[], Awaitable[bool]], what: str, seconds: float = 90) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not await holds():
                    assert all(worker.process.poll() in (None, 0) for worker in self.workers), self.tails()
                    await asyncio.sleep(0.1)
                return
        pytest.fail(f"waited in vain for {what}\n{self.tails()}")

    def tails(self) -> str:
        return "\n\n".join(worker.tail() for worker in self.workers)

    def ask(self, query: str) -> list[Any]:
        client = clickhouse(self.settings.clickhouse)
        try:
            return list(client.query(query).result_rows)
        finally:
            client.close()

    def tell(self, statement: str) -> None:
        client = clickhouse(self.settings.clickhouse)
        try:
            client.command(statement)
        finally:
            client.close()

    async def reconcile(self, scope: Scope | None = None, *, repair: bool = False) -> tuple[Report, list[Repair]]:
        async with open_reconciler(self.settings) as tools:
            scope = scope or Scope()
            report = await reconcile_scope(tools.views, tools.registry, scope)
            if not repair:
                return report, []
            repairs, after = await repair_gaps(report.gaps, scope, tools.views, tools.registry, tools.rerun)
            return after, repairs


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("reconcile")
    workers: list[WorkerProcess] = []
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("METERBOOK_HOME", str(home))
            up(home, progress=print)
            settings = load_settings(home=home, usage_partitions=2)
            migrate(settings)
            asyncio.run(create_topics(settings))
            site = Site(settings, tmp_path_factory.mktemp("workers"))
            workers = site.workers
            with psycopg.connect(settings.postgres, autocommit=True) as connection:
                for tenant in TENANTS:
                    connection.execute(
                        "INSERT INTO tenants (tenant_id, name, email, country, currency, time_zone, created_at)"
                        " VALUES (%s, %s, 'billing@example.com', 'DE', 'EUR', 'Asia/Kolkata', now())",
                        (tenant, tenant),
                    )
            for meter in METERS:
                site.add_meter(*meter)
            for name in ("quota", "warehouse", "meter"):
                site.start(name, METERBOOK_USAGE_PARTITIONS="2")
            yield site
    finally:
        for worker in workers:
            worker.discard()
        down(home)


async def send_all_kinds(site: Site) -> int:
    """Send usage of every kind: twice, as arrays, unreadable, of hours ago, astray, corrected; returns the events."""
    calls = [site.call(tenant, ago=300 * (number % 20)) for number in range(60) for tenant in TENANTS]
    disks = [
        site.event(TENANTS[0], DISK, gb=size, disk=disk, ago=1000 * (5 - size)) for size in range(5) for disk in "xy"
    ]
    await site.send(*calls, disks, *calls[:20], calls[20:30], b"{broken", b"", b"[1, 2", [calls[0], {"id": 3}])
    # Under another tenant's key, which may be another partition: sent home, if so.
    await site.send(site.call(TENANTS[0]), key=TENANTS[1].encode())
    await site.send(site.call(TENANTS[1]), key=TENANTS[2].encode())
    corrects = [{"source": "rec/1", "id": call["id"]} for call in calls]
    amended = {"type": LLM, "time": calls[3]["time"], "data": {"tokens": "0.000001", "model": "b", "user": "new"}}
    await site.send(
        site.event(TENANTS[0], "meterbook.usage.void", corrects=corrects[0], reason="test"),
        site.event(TENANTS[0], "meterbook.usage.void", corrects={"source": "rec/1", "id": disks[8]["id"]}, reason="t"),
        site.event(TENANTS[0], "meterbook.usage.amend", corrects=corrects[3], event=amended, reason="test"),
        site.event(TENANTS[1], "meterbook.usage.void", corrects={"source": "rec/1", "id": "never"}, reason="test"),
    )
    now = datetime.now(UTC)
    inner = [
        {
            "id": f"b{n}",
            "type": LLM,
            "time": (now - timedelta(days=50)).isoformat(),
            "data": {"tokens": n, "model": "a"},
        }
        for n in range(5)
    ]
    span = {"start": (now - timedelta(days=51)).isoformat(), "end": (now - timedelta(days=49)).isoformat()}
    await site.send(site.event(TENANTS[2], "meterbook.usage.backfill", **span, reason="test", events=inner))
    return len(calls) + len(disks) + 30 + 3 + 2 + 2 + 4 + 5


async def test_usage_of_every_kind_leaves_no_gap(site: Site):
    sent = await send_all_kinds(site)
    await site.caught_up()
    report, _ = await site.reconcile()
    assert report.gaps == []
    assert report.unsettled == set()
    assert report.summary.checked > 40
    received = sum(sums.received for sums in report.outcomes.values())
    misplaced = sum(sums.misplaced for sums in report.outcomes.values())
    # What was sent home was received twice.
    assert received - misplaced == sent
    assert sum(sums.duplicates for sums in report.outcomes.values()) >= 31
    assert sum(sums.rejected for sums in report.outcomes.values()) >= 5


async def test_no_gap_is_told_while_usage_pours_in(site: Site):
    worker = site.start("reconcile", METERBOOK_USAGE_PARTITIONS="2", METERBOOK_RECONCILE_SECONDS="1")
    stop = asyncio.Event()
    sent = 0

    async def pour() -> None:
        nonlocal sent
        async with site.producer() as producer:
            while not stop.is_set():
                for tenant in TENANTS:
                    event = site.call(tenant, ago=600 * (site.number % 3))
                    await producer.send("usage.events", json.dumps(event).encode(), key=tenant.encode())
                    sent += 1
                if sent % 50 == 0:
                    target = {"source": "rec/1", "id": event["id"]}
                    void = site.event(TENANTS[-1], "meterbook.usage.void", corrects=target, reason="test")
                    await producer.send("usage.events", json.dumps(void).encode(), key=TENANTS[-1].encode())
                await asyncio.sleep(0.03)

    pouring = asyncio.create_task(pour())
    runs = checked = 0
    try:
        until = time.monotonic() + 6
        while time.monotonic() < until or runs < 2:
            async with open_reconciler(site.settings) as tools:
                report = await reconcile_lately(tools.views, tools.registry, quiet_seconds=0, longest_seconds=0)
                assert report.gaps == []
                report = await reconcile_scope(tools.views, tools.registry, Scope())
                assert report.gaps == []
                runs, checked = runs + 1, checked + report.summary.checked
    finally:
        stop.set()
        await pouring
    print(f"{runs} full runs beside {sent} events, {checked} comparisons")
    assert checked > 0
    await site.caught_up()
    report, _ = await site.reconcile()
    assert (report.gaps, report.unsettled) == ([], set())
    await site.wait_for(lambda: _logged(worker, "reconciliation.done"), "the worker's own run")
    assert not worker.logged("reconciliation.gap"), worker.tail(60)
    assert worker.terminate() == 0, worker.tail()
    with psycopg.connect(site.settings.postgres) as connection:
        assert connection.execute("SELECT count(*) FROM reconciliation_gaps").fetchone() == (0,)


async def _logged(worker: WorkerProcess, event: str) -> bool:
    return worker.logged(event)


def checks(report: Report) -> set[tuple[str, str, str]]:
    return {(gap.gap.subject.check, gap.gap.subject.tenant, gap.gap.subject.meter) for gap in report.gaps}


async def test_planted_gaps_in_clickhouse_are_found_named_and_repaired(site: Site):
    acme, globex, initech = TENANTS
    ((raw_id,),) = site.ask(
        f"SELECT id FROM usage_events FINAL WHERE tenant = '{acme}' AND type = '{LLM}'"
        " AND JSONExtractString(data, 'model') != 'c'"
        " AND id NOT IN (SELECT target_id FROM usage_corrections) ORDER BY id LIMIT 1"
    )
    ((window,),) = site.ask(
        f"SELECT max(window_start) FROM usage_rollups WHERE tenant = '{globex}' AND meter = 'rec_tokens'"
    )
    sync = "SETTINGS mutations_sync = 2"
    site.tell(f"ALTER TABLE usage_events DELETE WHERE tenant = '{acme}' AND id = '{raw_id}' {sync}")
    site.tell(
        f"ALTER TABLE usage_rollups DELETE WHERE tenant = '{globex}' AND meter = 'rec_tokens'"
        f" AND window_start = '{window:%Y-%m-%d %H:%M:%S}' {sync}"
    )
    site.tell(f"ALTER TABLE usage_samples DELETE WHERE tenant = '{initech}' AND meter = 'rec_users' {sync}")
    report, _ = await site.reconcile()
    found = checks(report)
    assert found >= {
        ("rollups", acme, "rec_tokens"),
        ("rollups", acme, "rec_calls"),
        ("samples", acme, "rec_users"),
        ("samples", acme, "rec_peak"),
        ("rollups", globex, "rec_tokens"),
        ("samples", initech, "rec_users"),
        # Redis has what ClickHouse has lost.
        ("quotas", globex, "rec_tokens"),
        ("quotas", initech, "rec_users"),
    }
    raw = next(
        gap.gap for gap in report.gaps if gap.gap.subject.tenant == acme and gap.gap.subject.meter == "rec_calls"
    )
    assert (raw.expected.events, raw.found.events) == (raw.expected.events, raw.expected.events + 1)
    assert not [one for one in found if one[2] == "rec_disk"]

    # Only what is asked for is looked at and repaired.
    only, repairs = await site.reconcile(Scope(tenants=(globex,)), repair=True)
    assert only.gaps == []
    assert {repair.gap.gap.subject.tenant for repair in repairs} == {globex}
    report, repairs = await site.reconcile(repair=True)
    assert report.gaps == [], [repair.what for repair in repairs]
    assert all(repair.is_gone and "journal entries" in repair.what for repair in repairs
               if repair.gap.gap.subject.check != "quotas")  # fmt: skip
    with psycopg.connect(site.settings.postgres) as connection:
        found_and_closed = connection.execute(
            "SELECT count(*), count(closed_at), count(*) FILTER (WHERE repair <> '') FROM reconciliation_gaps"
        ).fetchone()
    assert found_and_closed is not None
    assert found_and_closed[0] == found_and_closed[1] == found_and_closed[2] >= len(found)


async def test_planted_gaps_in_redis_are_found_named_and_repaired(site: Site):
    acme, globex, initech = TENANTS
    with redis.Redis.from_url(site.settings.redis, decode_responses=True) as client:
        month = datetime.now(ZoneInfo("Asia/Kolkata")).strftime("%Y-%m")
        altered = f"quota:{{{acme}}}:rec_tokens:{month}"
        field = next(name for name in client.hgetall(altered) if name[0] == "q")
        client.hset(altered, field, "17")
        client.delete(f"quota:{{{globex}}}:rec_calls:{month}")
        client.hset(f"quota:{{{initech}}}:rec_peak:{month}", "q0:99", "123456789")
        client.hset(f"quota:{{{initech}}}:rec_peak:{month}", "n0:99", "1")
        client.hset(f"quota:{{{initech}}}:rec_users:{month}", field, "nonsense")
    report, _ = await site.reconcile()
    planted = {
        ("quotas", acme, "rec_tokens"),
        ("quotas", globex, "rec_calls"),
        ("quotas", initech, "rec_peak"),
        ("quotas", initech, "rec_users"),
    }
    assert checks(report) == planted
    report, repairs = await site.reconcile(repair=True)
    assert report.gaps == [], [repair.what for repair in repairs]
    assert {repair.what for repair in repairs} == {"the live total was dropped and the quota agent filled it again"}


async def test_what_cannot_be_repaired_is_said_and_left_alone(site: Site):
    acme = TENANTS[0]
    ((window,),) = site.ask(f"SELECT max(window_start) FROM usage_rollups WHERE tenant = '{acme}'")
    phantom = f"tenant = '{acme}' AND segment = 987654321"
    site.tell(
        "INSERT INTO usage_rollups VALUES"
        f" ('{acme}', 'rec_calls', map(), '{window:%Y-%m-%d %H:%M:%S}', 0, 987654321, 5, 5, 1)"
    )
    report, repairs = await site.reconcile(repair=True)
    assert ("rollups", acme, "rec_calls") in checks(report)
    (repair,) = [one for one in repairs if one.gap.gap.subject.check == "rollups"]
    assert not repair.is_gone
    assert site.ask(f"SELECT count() FROM usage_rollups WHERE {phantom}") == [(1,)], "no truth is edited"
    site.tell(f"ALTER TABLE usage_rollups DELETE WHERE {phantom} SETTINGS mutations_sync = 2")
    report, _ = await site.reconcile()
    assert report.gaps == []


async def test_a_letter_replayed_twice_after_its_meter_was_added_counts_once(site: Site):
    tenant = TENANTS[1]
    await site.send(site.event(tenant, LATER, id_="coffee", cups=3))
    await site.caught_up()
    async with open_desk(site.settings) as desk:
        page = await desk.page(LetterFilter(code="unknown_meter", tenant=tenant), order="newest", limit=5, cursor=None)
        (found,) = page.letters
        order = ReplayOrder("ann", "its meter is there now")
        (tried,) = await desk.replay([found.head.place], ReplayOrder("ann", dry_run=True))
        assert tried.code == "unknown_meter"
        site.add_meter("rec_coffee", LATER, "sum", "cups", [], [], None)
        (done,) = await desk.replay([found.head.place], order)
        assert done.outcome == "replayed"
        (again,) = await desk.replay([found.head.place], ReplayOrder("ann", again=True))
        assert again.outcome == "replayed"
        await site.caught_up()
        rows = site.ask(
            "SELECT sum(quantity), sum(events) FROM usage_rollups FINAL"
            f" WHERE tenant = '{tenant}' AND meter = 'rec_coffee'"
        )
        assert rows == [(3, 1)]
        page = await desk.page(LetterFilter(tenant=tenant, code="unknown_meter"), order="newest", limit=5, cursor=None)
        assert page.letters == ()
    report, _ = await site.reconcile()
    assert report.gaps == []
