"""Writes down expired credits: `meterbook worker credits`. Several may run; what one has written no other writes."""

from __future__ import annotations

import asyncio

import structlog
from prometheus_client import Counter
from psycopg import OperationalError
from psycopg_pool import PoolTimeout

from core.clock import SystemClock
from runtime.postgres import create_pool
from runtime.settings import Settings
from subscriptions.adapters.postgres_credits import PostgresCreditBooks
from subscriptions.expire_credits import expire_credits

_PAUSE_SECONDS = 60
_EXPIRED = Counter("meterbook_credits_expired_total", "Credits whose expiry was written down", ["counter_account"])
log = structlog.get_logger()


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Write down what has expired, every minute, until `stop` is set."""
    clock = SystemClock()
    async with create_pool(settings, max_size=1) as pool:
        while not stop.is_set():
            try:
                entries = await expire_credits(PostgresCreditBooks(pool), now=clock.now())
            except (OperationalError, PoolTimeout, OSError) as error:
                # Nothing is lost by waiting: a draw looks at a credit's end itself.
                log.warning("credits.waiting", error=str(error), retry_in_seconds=_PAUSE_SECONDS)
                entries = []
            for entry in entries:
                _EXPIRED.labels(entry.credit.value).inc()
                log.info("credit.expired", tenant=entry.tenant_id, credit=entry.grant_id, amount=str(-entry.amount))
            try:
                await asyncio.wait_for(stop.wait(), _PAUSE_SECONDS)
            except TimeoutError:
                continue
