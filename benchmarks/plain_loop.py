"""The ceiling: aiokafka's `getmany` and msgspec, nothing else. No validation, no dedupe, no totals, no commit.

Run as a process by the benchmark: `python -m benchmarks.plain_loop BOOTSTRAP MESSAGES single|batch`; prints one JSON
line.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.engines import PARTITIONS
from core.topics import USAGE_EVENTS
from streams.adapters.batch_transport import FETCH_BYTES, FETCH_BYTES_PER_PARTITION


class Event(msgspec.Struct, gc=False):
    """The leanest form a meter could use: the attributes that are needed, quantities left undecoded."""

    id: str
    source: str
    type: str
    subject: str
    time: str
    data: msgspec.Raw


async def measure(bootstrap: str, messages: int, form: str) -> dict[str, float]:
    """Read `messages` messages from the beginning; the clock runs from the first fetch to the last decode."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        # As the meter worker fetches.
        max_partition_fetch_bytes=FETCH_BYTES_PER_PARTITION,
        fetch_max_bytes=FETCH_BYTES,
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    decode_one = msgspec.json.Decoder(Event).decode
    decode_many = msgspec.json.Decoder(list[Event]).decode
    places = [TopicPartition(USAGE_EVENTS.name, partition) for partition in range(PARTITIONS)]
    consumer.assign(places)
    await consumer.seek_to_beginning(*places)
    read, events = 0, 0
    began, cpu_began = time.time(), time.process_time()
    while read < messages:
        for records in (await consumer.getmany(timeout_ms=1_000)).values():
            read += len(records)
            if form == "batch":
                for record in records:
                    events += len(decode_many(record.value))
            else:
                for record in records:
                    decode_one(record.value)
                events += len(records)
    ended, cpu_ended = time.time(), time.process_time()
    await consumer.stop()
    return {"events": events, "seconds": ended - began, "cpu_seconds": cpu_ended - cpu_began}


def main() -> None:
    """Measure as the arguments say."""
    bootstrap, messages, form = sys.argv[1:]
    print(json.dumps(asyncio.run(measure(bootstrap, int(messages), form))))


if __name__ == "__main__":
    main()
