"""Dead letters on Kafka: bounded reads without a consumer group, and replays to their source topics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from core.topics import ALL_TOPICS
from metering.dead_letters.domain.letter import Letter, LetterHead, Place, head_of, read_letter
from metering.dead_letters.domain.replay import Replay
from metering.dead_letters.ports import Partition
from runtime.kafka_ranges import RangeReader, read_range
from runtime.kafka_topics import partitions_of
from runtime.settings import Settings
from runtime.topic_consumer import create_producer

_CALL_SECONDS = 30.0
# Two wanted letters closer than this are read in one go, what lies between dropped.
_GAP = 200
_TOPICS = {topic.name: topic for topic in ALL_TOPICS}


class KafkaLetters:
    """Implements `Letters`: one connection, one read at a time; connects when first used."""

    def __init__(self, settings: Settings, *, call_seconds: float = _CALL_SECONDS) -> None:
        self._settings = settings
        self._reader = RangeReader(settings, "the dead letters", call_seconds=call_seconds)

    async def close(self) -> None:
        """Disconnect."""
        await self._reader.close()

    async def bounds(self, topics: Sequence[str]) -> dict[Partition, tuple[int, int]]:
        """Return the range of offsets of every partition."""
        places = [
            TopicPartition(name, partition)
            for name in topics
            for partition in range(partitions_of(_TOPICS[name], self._settings))
        ]
        async with self._reader.reading() as consumer:
            firsts = await consumer.beginning_offsets(places)
            ends = await consumer.end_offsets(places)
        return {(place.topic, place.partition): (firsts[place], ends[place]) for place in places}

    async def offsets_at(self, partitions: Sequence[Partition], instant_ms: int) -> dict[Partition, int]:
        """Return the first offset at or after an instant."""
        places = [TopicPartition(*partition) for partition in partitions]
        async with self._reader.reading() as consumer:
            found = await consumer.offsets_for_times(dict.fromkeys(places, max(0, instant_ms)))
            ends = await consumer.end_offsets(places)
        return {
            (place.topic, place.partition): ends[place]
            if found[place] is None
            else min(found[place].offset, ends[place])
            for place in places
        }

    async def heads(self, partition: Partition, first: int, end: int) -> list[LetterHead]:
        """Return the letters in a range of offsets, without their bodies."""
        async with self._reader.reading() as consumer:
            return [
                head_of(_letter(record))
                async for record in read_range(consumer, TopicPartition(*partition), first, end)
            ]

    async def load(self, places: Sequence[Place], bytes_max: int) -> list[Letter]:
        """Return letters with their bodies, until there are `bytes_max` bytes of them."""
        found: list[Letter] = []
        size = 0
        async with self._reader.reading() as consumer:
            ends = await consumer.end_offsets(
                sorted({TopicPartition(p.topic, p.partition) for p in self._known(places)})
            )
            for run in _runs(self._known(places)):
                wanted = {place.offset for place in run}
                where = TopicPartition(run[0].topic, run[0].partition)
                end = min(run[-1].offset + 1, ends[where])
                async for record in read_range(consumer, where, run[0].offset, end):
                    if record.offset not in wanted:
                        continue
                    found.append(_letter(record))
                    size += len(record.value or b"")
                    if size >= bytes_max:
                        return found
        return found

    def _known(self, places: Sequence[Place]) -> list[Place]:
        """Return the places in order, without those on partitions that do not exist (asking for one waits for ever)."""
        return sorted(
            place
            for place in places
            if place.topic in _TOPICS and place.partition < partitions_of(_TOPICS[place.topic], self._settings)
        )


class KafkaLetterSender:
    """Implements `LetterSender` with an idempotent producer; connects when first used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._turn = asyncio.Lock()

    async def close(self) -> None:
        """Disconnect."""
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None

    async def send(self, replays: Sequence[Replay]) -> list[Place | str]:
        """Send all and wait for each; a producer of which a record was refused is not used again."""
        async with self._turn:
            try:
                producer = self._producer or await self._connect()
                sent: list[Any] = [
                    await producer.send(
                        replay.topic,
                        replay.value,
                        key=replay.key,
                        partition=replay.partition,
                        headers=list(replay.headers),
                    )
                    for replay in replays
                ]
            except (KafkaError, OSError) as error:
                # Some may have been sent: all count as not confirmed, and sending them again is safe.
                await self._give_up()
                return [f"the broker does not answer: {error!r}"] * len(replays)
            confirmed = await asyncio.gather(*sent, return_exceptions=True)
            results: list[Place | str] = []
            for found in confirmed:
                if isinstance(found, BaseException):
                    results.append(f"the broker did not confirm: {found!r}")
                else:
                    results.append(Place(found.topic, found.partition, found.offset))
            if any(isinstance(result, str) for result in results):
                await self._give_up()
            return results

    async def _connect(self) -> AIOKafkaProducer:
        producer = create_producer(self._settings)
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer
        return producer

    async def _give_up(self) -> None:
        failed, self._producer = self._producer, None
        if failed is not None:
            await failed.stop()


def _runs(places: Sequence[Place]) -> list[list[Place]]:
    """Cut ordered places where the partition changes or much lies between two."""
    runs: list[list[Place]] = []
    for place in places:
        last = runs[-1][-1] if runs else None
        if (
            last
            and (last.topic, last.partition) == (place.topic, place.partition)
            and place.offset - last.offset <= _GAP
        ):
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


def _letter(record: Any) -> Letter:
    place = Place(record.topic, record.partition, record.offset)
    return read_letter(place, record.timestamp, record.key, record.value, record.headers)
