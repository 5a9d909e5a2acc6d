"""Runs dunning: `meterbook worker dunning`. Several may run; each step is taken once, each mail sent by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog
from psycopg import OperationalError
from psycopg_pool import PoolTimeout

from core.clock import SystemClock
from payments.adapters.postgres_store import PostgresPayments
from payments.dunning.adapters.charge_again import ChargeAgainAtProviders
from payments.dunning.adapters.postgres_dunning import PostgresDunning
from payments.dunning.adapters.postgres_mails import PostgresMailQueue
from payments.dunning.adapters.smtp_server import SmtpServer
from payments.dunning.build_mail import check_texts
from payments.dunning.read_schedules import load_schedules
from payments.dunning.run_dunning import run_dunning
from payments.dunning.send_reminders import send_next_reminder
from payments.open_providers import open_providers
from payments.ports import PaymentProvider
from runtime.postgres import create_pool
from runtime.settings import Settings

_PAUSE_SECONDS = 10
_MAILS_PER_ROUND = 200
log = structlog.get_logger()


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Take steps and send mails until `stop` is set; an outage of the store is waited out."""
    schedules, clock = load_schedules(settings.dunning_file), SystemClock()
    check_texts()
    server = SmtpServer(settings.smtp_url) if settings.smtp_url else None
    if server is None:
        log.warning("dunning.no_mail", reason="mails wait until METERBOOK_SMTP_URL is set")
    async with _charging(settings) as providers, create_pool(settings, max_size=3) as pool:
        book, queue = PostgresDunning(pool), PostgresMailQueue(pool)
        charge_again = ChargeAgainAtProviders(PostgresPayments(pool), providers, clock)
        while not stop.is_set():
            taken, sent = 0, False
            try:
                taken = await run_dunning(book=book, charge_again=charge_again, schedules=schedules, clock=clock)
                for _ in range(_MAILS_PER_ROUND if server is not None else 0):
                    assert server is not None
                    sent = await send_next_reminder(
                        queue=queue, server=server, sender=settings.payment_email_from, clock=clock
                    )
                    if not sent or stop.is_set():
                        break
            except (OperationalError, PoolTimeout, OSError) as error:
                log.warning("dunning.waiting", error=str(error), retry_in_seconds=_PAUSE_SECONDS)
            await _wait(stop, 0 if taken or sent else _PAUSE_SECONDS)


@asynccontextmanager
async def _charging(settings: Settings) -> AsyncIterator[Mapping[str, PaymentProvider]]:
    """Who is paid by transfer alone has no provider, and is reminded all the same."""
    if settings.stripe_api_key is None and settings.paypal_client_id is None:
        yield {}
        return
    async with open_providers(settings) as providers:
        yield providers.charging


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
