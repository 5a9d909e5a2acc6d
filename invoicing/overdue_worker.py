"""Marks overdue invoices: `meterbook worker overdue`. Several may run; what one has marked no other marks."""

from __future__ import annotations

import asyncio

import structlog
from psycopg import OperationalError
from psycopg_pool import PoolTimeout

from core.clock import SystemClock
from invoicing.adapters.postgres_overdue import PostgresDueInvoices
from invoicing.mark_overdue import mark_overdue
from runtime.postgres import create_pool
from runtime.settings import Settings

_PAUSE_SECONDS = 60
log = structlog.get_logger()


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Mark what is overdue, every minute, until `stop` is set."""
    async with create_pool(settings, max_size=1) as pool:
        while not stop.is_set():
            try:
                await mark_overdue(invoices=PostgresDueInvoices(pool), clock=SystemClock())
            except (OperationalError, PoolTimeout, OSError) as error:
                # Nothing is lost by waiting: whether it is overdue is asked of the day, not of the mark.
                log.warning("overdue.waiting", error=str(error), retry_in_seconds=_PAUSE_SECONDS)
            try:
                await asyncio.wait_for(stop.wait(), _PAUSE_SECONDS)
            except TimeoutError:
                continue
