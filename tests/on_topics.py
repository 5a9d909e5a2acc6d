"""What stands on topics, read with Kafka's own client and nothing of the product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition


@dataclass(frozen=True)
class Refused:
    """A dead letter as found on `usage.rejected`."""

    code: str
    reason: str
    key: bytes | None
    body: bytes | None


async def read_all(bootstrap: str, topic: str, partition: int | None = None) -> Any:
    """Yield every committed record of a topic, or of one partition, up to its end at the time of the call."""
    reader = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=16_000_000,
    )
    await reader.start()
    try:
        numbers = await reader._client._wait_on_metadata(topic) if partition is None else {partition}
        places = [TopicPartition(topic, number) for number in sorted(numbers)]
        reader.assign(places)
        await reader.seek_to_beginning(*places)
        ends = await reader.end_offsets(places)
        for place in places:
            while await reader.position(place) < ends[place]:
                for record in (await reader.getmany(place, timeout_ms=200)).get(place, []):
                    if record.offset < ends[place]:
                        yield record
    finally:
        await reader.stop()


async def ends(bootstrap: str, topic: str) -> dict[int, int]:
    """Return the end offset of every partition of a topic."""
    reader = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed")
    await reader.start()
    try:
        places = [TopicPartition(topic, number) for number in await reader._client._wait_on_metadata(topic)]
        return {place.partition: end for place, end in (await reader.end_offsets(places)).items()}
    finally:
        await reader.stop()
