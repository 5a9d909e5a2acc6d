"""The renderer: finalized invoices become PDFs, after the money is settled in the books, so it can never block them."""

from __future__ import annotations

import asyncio

from core.clock import SystemClock
from core.messages import InvoiceFinalized, decode_message
from core.topics import INVOICE_FINALIZED
from invoicing.adapters.folder import FolderDocuments
from invoicing.adapters.pdf import PdfWorkers
from invoicing.adapters.postgres_register import PostgresRegister
from invoicing.render_invoice import render_invoice
from runtime.postgres import create_pool
from runtime.settings import Settings
from runtime.topic_consumer import TopicConsumer

GROUP = "meterbook-renderer"


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Render documents from `invoice.finalized` until `stop` is set; start more of these to scale."""
    documents, clock = FolderDocuments(settings.documents.resolve()), SystemClock()
    workers = PdfWorkers(processes=1)
    try:
        async with create_pool(settings, max_size=2) as pool:
            register = PostgresRegister(pool)

            async def handle(raw: bytes | None) -> None:
                announced = decode_message(raw, InvoiceFinalized)
                await render_invoice(
                    announced.invoice_id, register=register, documents=documents, render=workers.render, clock=clock
                )

            await TopicConsumer(settings, INVOICE_FINALIZED, GROUP, handle).run(stop)
    finally:
        workers.close()
