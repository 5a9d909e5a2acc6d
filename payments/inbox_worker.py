"""Works the webhook inbox off, oldest first. Owns waiting and outages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog
from psycopg import OperationalError
from psycopg_pool import PoolTimeout

from core.clock import Clock
from payments.apply_webhook import apply_next_webhook
from payments.ports import PaymentStore, WebhookReader

_POLL_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
log = structlog.get_logger()


class InboxWorker:
    """One worker; several share the inbox (each locks the row that it works on)."""

    def __init__(self, store: PaymentStore, readers: Mapping[str, WebhookReader], clock: Clock) -> None:
        self._store, self._readers, self._clock = store, readers, clock

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; an outage of the store is waited out."""
        pause = _POLL_SECONDS
        while not stop.is_set():
            try:
                found = await self.work_once()
                pause = 0.0 if found else _POLL_SECONDS
            except (OperationalError, PoolTimeout, OSError) as error:
                pause = min(_LONGEST_PAUSE_SECONDS, max(pause, _POLL_SECONDS) * 2)
                log.warning("inbox.waiting", error=str(error), retry_in_seconds=pause)
            if pause:
                await _wait(stop, pause)

    async def work_once(self) -> bool:
        """Apply the oldest open webhook; False if there was none."""
        return await apply_next_webhook(store=self._store, readers=self._readers, clock=self._clock) is not None


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
