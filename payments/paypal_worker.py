"""Worker of PayPal's lane: captures what payers approved. All else of the lane is `payments.upkeep_worker`'s."""

from __future__ import annotations

import asyncio

import structlog
from psycopg import OperationalError
from psycopg_pool import PoolTimeout

from core.clock import SystemClock
from payments.adapters.paypal_provider import create_paypal_provider, has_paypal
from payments.adapters.postgres_captures import PostgresCaptures
from payments.adapters.postgres_store import PostgresPayments
from payments.capture_paypal_order import capture_approved_orders
from runtime.postgres import create_pool
from runtime.settings import Settings

_PAUSE_SECONDS = 1
log = structlog.get_logger()


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Work until `stop` is set, several beside each other if wanted; where PayPal is not set up, only wait."""
    if not has_paypal(settings):
        log.info("paypal.not_set_up")
        await stop.wait()
        return
    clock = SystemClock()
    provider = create_paypal_provider(settings, clock)
    try:
        async with create_pool(settings, max_size=2) as pool:
            store, captures = PostgresPayments(pool), PostgresCaptures(pool)
            while not stop.is_set():
                try:
                    await capture_approved_orders(store=store, captures=captures, capturer=provider, clock=clock)
                except (OperationalError, PoolTimeout, OSError) as error:
                    log.warning("paypal.waiting", error=str(error)[:300], retry_in_seconds=_PAUSE_SECONDS)
                try:
                    await asyncio.wait_for(stop.wait(), _PAUSE_SECONDS)
                except TimeoutError:
                    continue
    finally:
        await provider.close()
