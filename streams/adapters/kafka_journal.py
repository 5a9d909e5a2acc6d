"""The journal in Kafka: fencing, loading, and the one transaction per micro-batch.

Order matters when a partition is taken over: first the producer starts (InitProducerId ends the predecessor's open
transaction and fences it), what the broker left open is ended, then the journal is read to its end, then records are
counted. The transactional id is
fixed per source partition, so a worker that was frozen and thawed cannot commit any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from core.journal import JournalEntry, decode_entry, encode_entry
from core.topics import USAGE_EVENTS, USAGE_JOURNAL, USAGE_REJECTED
from streams.adapters.lanes import end_process_if_failed
from streams.adapters.left_open import end_left_open, include, log_end
from streams.domain.meter_partition import MicroBatch
from streams.meter_lane import Committed

log = structlog.get_logger()
TRANSACTION_TIMEOUT_MS = 15_000
# A dead letter's body and key beyond these are cut, so that it always fits its topic.
LETTER_BODY_MAX = USAGE_REJECTED.max_bytes - 1_000_000
LETTER_KEY_MAX = 65_536
# So long after the last commit readers of committed records must see it.
UNSEEN_SECONDS = 10.0


def partition_of_key(key: bytes, partitions: int) -> int:
    """Return the partition Kafka's default partitioner (murmur2) gives a key."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


async def read_journal(bootstrap: str, partition: int, first: int = 0) -> AsyncIterator[tuple[int, JournalEntry]]:
    """Yield (journal offset, entry) of committed entries of a partition, from `first` to its present end.

    Where retention has taken the beginning, from what is left.
    """
    async for offset, raw in _read_journal_bytes(bootstrap, partition, first):
        yield offset, decode_entry(raw)


async def _read_journal_bytes(bootstrap: str, partition: int, first: int) -> AsyncIterator[tuple[int, bytes]]:
    reader = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=16_000_000,
        fetch_max_wait_ms=50,
        request_timeout_ms=20_000,
    )
    await reader.start()
    try:
        where = TopicPartition(USAGE_JOURNAL.name, partition)
        reader.assign([where])
        # Beyond the last stable offset: what a broken commit has written may still lie there, and who stops before it
        # counts the same events again.
        end = await log_end(bootstrap, where)
        beginning = (await reader.beginning_offsets([where]))[where]
        reader.seek(where, max(first, beginning))
        while await reader.position(where) < end:
            for record in (await reader.getmany(where, timeout_ms=250, max_records=500)).get(where, []):
                if record.offset < end:
                    yield record.offset, record.value
    finally:
        await reader.stop()


class KafkaJournal:
    """The journal of one source partition, owned by this process until someone else opens it."""

    def __init__(self, bootstrap: str, group: str, partition: int) -> None:
        self._bootstrap = bootstrap
        self._group = group
        self._partition = partition
        self._producer: AIOKafkaProducer | None = None
        # Where the newest transaction wrote, and the newest entry that readers of committed records may not see yet.
        self._touched: set[TopicPartition] = set()
        self._unseen: int | None = None
        self._watch: asyncio.Task[None] | None = None

    async def take_over(self) -> None:
        """Fence the previous owner, and end what a transaction of its left open."""
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            transactional_id=f"{self._group}-{USAGE_EVENTS.name}-{self._partition}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            acks="all",
            compression_type="lz4",
            max_request_size=USAGE_JOURNAL.max_bytes,
            max_batch_size=4_000_000,
            request_timeout_ms=20_000,
            # Kafka 4 now and then answers a transaction's first produce with NotEnoughReplicas; retried after this.
            retry_backoff_ms=20,
        )
        await self._producer.start()
        places = [TopicPartition(USAGE_REJECTED.name, self._partition)]
        places += [
            TopicPartition(USAGE_EVENTS.name, one) for one in await self._producer.partitions_for(USAGE_EVENTS.name)
        ]
        await end_left_open(
            self._producer,
            self._bootstrap,
            journal=self._place,
            source=TopicPartition(USAGE_EVENTS.name, self._partition),
            group=self._group,
            others=places,
        )
        self._watch = asyncio.create_task(self._watch_commits(), name=f"commits-{self._partition}")
        self._watch.add_done_callback(end_process_if_failed)

    def entries(self, first: int = 0) -> AsyncIterator[tuple[int, bytes]]:
        """Yield what was committed so far, from the journal offset `first` on; only meaningful after `take_over`."""
        return _read_journal_bytes(self._bootstrap, self._partition, first)

    async def entry_at(self, offset: int) -> bytes | None:
        """Return the entry's bytes at a journal offset, None if there is none (any more)."""
        async for found, raw in _read_journal_bytes(self._bootstrap, self._partition, offset):
            return raw if found == offset else None
        return None

    async def commit(self, batch: MicroBatch) -> Committed:
        """Commit the entry, dead letters, events sent on, and the source offset: all or nothing.

        Any error leaves the outcome in doubt; the caller must end the process.
        """
        assert self._producer is not None
        producer, partition = self._producer, self._partition
        touched = {self._place}
        touched |= {TopicPartition(USAGE_REJECTED.name, partition)} if batch.dead_letters else set()
        touched |= {TopicPartition(USAGE_EVENTS.name, home) for home, _, _ in batch.misplaced}
        async with producer.transaction():
            # The broker may have left the one before open; it ends wherever this one does.
            include(producer, self._touched - touched)
            entry = encode_entry(batch.entry)
            sent = [await producer.send(USAGE_JOURNAL.name, entry, partition=partition)]
            for letter, key in batch.dead_letters:
                kept, key = letter.fitting(LETTER_BODY_MAX), key and key[:LETTER_KEY_MAX]
                headers = kept.headers()
                sent.append(
                    await producer.send(USAGE_REJECTED.name, kept.body, key=key, partition=partition, headers=headers)
                )
            for home, key, raw in batch.misplaced:
                sent.append(await producer.send(USAGE_EVENTS.name, raw, key=key, partition=home))
            offset = {TopicPartition(USAGE_EVENTS.name, partition): batch.entry.last + 1}
            await producer.send_offsets_to_transaction(offset, self._group)
            # aiokafka commits a transaction although a produce of it was refused: only these futures tell.
            written = await asyncio.gather(*sent)
        self._touched, self._unseen = touched, written[0].offset
        return Committed(written[0].offset, entry)

    async def close(self) -> None:
        """Stop the producer; one that was fenced has nothing open, so that it fails to stop loses nothing."""
        if self._watch is not None:
            self._watch.cancel()
        if self._producer is None:
            return
        try:
            await self._producer.stop()
        except KafkaError as error:
            log.info("journal.closed_by_force", partition=self._partition, error=repr(error))
            await self._producer.client.close()

    @property
    def _place(self) -> TopicPartition:
        return TopicPartition(USAGE_JOURNAL.name, self._partition)

    async def _watch_commits(self) -> None:
        """Fail, which ends the process, if a commit stays unseen although none follows: taking over again ends it."""
        while True:
            before = self._unseen
            await asyncio.sleep(UNSEEN_SECONDS)
            if before is None or self._unseen != before:
                continue
            try:
                stable = await log_end(self._bootstrap, self._place, is_stable=True)
            except (KafkaError, OSError) as error:
                log.warning("commit.not_looked_for", partition=self._partition, error=repr(error))
                continue
            if self._unseen != before:
                continue
            if stable <= before:
                raise KafkaError(f"the broker left the transaction at {before} of {self._place} open")
            self._unseen = None
