"""The whole stream at work: `python -m benchmarks.pipeline`. How fresh its views are, how it restarts, how it scales.

1. *Backlog*: meter, quota and warehouse workers together count a backlog; the slowest stage's rate is the machine's.
2. *Freshness*: producers send at half of that rate; probe events are timed from before they are sent until Redis and
   ClickHouse show them.
3. *Restart*: the meter worker is killed with kill -9 and started again; timed until it counts again, with its memory.
4. *Scaling*: one and then two meter workers count the same backlog, alone.

One run on one machine: engines, producers and workers share its cores, so figures are lower than on machines of their
own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import clickhouse_connect
import psycopg
import redis.asyncio
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from benchmarks import engines
from benchmarks.contenders import LIMIT_SECONDS, ContenderFailedError, _parse
from benchmarks.workload import TENANTS, Workload, generate
from core.live_quota import quota_key
from core.topics import USAGE_EVENTS
from runtime import stack
from runtime.clickhouse import connect_clickhouse
from runtime.kafka_topics import create_topics
from runtime.migrations import ClickHouseMigrations, apply_pending, read_migrations
from runtime.settings import Settings
from streams.adapters.kafka_journal import partition_of_key

GROUPS = {"meter": "meterbook-meter", "quota": "meterbook-quota", "warehouse": "meterbook-warehouse"}
PROBE = "probe"
PROBE_EVERY_SECONDS = 0.1
Progress = Callable[[str], None]


@dataclass
class Fleet:
    """Worker processes and their logs."""

    settings: Settings
    folder: Path
    workers: list[tuple[str, subprocess.Popen[bytes], Path]] = field(default_factory=list)

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start `meterbook worker NAME`."""
        path = self.folder / f"{name}-{len(self.workers)}.log"
        environment = engines.Broker(self.settings).environment() | {
            "METERBOOK_CLICKHOUSE_URL": self.settings.clickhouse,
            "METERBOOK_REDIS_URL": self.settings.redis,
            "METERBOOK_LOG_LEVEL": "INFO",
        }
        with path.open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "runtime", "worker", name],
                env=environment,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        self.workers.append((name, worker, path))
        return worker

    def check(self) -> None:
        """Raise `ContenderFailedError` with the log of a worker that ended by itself."""
        for name, worker, path in self.workers:
            if worker.poll() not in (None, 0, -9, -15):
                raise ContenderFailedError(f"{name} ended with {worker.returncode}:\n{path.read_text()[-2_000:]}")

    def stop(self) -> None:
        """End all workers in order."""
        for _, worker, _ in self.workers:
            if worker.poll() is None:
                worker.terminate()
        for _, worker, _ in self.workers:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self.workers.clear()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of an event from all workers."""
        lines = [line for _, _, path in self.workers for line in path.read_text(errors="replace").splitlines()]
        return [found for found in map(_parse, lines) if found.get("event") == event]


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=300_000, help="events of the backlog (default 300,000)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long probes are sent (default 20)")
    parser.add_argument(
        "--rate", type=float, help="events/s beside the probes; half of the backlog's rate if not given"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()

    def progress(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.1f} s  {line}\n")

    try:
        results = run(options.events, options.seconds, options.rate, progress)
    except ContenderFailedError as error:
        sys.exit(f"the benchmark failed: {error}")
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        for name, value in results.items():
            print(f"{name:<58}{value}")


def run(events: int, seconds: float, rate: float | None, progress: Progress) -> dict[str, Any]:
    """Measure everything and return what was found, by name."""
    workload = generate(events, seed=7, until=datetime.now(UTC))
    results: dict[str, Any] = {}
    with ExitStack() as ending:
        home = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="meterbook-pipeline-")))
        ending.callback(stack.down, home)
        settings = _start(home, progress)
        fleet = Fleet(settings, home)
        ending.callback(fleet.stop)
        engines.produce(engines.Broker(settings), workload.singles())
        _measure_backlog(fleet, workload, results, progress)
        asyncio.run(
            _measure_freshness(fleet, rate or results["backlog: slowest stage, events/s"] / 2, seconds, results)
        )
        progress("freshness is measured")
        asyncio.run(_measure_restart(fleet, results))
        progress("restart is measured")
        fleet.stop()
        for workers in (1, 2):
            results[f"scaling: {workers} meter worker(s), events/s"] = _measure_scaling(fleet, workload, workers)
            progress(f"{workers} meter worker(s) measured")
        one, two = (results[f"scaling: {workers} meter worker(s), events/s"] for workers in (1, 2))
        results["scaling: two workers beside one"] = round(two / one, 2)
    return results


def _start(home: Path, progress: Progress) -> Settings:
    stack.up(home, progress=progress)
    settings = Settings(home=home, usage_partitions=engines.PARTITIONS)
    engines._fill_registry(settings)
    with psycopg.connect(settings.postgres, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
            " VALUES (%s, 'Probe', 'p@example.invalid', 'US', 'USD', now())",
            (PROBE,),
        )
    client = connect_clickhouse(settings)
    apply_pending(ClickHouseMigrations(client), read_migrations("clickhouse"))
    client.close()
    asyncio.run(create_topics(settings))
    return settings


def _measure_backlog(fleet: Fleet, workload: Workload, results: dict[str, Any], progress: Progress) -> None:
    for name in GROUPS:
        fleet.start(name)
    done = asyncio.run(_until_read(fleet, list(GROUPS)))
    began = min(
        datetime.fromisoformat(line["timestamp"]).timestamp() - line["seconds"]
        for line in fleet.logged("partition.taken_over")
    )
    events = len(workload.bodies)
    for name, at in done.items():
        results[f"backlog: {name} worker, events/s"] = round(events / (at - began))
        progress(f"{name}: {events / (at - began):,.0f} events/s")
    results["backlog: slowest stage, events/s"] = round(events / (max(done.values()) - began))


async def _until_read(fleet: Fleet, names: Iterable[str]) -> dict[str, float]:
    """Return when each stage had read all there was (seconds since 1970)."""
    bootstrap = fleet.settings.kafka_bootstrap
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        done: dict[str, float] = {}
        waiting = list(names)
        deadline = time.monotonic() + LIMIT_SECONDS
        while waiting:
            fleet.check()
            if time.monotonic() > deadline:
                raise ContenderFailedError(f"{waiting} had not read everything after {LIMIT_SECONDS:.0f} s")
            name = waiting[0]
            topic = USAGE_EVENTS.name if name == "meter" else "usage.journal"
            ends = await engines.end_offsets(bootstrap, topic)
            try:
                stored = await admin.list_consumer_group_offsets(GROUPS[name])
            except KafkaError:  # the group has no coordinator yet
                await asyncio.sleep(0.1)
                continue
            committed = {place.partition: found.offset for place, found in stored.items() if place.topic == topic}
            # The last record of a journal partition is its transaction's marker, which nobody commits.
            behind = [end - committed.get(partition, 0) for partition, end in ends.items()]
            if all(left <= (0 if name == "meter" else 1) for left in behind):
                done[name] = time.time()
                waiting.pop(0)
            else:
                await asyncio.sleep(0.02)
        return done
    finally:
        await admin.close()


async def _measure_freshness(fleet: Fleet, rate: float, seconds: float, results: dict[str, Any]) -> None:
    settings = fleet.settings
    load = generate(int(rate * seconds), seed=8, until=datetime.now(UTC))
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, acks="all", compression_type="lz4", linger_ms=5
    )
    await producer.start()
    sent: list[float] = []
    seen: dict[str, list[float]] = {"Redis": [], "ClickHouse": []}
    stop = asyncio.Event()
    probes = asyncio.create_task(_send_probes(producer, sent, stop))
    watchers = [
        asyncio.create_task(_watch_redis(settings, sent, seen["Redis"], stop)),
        asyncio.create_task(_watch_clickhouse(settings, sent, seen["ClickHouse"], stop)),
    ]
    began = time.monotonic()
    partitions = {tenant: partition_of_key(tenant.encode(), engines.PARTITIONS) for tenant in TENANTS}
    pairs = list(load.singles())
    position = 0
    while position < len(pairs):
        target = min(len(pairs), int((time.monotonic() - began) * rate))
        if target > position:
            await _send(producer, pairs[position:target], partitions)
            position = target
        await asyncio.sleep(0.02)
    took = time.monotonic() - began
    stop.set()
    await probes
    await asyncio.wait_for(asyncio.gather(*watchers), 60)
    await producer.stop()
    fleet.check()
    results["freshness: load, events/s"] = round(len(pairs) / took)
    for view, latencies in seen.items():
        assert len(latencies) == len(sent), f"{view} shows {len(latencies)} of {len(sent)} probes"
        ordered = sorted(latencies)
        for name, value in (
            ("p50", statistics.median(ordered)),
            ("p99", ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]),
            ("max", ordered[-1]),
        ):
            results[f"freshness: produced to visible in {view}, {name}, ms"] = round(value * 1_000)
    results["freshness: probes"] = len(sent)


async def _send(producer: AIOKafkaProducer, pairs: list[tuple[str, bytes]], partitions: dict[str, int]) -> None:
    building: dict[int, Any] = {}
    for tenant, body in pairs:
        partition = partitions[tenant]
        batch = building.get(partition) or building.setdefault(partition, producer.create_batch())
        if batch.append(key=tenant.encode(), value=body, timestamp=None) is None:
            await producer.send_batch(batch, USAGE_EVENTS.name, partition=partition)
            building[partition] = producer.create_batch()
            building[partition].append(key=tenant.encode(), value=body, timestamp=None)
    for partition, batch in building.items():
        await producer.send_batch(batch, USAGE_EVENTS.name, partition=partition)


async def _send_probes(producer: AIOKafkaProducer, sent: list[float], stop: asyncio.Event) -> None:
    while not stop.is_set():
        now = datetime.now(UTC)
        event = {
            "specversion": "1.0", "id": f"probe-{len(sent)}", "source": "probe", "type": "agent.execution",
            "subject": PROBE, "time": now.isoformat().replace("+00:00", "Z"), "data": {"agent_type": "probe"},
        }  # fmt: skip
        sent.append(time.monotonic())
        await producer.send(USAGE_EVENTS.name, json.dumps(event).encode(), key=PROBE.encode())
        await asyncio.sleep(PROBE_EVERY_SECONDS)


async def _watch_redis(settings: Settings, sent: list[float], seen: list[float], stop: asyncio.Event) -> None:
    client = redis.asyncio.Redis.from_url(settings.redis, decode_responses=True)
    key = quota_key(PROBE, "agent_executions", datetime.now(UTC).strftime("%Y-%m"))
    while not (stop.is_set() and len(seen) == len(sent)):
        fields = await client.hgetall(key)
        counted = sum(int(value) for name, value in fields.items() if name.startswith("n"))
        now = time.monotonic()
        while len(seen) < counted:
            seen.append(now - sent[len(seen)])
        await asyncio.sleep(0.005)
    await client.aclose()


async def _watch_clickhouse(settings: Settings, sent: list[float], seen: list[float], stop: asyncio.Event) -> None:
    client = await clickhouse_connect.get_async_client(dsn=settings.clickhouse)
    query = f"SELECT sum(events) FROM usage_rollups FINAL WHERE tenant = '{PROBE}'"
    while not (stop.is_set() and len(seen) == len(sent)):
        counted = int((await client.query(query)).result_rows[0][0])
        now = time.monotonic()
        while len(seen) < counted:
            seen.append(now - sent[len(seen)])
        await asyncio.sleep(0.05)
    await client.close()


async def _measure_restart(fleet: Fleet, results: dict[str, Any]) -> None:
    _, worker, _ = next(entry for entry in fleet.workers if entry[0] == "meter")
    results["memory: meter worker, MiB resident"] = _resident_mib(worker.pid)
    worker.kill()
    worker.wait()
    producer = AIOKafkaProducer(bootstrap_servers=fleet.settings.kafka_bootstrap, acks="all")
    await producer.start()
    stop, sent = asyncio.Event(), list[float]()
    probes = asyncio.create_task(_send_probes(producer, sent, stop))
    began = time.monotonic()
    fleet.start("meter")
    taken = await _until(lambda: _ready_since(fleet))
    stop.set()
    await probes
    await producer.stop()
    await _until_read(fleet, ["meter"])
    results["restart: kill -9 to counting again, s"] = round(taken - began, 2)
    found = fleet.logged("partition.taken_over")[-engines.PARTITIONS :]
    results["restart: identities at hand"] = sum(line["identities"] for line in found)
    results["restart: journal entries read"] = sum(line["entries"] for line in found)


async def _until(ready: Callable[[], float]) -> float:
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        if found := ready():
            return found
        await asyncio.sleep(0.02)
    raise ContenderFailedError("the restarted worker never took all partitions over")


def _ready_since(fleet: Fleet) -> float:
    _, _, path = fleet.workers[-1]
    lines = list(map(_parse, path.read_text(errors="replace").splitlines()))
    taken = [line for line in lines if line.get("event") == "partition.taken_over"]
    return time.monotonic() if len(taken) >= engines.PARTITIONS else 0.0


def _resident_mib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1_024
    return 0


def _measure_scaling(fleet: Fleet, workload: Workload, workers: int) -> int:
    engines.reset(engines.Broker(fleet.settings))
    events = sum(asyncio.run(engines.end_offsets(fleet.settings.kafka_bootstrap, USAGE_EVENTS.name)).values())
    for _ in range(workers):
        fleet.start("meter")
    done = asyncio.run(_until_read(fleet, ["meter"]))["meter"]
    began = min(
        datetime.fromisoformat(line["timestamp"]).timestamp() - line["seconds"]
        for line in fleet.logged("partition.taken_over")
    )
    fleet.stop()
    return round(events / (done - began))


if __name__ == "__main__":
    main()
