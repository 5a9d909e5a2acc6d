"""Usage on its way to Kafka. Owns how long the broker has to confirm, and how much may wait for it.

Not an idempotent producer on purpose: events carry their identity and the stream counts each once, while an
idempotent aiokafka producer that gave a batch up can be left with a gap in its sequence and refuse all further work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from prometheus_client import Gauge

from api.ports import NotConfirmedError, OverloadedError
from core.topics import USAGE_EVENTS
from runtime.settings import Settings

_CONFIRM_SECONDS = 5.0
_WAITING_BYTES_MAX = 64 * 1024 * 1024
_LONGEST_PAUSE_SECONDS = 5.0
# A broker that is back is found again within a second; after so long the producer itself is in doubt.
_REPLACE_SECONDS = 15.0
log = structlog.get_logger()
_WAITING = Gauge("meterbook_api_waiting_bytes", "Usage that waits for the broker's confirmation")


class KafkaPublisher:
    """Implements `api.ports.UsagePublisher`; reaches the broker in the background, so the API starts without it."""

    def __init__(
        self,
        settings: Settings,
        *,
        confirm_seconds: float = _CONFIRM_SECONDS,
        waiting_bytes_max: int = _WAITING_BYTES_MAX,
        replace_seconds: float = _REPLACE_SECONDS,
    ) -> None:
        self._settings, self._confirm_seconds, self._waiting_bytes_max = settings, confirm_seconds, waiting_bytes_max
        self._replace_seconds = replace_seconds
        self._producer: AIOKafkaProducer | None = None
        self._starting: asyncio.Task[None] | None = None
        # Of the loop's clock: since when nothing was confirmed. None: the last was.
        self._silent_since: float | None = None
        self._waiting_bytes = 0

    async def open(self) -> None:
        """Begin to connect; returns at once."""
        self._starting = asyncio.create_task(self._connect(), name="kafka-connect")

    async def close(self) -> None:
        """Deliver what waits and disconnect."""
        if self._starting is not None:
            self._starting.cancel()
            with suppress(asyncio.CancelledError):
                await self._starting
        if self._producer is not None:
            await self._producer.stop()

    async def publish(self, records: Sequence[tuple[str, bytes]]) -> None:
        """Publish (tenant, value) records; returns when all are confirmed by all in-sync replicas."""
        producer = self._producer
        if producer is None:
            raise NotConfirmedError("the broker is not reachable yet; nothing was taken")
        size = sum(len(value) for _, value in records)
        if self._waiting_bytes + size > self._waiting_bytes_max:
            raise OverloadedError("too much waits for the broker; nothing was taken")
        self._waiting_bytes += size
        _WAITING.inc(size)
        try:
            async with asyncio.timeout(self._confirm_seconds):
                sent = [
                    await producer.send(USAGE_EVENTS.name, value=value, key=tenant.encode())
                    for tenant, value in records
                ]
                for confirmed in sent:
                    await confirmed
            self._silent_since = None
        except (KafkaError, TimeoutError, OSError) as error:
            log.warning("usage.not_confirmed", error=repr(error), records=len(records))
            self._doubt(producer)
            raise NotConfirmedError(
                "the broker did not confirm in time; nothing is promised, send the same ids again"
            ) from error
        finally:
            self._waiting_bytes -= size
            _WAITING.dec(size)

    async def check(self) -> None:
        """Return when the broker answers; raises otherwise."""
        if self._producer is None:
            raise NotConfirmedError("the broker is not reachable yet")
        await self._producer.client.fetch_all_metadata()

    async def _connect(self) -> None:
        pause = 0.1
        while True:
            producer = self._create()
            try:
                await producer.start()
            except (KafkaError, OSError) as error:
                await producer.stop()
                log.warning("usage.broker_unreachable", error=repr(error), retry_in_seconds=pause)
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)
            else:
                self._producer = producer
                return

    def _doubt(self, producer: AIOKafkaProducer) -> None:
        """Begin to put another in a producer's place if it has been silent for long: it may have lost its way."""
        now = asyncio.get_running_loop().time()
        if self._silent_since is None:
            self._silent_since = now
        replacing = self._starting is not None and not self._starting.done()
        if now - self._silent_since >= self._replace_seconds and not replacing and producer is self._producer:
            log.warning("usage.producer_replaced", silent_seconds=round(now - self._silent_since))
            self._silent_since = now
            self._starting = asyncio.create_task(self._replace(producer), name="kafka-replace")

    async def _replace(self, producer: AIOKafkaProducer) -> None:
        await self._connect()
        # What it still holds was refused long ago: its senders ask again.
        with suppress(KafkaError, TimeoutError, OSError):
            await asyncio.wait_for(producer.stop(), self._confirm_seconds)

    def _create(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka_bootstrap,
            acks="all",
            # Requests at the same time share a batch; one alone waits two milliseconds.
            linger_ms=2,
            max_batch_size=1_000_000,
            max_request_size=20_000_000,
            compression_type="lz4",
            retry_backoff_ms=50,
            request_timeout_ms=int(self._confirm_seconds * 1_000),
        )
