"""One row of the fault table: its traffic, its faults, the healing, the comparison, and what is printed of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import httpx2
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tests.chaos import observed
from tests.chaos.oracle import Expected, Oracle, Sent, period_bounds, read_instant
from tests.chaos.traffic import Mix, Record, Traffic, dumps, tenant_of
from tests.chaos.world import STREAM, World

# After the faults everything must come right within this; when nothing is left to read, differences get less.
HEAL_SECONDS = 120.0
DIFFERENCES_SECONDS = 15.0
# Ended in doubt (streams.adapters.lanes): by design, whoever runs the worker starts it again.
EXIT_IN_DOUBT = 70
KILLED = -9
# Whether an event that a correction names was ever there, only ClickHouse knows; away for long, it is not found out.
_NOT_FOUND_OUT = ("unknown_event", "original_unavailable")
# A second of this many events, at full dose.
RATE = 2_000


@dataclass
class Verdict:
    """What is printed of a row."""

    row: str
    title: str
    seed: int
    events: int = 0
    faults: int = 0
    lost: int = 0
    doubled: int = 0
    phantom: int = 0
    recovery_s: float = 0.0
    max_lag: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether everything held."""
        return not (self.wrong or self.lost or self.doubled or self.phantom)

    def line(self) -> str:
        """Return the row as it is printed."""
        told = (
            f"{self.row:<4} {'pass' if self.passed else 'FAIL'}  seed {self.seed}  events {self.events:>7}"
            f"  faults {self.faults:>3}  lost {self.lost}  doubled {self.doubled}  phantom {self.phantom}"
            f"  recovery {self.recovery_s:5.1f} s  max lag {self.max_lag:>6}  took {self.seconds:5.1f} s  {self.title}"
        )
        return "\n".join([told, *(f"       {note}" for note in self.notes), *(f"     ! {one}" for one in self.wrong)])


class Row:
    """What a scenario works with. `full` says whether the full dose is wanted."""

    def __init__(self, world: World, verdict: Verdict, *, full: bool) -> None:
        self.world, self.verdict, self.full = world, verdict, full
        self.fleet, self.seed = world.fleet, verdict.seed
        self.log: list[Sent] = []
        self.tenants: list[str] = []
        self.tolerated: set[int] = {EXIT_IN_DOUBT, KILLED}
        self.clickhouse_was_away = False
        self._healed_at: float | None = None
        self._producer: AIOKafkaProducer | None = None
        self._closing = contextlib.AsyncExitStack()
        self._ended_before = len(self.fleet.ended)
        self._number = 0

    def dose(self, smoke: Any, full: Any) -> Any:
        """Return one of the two."""
        return full if self.full else smoke

    def note(self, text: str) -> None:
        """Add a line to what is printed."""
        self.verdict.notes.append(text)

    def must(self, holds: bool, otherwise: str) -> None:
        """Fail the row unless `holds`."""
        if not holds:
            self.verdict.wrong.append(otherwise)

    def fault(self, count: int = 1) -> None:
        """Count faults."""
        self.verdict.faults += count

    def healed(self) -> None:
        """Say that the last fault is over: recovery is measured from here."""
        self._healed_at = time.monotonic()

    async def begin(self) -> None:
        """Bring the world into order: everything answers, one worker of each kind."""
        await asyncio.to_thread(self.world.heal)
        for name in STREAM:
            first = self.fleet.the(name)
            for worker in self.fleet.running(name):
                if worker is not first:
                    worker.is_wanted = False
                    worker.kill()
        self._producer = await self._start_producer()
        monitor = asyncio.create_task(self._watch_lag())
        self._closing.callback(monitor.cancel)

    async def end(self) -> None:
        """Judge the processes that ended, and let go of everything."""
        await self._closing.aclose()
        if self._producer is not None:
            await self._producer.stop()
        ended = Counter(self.fleet.ended[self._ended_before :])
        for (name, code), times in ended.items():
            self.must(code in self.tolerated, f"{name} ended with code {code} ({times} times)")
        if in_doubt := sum(times for (_, code), times in ended.items() if code == EXIT_IN_DOUBT):
            self.note(f"{in_doubt} processes ended in doubt (exit code 70) and were started again")
        if self.verdict.wrong:
            with contextlib.suppress(OSError):
                for worker in self.fleet.workers[-8:]:
                    print(worker.tail(12))

    def new_tenants(self, count: int, **almanac: Any) -> list[str]:
        """Register tenants of this row."""
        self._number += 1
        names = [f"{self.verdict.row.lower()}-{self.seed}-{self._number}-{number}" for number in range(count)]
        self.world.add_tenants(names, **almanac)
        self.tenants += names
        return names

    def traffic(self, tenants: list[str] | None = None, **mix: float) -> Traffic:
        """Return a generator of this row's own seed."""
        self._number += 1
        names = tenants or self.new_tenants(9)
        seed = self.seed * 1_000 + self._number
        return Traffic(seed, names, Mix(**mix), run=f"{self.verdict.row}-{seed}")  # type: ignore[arg-type]

    async def send(self, records: Iterable[Record], *, compression: str | None = None) -> list[Sent]:
        """Send records to `usage.events` past the proxy, each to where its key leads; returns where they are."""
        producer = await self._start_producer(compression) if compression else self._producer
        assert producer is not None
        at = observed.now()
        try:
            waiting = [
                (record, await producer.send("usage.events", value=record.value, key=record.key)) for record in records
            ]
            sent = [Sent(record, (place := await done).partition, place.offset, at) for record, done in waiting]
        finally:
            if compression:
                await producer.stop()
        self.log += sent
        return sent

    @contextlib.asynccontextmanager
    async def load(
        self, events: int, *, traffic: Traffic | None = None, rate: int | None = None
    ) -> AsyncIterator[None]:
        """Send about `events` events beside what the body does; leaves when all are sent."""
        traffic = traffic or self.traffic()
        rate = rate or self.dose(1_000, RATE)

        async def produce() -> None:
            began, made = time.monotonic(), 0
            while made < events:
                due = min(events, int((time.monotonic() - began + 0.1) * rate))
                if due > made:
                    traffic.base = observed.now()
                    # One producer keeps their order: twins and corrections come after what they mean.
                    await self.send(traffic.records(due - made))
                    made = due
                await asyncio.sleep(0.05)

        task = asyncio.create_task(produce())
        try:
            yield
        except BaseException:
            task.cancel()
            raise
        await task

    async def api(self) -> str:
        """Start the API if need be, wait until it is ready, and return its base URL."""
        self.fleet.the("api")
        base = f"http://127.0.0.1:{self.world.api_port}"
        async with httpx2.AsyncClient(timeout=5) as client:

            async def ready() -> bool:
                try:
                    return (await client.get(f"{base}/ready")).status_code == 200
                except httpx2.HTTPError:
                    return False

            await self.wait_for(ready, "the API to be ready")
        return base

    async def post(self, events: Sequence[dict[str, Any]], *, patience_s: float = 60.0) -> Counter[int]:
        """Post events one by one to the API, each until it is accepted; returns how often each status was answered."""
        answers: Counter[int] = Counter()
        url = f"http://127.0.0.1:{self.world.api_port}/api/v1/usage"
        headers = {"content-type": "application/cloudevents+json"}
        deadline = time.monotonic() + patience_s
        turn = asyncio.Semaphore(20)
        async with httpx2.AsyncClient(timeout=15) as client:

            async def one(event: dict[str, Any]) -> None:
                async with turn:
                    while time.monotonic() < deadline:
                        at = observed.now()
                        try:
                            response = await client.post(url, content=dumps(event), headers=headers)
                        except httpx2.HTTPError:
                            answers[0] += 1
                            await asyncio.sleep(0.2)
                            continue
                        answers[response.status_code] += 1
                        if response.status_code == 202:
                            record = Record(tenant_of(event).encode(), None, (event,))
                            self.log.append(Sent(record, -1, 0, at))
                            return
                        if response.status_code == 503:
                            self.must("retry-after" in response.headers, "a 503 without Retry-After")
                        await asyncio.sleep(0.3)
                    self.must(False, f"{event['id']} was not accepted within {patience_s:.0f} s")

            await asyncio.gather(*map(one, events))
        return answers

    async def wait_for(self, holds: Callable[[], Awaitable[bool]], what: str, seconds: float = 60.0) -> bool:
        """Poll until `holds`; the row fails when it never does."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(KafkaError, OSError):
                if await holds():
                    return True
            ended = [code for _, code in self.fleet.ended[self._ended_before :] if code not in self.tolerated]
            if len(ended) > 3:
                break  # a crash loop does not heal
            await asyncio.sleep(0.1)
        self.must(False, f"waited {seconds:.0f} s in vain for {what}")
        return False

    async def caught_up(self, *stages: str, seconds: float = HEAL_SECONDS) -> bool:
        """Wait until stages have nothing left to read, in the order in which they follow each other."""
        for names in (STREAM[:1], STREAM[1:]):
            wanted = [name for name in names if not stages or name in stages]

            async def nothing_left(wanted: list[str] = wanted) -> bool:
                return not any((await observed.unread(self.world.urls.kafka, wanted)).values())

            if wanted and not await self.wait_for(nothing_left, f"{' and '.join(wanted)} to read everything", seconds):
                return False
        return True

    def expected(self) -> Expected:
        """Return what the oracle makes of this row's log."""
        return Oracle(self.world.rules, self.world.almanacs).expect(self.log)

    async def settle(self, *, redis: bool = True, late: bool = True) -> None:
        """Wait until every store agrees with the oracle; then write down what was lost, doubled or made up."""
        began = self._healed_at = self._healed_at or time.monotonic()
        expected = self.expected()
        self.verdict.events = expected.events
        await self.caught_up()
        deadline = time.monotonic() + DIFFERENCES_SECONDS
        while True:
            difference = await asyncio.to_thread(compare, expected, self.world, self.tenants, redis=redis, late=late)
            if not difference.wrong or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.3)
        self.verdict.recovery_s = max(self.verdict.recovery_s, time.monotonic() - began)
        self.verdict.lost += difference.lost
        self.verdict.doubled += difference.doubled
        self.verdict.phantom += difference.phantom
        self.verdict.wrong += difference.wrong
        await self._check_letters(expected)
        self._healed_at = None

    async def _start_producer(self, compression: str | None = None) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.world.urls.kafka,
            enable_idempotence=True,
            linger_ms=2,
            compression_type=compression,
            max_request_size=200_000_000,
            request_timeout_ms=90_000,
        )
        await producer.start()
        return producer

    async def _check_letters(self, expected: Expected) -> None:
        found, twice = await observed.dead_letters(self.world.urls.kafka)
        self.must(twice == 0, f"{twice} dead letters were written twice")
        records = {(sent.partition, sent.offset): sent.record for sent in self.log}
        mine = {place: letter for place, letter in found.items() if place[:2] in records}
        codes = {place: letter.code for place, letter in mine.items()}
        for place, code in codes.items():
            if self.clickhouse_was_away and (expected.refused.get(place), code) == _NOT_FOUND_OUT:
                codes[place] = "unknown_event"
        self.verdict.wrong += differences("dead letters", expected.refused, codes)
        for place, letter in mine.items():
            record = records[place[:2]]
            if not record.is_array and letter.body != record.value and "bytes are kept" not in letter.reason:
                self.must(False, f"the dead letter of {place} has not the bytes of its record")

    async def _watch_lag(self) -> None:
        bootstrap = self.world.urls.kafka
        while True:
            admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5_000)
            reader = AIOKafkaConsumer(bootstrap_servers=bootstrap)
            try:
                await admin.start()
                await reader.start()
                numbers = await reader._client._wait_on_metadata("usage.events")
                places = [TopicPartition("usage.events", number) for number in numbers]
                while True:
                    ends = await reader.end_offsets(places)
                    stored = await admin.list_consumer_group_offsets("meterbook-meter")
                    # A broker that has just started knows no offsets yet; nor does it before the first commit.
                    if all(place in stored and stored[place].offset >= 0 for place in places):
                        lag = sum(end - stored[place].offset for place, end in ends.items())
                        self.verdict.max_lag = max(self.verdict.max_lag, lag)
                    await asyncio.sleep(0.5)
            except (KafkaError, OSError, IndexError):
                await asyncio.sleep(0.5)
            finally:
                await reader.stop()
                await admin.close()


@dataclass
class Difference:
    """What is not as the oracle has it: events lost, doubled, made up, and every kind of disagreement with examples."""

    lost: int = 0
    doubled: int = 0
    phantom: int = 0
    wrong: list[str] = field(default_factory=list)


def compare(
    expected: Expected, world: World, tenants: list[str], *, redis: bool = True, late: bool = True
) -> Difference:
    """Compare the oracle with ClickHouse and Redis."""
    found = Difference()
    store = observed.Store(world.urls.clickhouse)
    try:
        windows = store.windows(tenants)
        identities = store.identities(tenants)
        wanted = {key: total for key, total in expected.windows.items() if any(total)}
        found.wrong += differences("totals by minute", wanted, windows)
        found.wrong += differences("accepted events", dict.fromkeys(expected.accepted, 1), dict.fromkeys(identities, 1))
        found.wrong += differences("samples", expected.samples, store.samples(tenants))
        found.wrong += differences("corrections", expected.corrected, store.corrected(tenants))
        if late:
            found.wrong += differences("late", _nonzero(expected.late), _nonzero(store.late(tenants)))
    finally:
        store.close()
    counts = {key: (wanted.get(key, _NONE)[1], windows.get(key, _NONE)[1]) for key in {*wanted, *windows}}
    by_window = sum(max(0, should - has) for should, has in counts.values())
    found.lost = max(by_window, len(expected.accepted - identities))
    found.doubled = sum(max(0, has - should) for key, (should, has) in counts.items() if key in wanted)
    made_up = sum(has for key, (_, has) in counts.items() if key not in wanted)
    found.phantom = max(made_up, len(identities - expected.accepted))
    if redis:
        found.wrong += _compare_live(expected, world, tenants)
    return found


def _compare_live(expected: Expected, world: World, tenants: list[str]) -> list[str]:
    rules = {rule.name: rule for rule in world.rules}
    # Samples are kept for two months; of older ones there are no live totals.
    oldest = (observed.now() - timedelta(days=60)).isoformat()
    added: dict[Any, Any] = {}
    sampled: dict[Any, Any] = {}
    for key, total in observed.live_totals(world.urls.redis, tenants).items():
        tenant, meter, period = key
        if rules[meter].is_additive:
            added[key] = (total.quantity, total.events)
        elif total.events and period != "now" and len(period) > len("2026") and period > oldest[: len(period)]:
            value = Fraction(total.quantity)
            if rules[meter].aggregation == "time_weighted":
                end = period_bounds(period, world.almanacs[tenant])[1]
                value += Fraction(total.level) * (read_instant(end.isoformat())[1] - total.at_us)
            sampled[key] = (value, total.events)
    wanted = {key: total for key, total in expected.sampled.items() if key[2] > oldest[: len(key[2])]}
    return [
        *differences("live totals", _nonzero(expected.periods), _nonzero(added)),
        *differences("live totals of samples", wanted, sampled),
    ]


def differences(what: str, expected: Any, found: Any) -> list[str]:
    """Return a sentence per kind of disagreement, with three examples."""
    if expected == found:
        return []
    wrong = [key for key in {*expected, *found} if expected.get(key) != found.get(key)]
    shown = sorted(wrong, key=repr)[:3]
    return [
        f"{what}: {len(wrong)} of {len(expected)} differ: "
        + "; ".join(f"{key}: expected {expected.get(key)}, found {found.get(key)}" for key in shown)
    ]


_NONE = (Decimal(), 0)


def _nonzero(totals: dict[Any, Any]) -> dict[Any, Any]:
    return {key: total for key, total in totals.items() if any(total)}
