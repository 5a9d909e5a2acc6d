"""Transactions that Kafka's coordinator calls ended without having written the marker that ends them.

A broker that shuts down in order while it is the only replica does that now and then. Here it is brought about on
purpose: the broker stops checking that a partition belongs to the transaction, and the coordinator is not told of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from core.errors import BrokenInvariantError
from runtime.settings import Settings
from streams.adapters import kafka_journal
from streams.adapters.kafka_journal import KafkaJournal
from streams.adapters.left_open import log_end, was_committed
from tests.streams.test_journal_contract import (
    OTHER,
    PARTITION,
    KafkaLog,
    batch,
    entries_of,
    entry,
    kafka_log,  # noqa: F401 - a fixture
    once_visible,
    opened,
)

# The only broker of the embedded stack.
NODE = "1"


@pytest.fixture
async def unchecked(settings: Settings) -> AsyncIterator[None]:
    """A broker that takes records of transactions whose coordinator does not know of the partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()

    async def check(is_on: str) -> None:
        configs = {"transaction.partition.verification.enable": is_on}
        await admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, NODE, configs=configs)])

    await check("false")
    await asyncio.sleep(0.5)  # the broker tells nobody when it has read its own configuration
    yield
    await check("true")
    await admin.close()


def hide(journal: KafkaJournal, *, offsets: bool) -> None:
    """Let the next commit's markers be left out in all partitions, and in the group's offsets too if `offsets`."""
    assert journal._producer is not None
    manager = journal._producer._txn_manager
    names = (kafka_journal.USAGE_JOURNAL.name, kafka_journal.USAGE_REJECTED.name, kafka_journal.USAGE_EVENTS.name)
    manager._txn_partitions |= {TopicPartition(name, number) for name in names for number in (PARTITION, OTHER)}
    if offsets:
        manager._txn_consumer_group = journal._group


async def ends(settings: Settings) -> list[tuple[int, int]]:
    """Return the last stable offset and the end of the journal and of where the test's batches send events on."""
    places = [
        TopicPartition(kafka_journal.USAGE_JOURNAL.name, PARTITION),
        TopicPartition(kafka_journal.USAGE_EVENTS.name, OTHER),
        TopicPartition(kafka_journal.USAGE_REJECTED.name, PARTITION),
    ]
    bootstrap = settings.kafka_bootstrap
    return [(await log_end(bootstrap, one, is_stable=True), await log_end(bootstrap, one)) for one in places]


@pytest.mark.integration
async def test_what_the_broker_left_open_is_counted_again_where_the_offset_did_not_move(
    kafka_log: KafkaLog,  # noqa: F811
    settings: Settings,
    unchecked: None,
) -> None:
    first = await opened(kafka_log.open)
    await first.commit(batch(0, 6))
    # Its own marker must not come after what follows, which asks the coordinator for nothing.
    assert await once_visible(lambda: entries_of(first), [entry(0, 6)]) == [entry(0, 6)]
    hide(first, offsets=True)
    # The coordinator says that all is well.
    await first.commit(batch(7, 9, previous_last=6))
    found = await ends(settings)
    assert all(stable < end for stable, end in found), found
    second = await opened(kafka_log.open)
    # Nobody waits any more, and nothing of it counts: the next owner begins at 7 again.
    assert all(stable == end for stable, end in await ends(settings))
    assert await entries_of(second) == [entry(0, 6)]
    assert await kafka_log.next_offset() == 7
    await second.commit(batch(7, 8, previous_last=6))
    wanted = [entry(0, 6), entry(7, 8, previous_last=6)]
    assert await once_visible(lambda: entries_of(second), wanted) == wanted
    await opened(kafka_log.open)
    assert await kafka_log.sent_on() == [(b"globex", b"event 6"), (b"globex", b"event 8")]


@pytest.mark.integration
async def test_what_the_broker_left_open_counts_where_the_offset_stands_behind_it(
    kafka_log: KafkaLog,  # noqa: F811
    settings: Settings,
    unchecked: None,
) -> None:
    first = await opened(kafka_log.open)
    await first.commit(batch(0, 6))
    # Its own marker must not come after what follows, which asks the coordinator for nothing.
    assert await once_visible(lambda: entries_of(first), [entry(0, 6)]) == [entry(0, 6)]
    hide(first, offsets=False)
    await first.commit(batch(7, 9, previous_last=6))
    assert await once_visible(kafka_log.next_offset, 10) == 10
    second = await opened(kafka_log.open)
    assert await entries_of(second) == [entry(0, 6), entry(7, 9, previous_last=6)]
    assert all(stable == end for stable, end in await ends(settings))
    assert await kafka_log.sent_on() == [(b"globex", b"event 6"), (b"globex", b"event 9")]
    assert await kafka_log.next_offset() == 10


@pytest.mark.integration
async def test_the_next_commit_ends_the_one_before_wherever_that_wrote(
    kafka_log: KafkaLog,  # noqa: F811
    settings: Settings,
    unchecked: None,
) -> None:
    journal = await opened(kafka_log.open)
    hide(journal, offsets=False)
    await journal.commit(batch(0, 6))
    plain = batch(7, 9, previous_last=6)
    plain.dead_letters.clear()
    plain.misplaced.clear()
    await journal.commit(plain)
    whole = [(end, end) for _, end in await ends(settings)]
    assert await once_visible(lambda: ends(settings), whole) == whole
    assert await kafka_log.sent_on() == [(b"globex", b"event 6")]


@pytest.mark.integration
async def test_a_worker_that_nothing_follows_notices_and_gives_up(
    kafka_log: KafkaLog,  # noqa: F811
    settings: Settings,
    unchecked: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = asyncio.Event()
    monkeypatch.setattr(kafka_journal, "UNSEEN_SECONDS", 0.2)
    monkeypatch.setattr(kafka_journal, "end_process_if_failed", lambda task: task.exception() and ended.set())
    journal = await opened(kafka_log.open)
    await journal.commit(batch(0, 6))
    await once_visible(lambda: asyncio.sleep(0, journal._unseen), None)
    assert not ended.is_set()
    assert journal._unseen is None, "a commit that readers see needs no more looking"
    hide(journal, offsets=False)
    await journal.commit(batch(7, 9, previous_last=6))
    await asyncio.wait_for(ended.wait(), 20)


def test_an_offset_amid_open_entries_is_a_contradiction() -> None:
    open_ones = [entry(7, 9), entry(10, 12)]
    assert not was_committed(open_ones, 7)
    assert was_committed(open_ones, 13)
    assert not was_committed([], 5)
    with pytest.raises(BrokenInvariantError, match="amid the open entries 7-12"):
        was_committed(open_ones, 10)
