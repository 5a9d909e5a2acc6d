"""The journal's contract, on memory and on Kafka: a micro-batch is committed whole or not at all, by one owner."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from core.dead_letter import DeadLetter
from core.errors import BrokenInvariantError
from core.journal import (
    FORMAT,
    CorrectionRow,
    JournalEntry,
    LateRow,
    PeriodRow,
    SampleRow,
    WindowRow,
    decode_entry,
    encode_entry,
)
from core.topics import USAGE_EVENTS, USAGE_JOURNAL, USAGE_REJECTED
from runtime.settings import Settings
from streams.adapters import kafka_journal
from streams.adapters.kafka_journal import KafkaJournal, partition_of_key, read_journal
from streams.domain.meter_partition import MicroBatch
from streams.meter_lane import Committed, Journal
from tests.on_topics import read_all

PARTITION, OTHER = 0, 1
GROUP = "contract-meter"
_numbers = itertools.count()


class FencedError(Exception):
    """Somebody else has taken the partition over."""


class MemoryLog:
    """What all owners of a partition share: what readers of committed records see."""

    def __init__(self) -> None:
        self.owner: object = None
        self.committed: list[MicroBatch] = []

    def open(self) -> Journal:
        return MemoryJournal(self)

    async def letters(self) -> list[DeadLetter]:
        return [letter for batch in self.committed for letter, _ in batch.dead_letters]

    async def sent_on(self) -> list[tuple[bytes, bytes]]:
        return [(key, raw) for batch in self.committed for _, key, raw in batch.misplaced]

    async def next_offset(self) -> int:
        return self.committed[-1].entry.last + 1 if self.committed else 0


class MemoryJournal:
    """The port in memory."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    async def take_over(self) -> None:
        self._log.owner = self

    async def entries(self, first: int = 0) -> AsyncIterator[tuple[int, bytes]]:
        for offset, batch in enumerate(list(self._log.committed)):
            if offset >= first:
                yield offset, encode_entry(batch.entry)

    async def entry_at(self, offset: int) -> bytes | None:
        committed = self._log.committed
        return encode_entry(committed[offset].entry) if offset < len(committed) else None

    async def commit(self, batch: MicroBatch) -> Committed:
        if self._log.owner is not self:
            raise FencedError
        self._log.committed.append(batch)
        return Committed(len(self._log.committed) - 1, encode_entry(batch.entry))

    async def close(self) -> None:
        return


class KafkaLog:
    """The same on Kafka, on topics of its own."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._journals: list[KafkaJournal] = []

    def open(self) -> Journal:
        self._journals.append(KafkaJournal(self._bootstrap, self.group, PARTITION))
        return self._journals[-1]

    @property
    def group(self) -> str:
        return f"{GROUP}-{kafka_journal.USAGE_JOURNAL.name}"

    async def letters(self) -> list[DeadLetter]:
        topic = kafka_journal.USAGE_REJECTED.name
        return [
            DeadLetter.from_record(record.value, record.headers) async for record in read_all(self._bootstrap, topic)
        ]

    async def sent_on(self) -> list[tuple[bytes, bytes]]:
        topic = kafka_journal.USAGE_EVENTS.name
        return [(record.key, record.value) async for record in read_all(self._bootstrap, topic, OTHER)]

    async def next_offset(self) -> int:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            stored = await admin.list_consumer_group_offsets(self.group)
            place = TopicPartition(kafka_journal.USAGE_EVENTS.name, PARTITION)
            return max(stored[place].offset, 0) if place in stored else 0
        finally:
            await admin.close()

    async def close(self) -> None:
        for journal in self._journals:
            await journal.close()


@pytest.fixture
async def kafka_log(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KafkaLog]:
    """A log on three fresh topics: other tests' workers must not read what these tests write."""
    number = next(_numbers)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        for topic, limit in [(USAGE_EVENTS, 2_000_000), (USAGE_JOURNAL, 50_000), (USAGE_REJECTED, 20_000_000)]:
            own = replace(topic, name=f"contract.{number}.{topic.name}")
            monkeypatch.setattr(kafka_journal, topic.name.upper().replace(".", "_"), own)
            await admin.create_topics([NewTopic(own.name, 2, 1, topic_configs={"max.message.bytes": str(limit)})])
    finally:
        await admin.close()
    log = KafkaLog(settings.kafka_bootstrap)
    yield log
    await log.close()
    # A fenced producer leaves failed futures; collected in the middle of an ast.parse, they upset CPython 3.11.
    gc.collect()


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.integration)])
def log(request: pytest.FixtureRequest) -> Any:
    return MemoryLog() if request.param == "memory" else request.getfixturevalue("kafka_log")


def entry(first: int, last: int, *, previous_last: int = -1, identities: bytes = b"i" * 16) -> JournalEntry:
    return JournalEntry(
        format=FORMAT,
        previous_last=previous_last,
        first=first,
        last=last,
        owner="contract",
        oldest_received_ms=1,
        received_ms=2,
        accepted=1,
        duplicates=0,
        rejected=1,
        identities=identities,
        digests=b"dddd",
        places=b"\0\0\0\0",
        windows=[WindowRow("acme", "tokens", ("gpt4", "größe"), 1_700_000_040, first, "9" * 40, 1)],
        periods=[PeriodRow("acme", "tokens", "2023-11", first, str(2**70), 1)],
        samples=[SampleRow("acme", "users", (), 1_700_000_040_000_000, "ann", first, 0)],
        corrections=[CorrectionRow("acme", "void", "s", "v", "s", "e", "typo", last, 0, 2)],
        late=[LateRow("acme", "tokens", ("gpt4", "größe"), 1_700_000_040, "-1", -1)],
        refused=[(last, -1)],
        dimension_names={"tokens": ("model", "class"), "users": ()},
        aggregations={"tokens": "sum", "users": "unique"},
        activated={"tokens": 0},
        watermark_us=1_700_000_040_000_000,
    )


def batch(first: int, last: int, *, previous_last: int = -1, **changes: Any) -> MicroBatch:
    letter = DeadLetter("not_json", f"bad {last}", "usage.events", PARTITION, last, -1, 2, b"\x00\xff")
    return MicroBatch(
        entry(first, last, previous_last=previous_last, **changes),
        [(letter, b"key")],
        [(OTHER, b"globex", b"event %d" % last)],
    )


async def entries_of(journal: Journal) -> list[JournalEntry]:
    return [decode_entry(raw) async for _, raw in journal.entries(0)]


async def opened(open_journal: Callable[[], Journal]) -> Journal:
    journal = open_journal()
    await journal.take_over()
    return journal


async def once_visible(look: Callable[[], Awaitable[Any]], wanted: Any) -> Any:
    """Return what `look` gives, looked at until it is `wanted` or it is clear that it will not be.

    Kafka confirms a commit once it is decided; readers see it a moment later.
    """
    found = await look()
    for _ in range(100):
        if found == wanted:
            break
        await asyncio.sleep(0.05)
        found = await look()
    return found


async def test_all_that_a_micro_batch_changed_appears_together(log: Any) -> None:
    journal = await opened(log.open)
    assert await entries_of(journal) == []
    await journal.commit(batch(0, 6))
    assert await once_visible(lambda: entries_of(journal), [entry(0, 6)]) == [entry(0, 6)]
    # Another owner's start waits until all of the commit is visible.
    await opened(log.open)
    assert await log.letters() == [DeadLetter("not_json", "bad 6", "usage.events", PARTITION, 6, -1, 2, b"\x00\xff")]
    assert await log.sent_on() == [(b"globex", b"event 6")]
    assert await log.next_offset() == 7


async def test_entries_come_back_in_order_for_the_next_owner(log: Any) -> None:
    first = await opened(log.open)
    for number in range(5):
        await first.commit(batch(number * 10, number * 10 + 9, previous_last=number * 10 - 1))
    second = await opened(log.open)
    assert await entries_of(second) == [entry(n * 10, n * 10 + 9, previous_last=n * 10 - 1) for n in range(5)]


async def test_reading_begins_where_it_is_told_to(log: Any) -> None:
    journal = await opened(log.open)
    commits = [await journal.commit(batch(n, n, previous_last=n - 1)) for n in range(3)]
    journal = await opened(log.open)
    later = [one async for one in journal.entries(commits[1].offset)]
    found = [(offset, decode_entry(raw).last) for offset, raw in later]
    assert found == [(commits[1].offset, 1), (commits[2].offset, 2)]
    # The very bytes that were committed, so that a checkpoint can tell its own journal from another.
    assert await journal.entry_at(commits[1].offset) == commits[1].raw
    assert decode_entry(commits[1].raw) == entry(1, 1, previous_last=0)
    assert await journal.entry_at(commits[2].offset + 100) is None


async def test_who_was_fenced_can_commit_nothing_any_more(log: Any) -> None:
    frozen = await opened(log.open)
    await frozen.commit(batch(0, 3))
    owner = await opened(log.open)
    with pytest.raises((FencedError, KafkaError)):
        await frozen.commit(batch(4, 7, previous_last=3))
    assert await entries_of(owner) == [entry(0, 3)]
    assert len(await log.letters()) == len(await log.sent_on()) == 1
    assert await log.next_offset() == 4
    await owner.commit(batch(4, 5, previous_last=3))
    assert await entries_of(await opened(log.open)) == [entry(0, 3), entry(4, 5, previous_last=3)]
    assert await log.next_offset() == 6


async def test_two_commits_send_each_misplaced_event_once(log: Any) -> None:
    journal = await opened(log.open)
    await journal.commit(batch(0, 3))
    await journal.commit(batch(4, 9, previous_last=3))
    await opened(log.open)
    assert await log.sent_on() == [(b"globex", b"event 3"), (b"globex", b"event 9")]


@pytest.mark.integration
async def test_a_commit_of_which_a_part_was_refused_by_the_broker_leaves_nothing(kafka_log: KafkaLog) -> None:
    journal = await opened(kafka_log.open)
    await journal.commit(batch(0, 3))
    too_much = random.Random(1).randbytes(16 * 10_000)
    with pytest.raises(MessageSizeTooLargeError):
        await journal.commit(batch(4, 9, previous_last=3, identities=too_much))
    successor = await opened(kafka_log.open)
    assert await entries_of(successor) == [entry(0, 3)]
    assert len(await kafka_log.letters()) == len(await kafka_log.sent_on()) == 1
    assert await kafka_log.next_offset() == 4


@pytest.mark.integration
async def test_an_open_transaction_of_a_dead_owner_is_invisible_and_ended_by_the_next(
    kafka_log: KafkaLog, settings: Settings
) -> None:
    topic = kafka_journal.USAGE_JOURNAL.name
    dead = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap,
        transactional_id=f"{kafka_log.group}-{kafka_journal.USAGE_EVENTS.name}-{PARTITION}",
    )
    await dead.start()
    await dead.begin_transaction()
    await dead.send_and_wait(topic, encode_entry(entry(0, 1)), partition=PARTITION)
    owner = await opened(kafka_log.open)
    assert await entries_of(owner) == []
    await owner.commit(batch(0, 2))
    with pytest.raises(KafkaError):
        await dead.commit_transaction()
    assert await entries_of(await opened(kafka_log.open)) == [entry(0, 2)]
    await dead.stop()


@pytest.mark.integration
async def test_reading_ends_where_the_journal_ended_when_it_was_asked(kafka_log: KafkaLog, settings: Settings) -> None:
    journal = await opened(kafka_log.open)
    await journal.commit(batch(0, 1))
    await journal.commit(batch(2, 3, previous_last=1))
    journal = await opened(kafka_log.open)
    seen = []
    async for offset, found in read_journal(settings.kafka_bootstrap, PARTITION):
        seen.append((offset, found.last))
        await journal.commit(batch(found.last + 3, found.last + 4, previous_last=found.last + 2))
    assert [last for _, last in seen] == [1, 3]
    assert seen[0][0] < seen[1][0]


@pytest.mark.integration
async def test_a_letter_larger_than_its_topic_is_cut_and_says_so(kafka_log: KafkaLog) -> None:
    journal = await opened(kafka_log.open)
    body = b"[" * (kafka_journal.LETTER_BODY_MAX + 5)
    letter = DeadLetter("too_large", "too large", "usage.events", PARTITION, 0, -1, 2, body)
    await journal.commit(MicroBatch(entry(0, 0), [(letter, b"k" * 2_000_000)], []))
    [found] = await kafka_log.letters()
    assert (found.code, found.body) == ("too_large", body[:-5])
    assert f"of {len(body)} bytes" in found.reason


@pytest.mark.integration
async def test_a_record_that_is_no_journal_entry_stops_the_reader(kafka_log: KafkaLog, settings: Settings) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap)
    await producer.start()
    await producer.send_and_wait(kafka_journal.USAGE_JOURNAL.name, b"\x93\x01\x02\x03", partition=PARTITION)
    await producer.stop()
    journal = await opened(kafka_log.open)
    with pytest.raises(BrokenInvariantError):
        await entries_of(journal)


@pytest.mark.integration
async def test_keys_lead_where_producers_send_them(kafka_log: KafkaLog, settings: Settings) -> None:
    topic = kafka_journal.USAGE_EVENTS.name
    keys = [b"acme", b"globex", "größe".encode(), b"", b"\x00", *(b"tenant-%d" % number for number in range(50))]
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap)
    await producer.start()
    try:
        confirmed = await asyncio.gather(*[await producer.send(topic, b"{}", key=key) for key in keys])
    finally:
        await producer.stop()
    assert [place.partition for place in confirmed] == [partition_of_key(key, 2) for key in keys]
    assert {place.partition for place in confirmed} == {0, 1}
