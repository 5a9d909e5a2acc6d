"""Asks VIES about VAT numbers that nobody asked about yet, or not for a month: `meterbook worker vat-numbers`."""

from __future__ import annotations

import asyncio

import structlog
from psycopg import OperationalError
from psycopg_pool import PoolTimeout

from core.clock import SystemClock
from invoicing.adapters.postgres_vat_checks import PostgresVatChecks
from invoicing.adapters.seller_file import load_seller
from invoicing.adapters.vies import Vies, requester_of
from invoicing.check_vat_numbers import RECHECK_AFTER, check_vat_numbers
from runtime.postgres import create_pool
from runtime.settings import Settings

_PAUSE_SECONDS = 300
_AT_ONCE = 100
log = structlog.get_logger()


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Ask every five minutes until `stop` is set; a seller that charges no tax asks nobody."""
    seller, clock = load_seller(settings), SystemClock()
    if seller.tax.regime == "none":
        await stop.wait()
        return
    requester, vies = requester_of(seller.tax.vat_number, seller.country), Vies(settings.vies_url)
    try:
        async with create_pool(settings, max_size=1) as pool:
            checks = PostgresVatChecks(pool)
            while not stop.is_set():
                try:
                    due = await checks.due(before=clock.now() - RECHECK_AFTER, limit=_AT_ONCE)
                    await check_vat_numbers(due, register=vies, checks=checks, requester=requester, clock=clock)
                except (OperationalError, PoolTimeout, OSError) as error:
                    log.warning("vat.waiting", error=str(error), retry_in_seconds=_PAUSE_SECONDS)
                try:
                    await asyncio.wait_for(stop.wait(), _PAUSE_SECONDS)
                except TimeoutError:
                    continue
    finally:
        await vies.close()
