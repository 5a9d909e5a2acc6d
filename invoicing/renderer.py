"""The renderer: finalized documents become files, after the money is settled in the books, so it can never block them.

It also carries them to the buyer by mail, where that is set up, and makes the copy of a void invoice that says so.
"""

from __future__ import annotations

import asyncio

import structlog
from psycopg import OperationalError
from psycopg_pool import PoolTimeout

from core.clock import Clock, SystemClock
from core.errors import UnavailableError
from core.messages import InvoiceFinalized, InvoiceVoided, decode_message
from core.topics import INVOICE_FINALIZED, INVOICE_VOIDED
from invoicing.adapters.object_store import open_documents
from invoicing.adapters.postgres_documents import PostgresDocuments
from invoicing.adapters.render_workers import RenderWorkers
from invoicing.adapters.smtp import SmtpMailer
from invoicing.deliver_invoice import deliver_next
from invoicing.document_ports import DocumentDeliveries, DocumentStore, Mailer
from invoicing.render_invoice import render_invoice
from runtime.postgres import create_pool
from runtime.settings import Settings
from runtime.topic_consumer import TopicConsumer

GROUP = "meterbook-renderer"
VOIDED_GROUP = "meterbook-renderer-voided"
_POLL_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0
log = structlog.get_logger()


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Render and deliver documents until `stop` is set; start more of these to scale."""
    documents, clock = open_documents(settings), SystemClock()
    workers = RenderWorkers(settings.render_processes)
    by_mail = settings.invoice_email and settings.smtp_url is not None
    # What a person asks to be sent again goes out even where nothing is sent by itself.
    try:
        async with create_pool(settings, max_size=4) as pool:
            register = PostgresDocuments(pool)

            async def finalized(raw: bytes | None) -> None:
                await render_invoice(
                    decode_message(raw, InvoiceFinalized).invoice_id,
                    register=register,
                    documents=documents,
                    render=workers.render,
                    clock=clock,
                    by_mail=by_mail,
                )

            async def voided(raw: bytes | None) -> None:
                await render_invoice(
                    decode_message(raw, InvoiceVoided).invoice_id,
                    register=register,
                    documents=documents,
                    render=workers.render,
                    clock=clock,
                    mark="void",
                )

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(TopicConsumer(settings, INVOICE_FINALIZED, GROUP, finalized).run(stop))
                tasks.create_task(TopicConsumer(settings, INVOICE_VOIDED, VOIDED_GROUP, voided).run(stop))
                if settings.smtp_url is not None:
                    mailer = SmtpMailer(settings.smtp_url)
                    tasks.create_task(deliver_until(stop, register, documents=documents, mailer=mailer, clock=clock))
    finally:
        await workers.close()


async def deliver_until(
    stop: asyncio.Event, deliveries: DocumentDeliveries, *, documents: DocumentStore, mailer: Mailer, clock: Clock
) -> None:
    """Deliver what is due until `stop` is set; an outage of a store is waited out."""
    pause = _POLL_SECONDS
    while not stop.is_set():
        try:
            found = await deliver_next(deliveries=deliveries, documents=documents, mailer=mailer, clock=clock)
            pause = 0.0 if found else _POLL_SECONDS
        except (OperationalError, PoolTimeout, OSError, UnavailableError) as error:
            pause = min(_LONGEST_PAUSE_SECONDS, max(pause, _POLL_SECONDS) * 2)
            log.warning("documents.waiting", error=str(error), retry_in_seconds=pause)
        if pause:
            try:
                await asyncio.wait_for(stop.wait(), pause)
            except TimeoutError:
                continue
