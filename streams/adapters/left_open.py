"""Ends transactions that the broker left open, though its coordinator says that they have ended.

A coordinator that finds no leader for a partition takes the partition for deleted and leaves out the marker that ends
the transaction there (Kafka's `TransactionMarkerChannelManager`: "these partitions are likely deleted already and
hence can be skipped"). The broker with the only replica, shutting down in order, looks just like that. Whoever reads
committed records then waits at the transaction's first record for ever, and the next marker of the same producer id
decides about it, whatever was meant. With replicas on other brokers the leader moves on first, and nothing is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from core.errors import must_hold
from core.journal import JournalEntry, decode_entry

log = structlog.get_logger()
ENDED = Counter("meterbook_transactions_left_open_total", "Transactions the broker left open, ended on taking over")
# How long a transaction that did end may take until readers of committed records see it.
_SETTLING_SECONDS = 5.0
_ASKED_TIMES = 25
_REQUEST_MS = 20_000


async def log_end(bootstrap: str, place: TopicPartition, *, is_stable: bool = False) -> int:
    """Return the partition's end, open transactions included; the last stable offset instead if `is_stable`."""
    asking = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        isolation_level="read_committed" if is_stable else "read_uncommitted",
        request_timeout_ms=_REQUEST_MS,
    )
    await asking.start()
    try:
        return int((await asking.end_offsets([place]))[place])
    finally:
        await asking.stop()


async def end_left_open(
    producer: AIOKafkaProducer,
    bootstrap: str,
    *,
    journal: TopicPartition,
    source: TopicPartition,
    group: str,
    others: Collection[TopicPartition],
) -> None:
    """End what a predecessor's transaction left open in the journal, and in whatever else it may have written to.

    `producer` has fenced the predecessor. The group's offset on the `source` says what became of the transaction: if it
    stands behind the open entries they count, otherwise nothing of them does and the events are counted again. Raises
    `KafkaError` if it stays open, `BrokenInvariantError` if offset and entries contradict each other.
    """
    end = await log_end(bootstrap, journal)
    stable = await _settled(bootstrap, journal, end)
    if stable >= end:
        return
    entries = await _open_entries(bootstrap, journal, stable, end)
    offset = await _committed_offset(bootstrap, group, source)
    counts = was_committed(entries, offset)
    log.critical(
        "transaction.left_open", partition=journal.partition, first=stable, end=end, offset=offset, counts=counts
    )
    await producer.begin_transaction()
    include(producer, [journal, *others])
    # Its own offset was left open as well: said again, or taken back.
    await producer.send_offsets_to_transaction({source: offset}, group)
    await (producer.commit_transaction() if counts else producer.abort_transaction())
    if await _settled(bootstrap, journal, end) < end:
        raise KafkaError(f"a transaction in {journal} stays open")
    ENDED.inc()


def include(producer: AIOKafkaProducer, places: Collection[TopicPartition]) -> None:
    """Let the open transaction end in further partitions, too, without writing a record there."""
    for place in places:
        # aiokafka offers no other way: `send` would leave a record that readers see if the transaction counts.
        producer._txn_manager.maybe_add_partition_to_txn(place)


def was_committed(entries: Sequence[JournalEntry], offset: int) -> bool:
    """Tell whether the group's offset stands behind open entries; raises `BrokenInvariantError` if amid them."""
    if not entries or offset <= entries[0].first:
        return False
    last = entries[-1].last
    must_hold(offset > last, f"offset {offset} is amid the open entries {entries[0].first}-{last}")
    return True


async def _settled(bootstrap: str, place: TopicPartition, end: int) -> int:
    """Return the last stable offset as soon as it is at `end`, or as it is after a while."""
    stable = await log_end(bootstrap, place, is_stable=True)
    for _ in range(_ASKED_TIMES):
        if stable >= end:
            break
        await asyncio.sleep(_SETTLING_SECONDS / _ASKED_TIMES)
        stable = await log_end(bootstrap, place, is_stable=True)
    return stable


async def _open_entries(bootstrap: str, place: TopicPartition, first: int, end: int) -> list[JournalEntry]:
    reader = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_uncommitted",
        enable_auto_commit=False,
        request_timeout_ms=_REQUEST_MS,
    )
    await reader.start()
    try:
        reader.assign([place])
        reader.seek(place, first)
        entries: list[JournalEntry] = []
        while await reader.position(place) < end:
            found = (await reader.getmany(place, timeout_ms=250)).get(place, [])
            entries += [decode_entry(record.value) for record in found if record.offset < end]
        return entries
    finally:
        await reader.stop()


async def _committed_offset(bootstrap: str, group: str, source: TopicPartition) -> int:
    """Return the offset the group has committed, 0 if none; what is left open does not count."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=_REQUEST_MS)
    await admin.start()
    try:
        stored = await admin.list_consumer_group_offsets(group, partitions=[source])
        return max(int(stored[source].offset), 0) if source in stored else 0
    finally:
        await admin.close()
