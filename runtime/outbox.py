"""The outbox: an event is written in the transaction of the change it announces, and published afterwards.

`append_event` is for stages (handed in as a port); `OutboxRelay` is the worker that publishes. A crash between
publishing and marking publishes again: every payload names its cause, and consumers ignore what they have seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from prometheus_client import Gauge

from core.clock import Clock
from core.errors import BrokenInvariantError
from core.topics import Topic
from runtime.postgres import Connection, Pool

OLDEST_SECONDS = Gauge("meterbook_outbox_oldest_seconds", "Age of the oldest event that is not published yet")
_APPEND = """
INSERT INTO outbox (event_id, topic, key, payload, created_at)
SELECT event_id, topic, key, payload, %(now)s
FROM unnest(%(ids)s::text[], %(topics)s::text[], %(keys)s::text[], %(payloads)s::bytea[])
    WITH ORDINALITY AS given (event_id, topic, key, payload, place)
ORDER BY place
ON CONFLICT (event_id) DO NOTHING
"""
_BATCH = 500
_POLL_SECONDS = 0.2
# A producer gives a record up itself after 40 s without the broker. One that says nothing for so long never will.
_SILENT_SECONDS = 180.0
_RELAY_LOCK = 7_410_222
log = structlog.get_logger()


class SilentProducerError(BrokenInvariantError):
    """The producer neither confirms nor refuses: the process ends, and is started again with another."""

    code = "silent_producer"


@dataclass(frozen=True, slots=True)
class Event:
    """What is announced on a topic; `event_id` names its cause."""

    topic: Topic
    key: str
    event_id: str
    payload: bytes


async def append_event(
    connection: Connection, topic: Topic, *, key: str, event_id: str, payload: bytes, now: datetime
) -> None:
    """Announce an event within the caller's transaction; the same `event_id` twice is written once."""
    await append_events(connection, [Event(topic, key, event_id, payload)], now)


async def append_events(connection: Connection, events: Sequence[Event], now: datetime) -> None:
    """Announce events in their order within the caller's transaction; the same `event_id` twice is written once."""
    given = {
        "ids": [one.event_id for one in events],
        "topics": [one.topic.name for one in events],
        "keys": [one.key for one in events],
        "payloads": [one.payload for one in events],
        "now": now,
    }
    await connection.execute(_APPEND, given)


class OutboxRelay:
    """Publishes the outbox in order. Several may run; an advisory lock lets one work at a time, so order holds."""

    def __init__(
        self, pool: Pool, producer: AIOKafkaProducer, clock: Clock, *, silent_seconds: float = _SILENT_SECONDS
    ) -> None:
        self._pool, self._producer, self._clock, self._silent_seconds = pool, producer, clock, silent_seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop` is set; an outage of either side is waited out.

        Raises `SilentProducerError` if the producer lost its way.
        """
        delay = _POLL_SECONDS
        while not stop.is_set():
            try:
                published = await self.publish_pending()
                delay = 0.0 if published == _BATCH else _POLL_SECONDS
            except (KafkaError, psycopg.Error, OSError) as error:
                delay = min(5.0, max(delay, _POLL_SECONDS) * 2)
                log.warning("outbox.waiting", error=str(error), retry_in_seconds=delay)
            if delay:
                await _sleep_unless(stop, delay)

    async def publish_pending(self) -> int:
        """Publish up to one batch of open rows and mark them; returns how many."""
        async with self._pool.connection() as connection, connection.transaction():
            locked = await (
                await connection.execute("SELECT pg_try_advisory_xact_lock(%s) AS mine", (_RELAY_LOCK,))
            ).fetchone()
            if not (locked and locked["mine"]):
                return 0
            rows = await (
                await connection.execute(
                    "SELECT outbox_id, event_id, topic, key, payload, created_at FROM outbox WHERE published_at IS NULL"
                    " ORDER BY outbox_id LIMIT %s",
                    (_BATCH,),
                )
            ).fetchall()
            if not rows:
                OLDEST_SECONDS.set(0)
                return 0
            OLDEST_SECONDS.set(max(0.0, (self._clock.now() - rows[0]["created_at"]).total_seconds()))
            await self._send(rows)
            await connection.execute(
                "UPDATE outbox SET published_at = %s WHERE outbox_id = ANY(%s)",
                (self._clock.now(), [row["outbox_id"] for row in rows]),
            )
        log.info("outbox.published", events=len(rows))
        return len(rows)

    async def _send(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send events and wait until all are confirmed."""
        try:
            async with asyncio.timeout(self._silent_seconds):
                sent = [
                    await self._producer.send(
                        row["topic"],
                        value=bytes(row["payload"]),
                        key=row["key"].encode(),
                        headers=[("meterbook_event_id", row["event_id"].encode())],
                    )
                    for row in rows
                ]
                await asyncio.gather(*sent)
        except TimeoutError as error:
            raise SilentProducerError(f"nothing was heard of {len(rows)} event(s)") from error


async def _sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
