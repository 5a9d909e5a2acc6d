"""What a person may do with documents: see one that is not issued, send one once more, make files anew.

For the API and the commands. Rendering is done by a process of its own (`RenderWorkers`), which begins when it is first
needed, and so are the libraries loaded: most calls need neither.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg_pool import PoolTimeout

from core.clock import Clock, SystemClock
from core.errors import Fault, InvalidInputError, NotFoundError, UnavailableError
from core.period import format_instant
from invoicing.adapters.clickhouse import ClickHouseUsage
from invoicing.adapters.object_store import open_documents
from invoicing.adapters.postgres_books import PostgresBooks
from invoicing.adapters.postgres_documents import PostgresDocuments
from invoicing.document_ports import DocumentStore, Resend
from invoicing.draft_document import draft_snapshot, preview_snapshot
from invoicing.load_terms import load_terms
from invoicing.ports import UsageReader
from invoicing.preview_invoice import Wish
from invoicing.resend_invoice import resend_invoice
from invoicing.terms import Terms
from runtime.postgres import Pool, create_pool
from runtime.settings import Settings

if TYPE_CHECKING:
    from invoicing.adapters.render_workers import RenderWorkers
    from invoicing.render_invoice import Made

_VOID = "void"


class DocumentDesk:
    """The verbs over one pool; `can_mail` tells whether anybody carries what is to be sent."""

    def __init__(
        self,
        pool: Pool,
        usage: UsageReader,
        documents: DocumentStore,
        terms: Callable[[], Terms],
        clock: Clock,
        *,
        can_mail: bool,
    ) -> None:
        self._books, self._register = PostgresBooks(pool), PostgresDocuments(pool)
        self._usage, self._documents = usage, documents
        self._workers: RenderWorkers | None = None
        self._terms, self._clock, self._can_mail = terms, clock, can_mail

    async def draft_pdf(self, reference: str) -> bytes:
        """Return the marked PDF of a stored draft; see `draft_snapshot`. Nothing is kept."""
        async with _answering():
            snapshot = await draft_snapshot(reference, books=self._books, terms=self._terms())
        return (await self._renderer().render(snapshot, "draft")).pdf

    async def preview_pdf(
        self, tenant_id: str, at: datetime, *, subscription_id: str | None = None, wish: Wish | None = None
    ) -> bytes:
        """Return the marked PDF of a preview; see `preview_invoice`. Nothing is kept."""
        async with _answering():
            snapshot = await preview_snapshot(
                tenant_id,
                at,
                books=self._books,
                usage=self._usage,
                terms=self._terms(),
                subscription_id=subscription_id,
                wish=wish,
            )
        return (await self._renderer().render(snapshot, "draft")).pdf

    async def resend(self, reference: str, *, to: str | None, key: str) -> dict[str, Any]:
        """Have a document sent once more; see `resend_invoice`. Raises `InvalidInputError` (`mail_off`) besides."""
        if not self._can_mail:
            raise InvalidInputError([Fault("mail_off", "nobody carries mail: set METERBOOK_SMTP_URL")])
        async with _answering():
            return resend_document(
                await resend_invoice(reference, to=to, key=key, resends=self._register, clock=self._clock)
            )

    async def render(self, reference: str, *, replace: bool) -> list[Made]:
        """Make the files of a document that are gone or damaged; see `render_invoice`. Raises `NotFoundError`."""
        from invoicing.render_invoice import render_invoice

        async with _answering():
            stored = await self._register.find(reference)
            if stored is None:
                raise NotFoundError(f"no issued invoice {reference[:80]!r}")
            made: list[Made] = []
            for mark in ("", "void") if stored.status == _VOID else ("",):
                made += await render_invoice(
                    stored.invoice_id,
                    register=self._register,
                    documents=self._documents,
                    render=self._renderer().render,
                    clock=self._clock,
                    mark="void" if mark else "",
                    replace=replace,
                )
            return made

    async def close(self) -> None:
        """End the process that renders, if there is one."""
        if self._workers is not None:
            await self._workers.close()

    def _renderer(self) -> RenderWorkers:
        from invoicing.adapters.render_workers import RenderWorkers

        if self._workers is None:
            self._workers = RenderWorkers(1)
        return self._workers


@asynccontextmanager
async def open_document_desk(settings: Settings, pool: Pool | None = None) -> AsyncIterator[DocumentDesk]:
    """Open the desk on the settings' stores; a caller's pool stays open."""
    usage, read = ClickHouseUsage(settings), list[Terms]()

    def terms() -> Terms:
        if not read:
            read.append(load_terms(settings))
        return read[0]

    async with AsyncExitStack() as stack:
        stack.push_async_callback(usage.close)
        over = pool if pool is not None else await stack.enter_async_context(create_pool(settings, max_size=2))
        can_mail = settings.smtp_url is not None
        desk = DocumentDesk(over, usage, open_documents(settings), terms, SystemClock(), can_mail=can_mail)
        stack.push_async_callback(desk.close)
        yield desk


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    """Say that documents cannot be reached now where a store does not answer."""
    try:
        yield
    except (psycopg.OperationalError, PoolTimeout, OSError) as error:
        raise UnavailableError("documents cannot be reached now") from error


def resend_document(resend: Resend) -> dict[str, Any]:
    """Return a wish to send a document once more as JSON."""
    return {
        "delivery_id": resend.resend_id,
        "invoice_id": resend.invoice_id,
        "channel": "email",
        "address": resend.address,
        "status": resend.status,
        "attempts": resend.attempts,
        "created_at": format_instant(resend.created_at),
        "sent_at": format_instant(resend.sent_at) if resend.sent_at else None,
        "last_error": resend.last_error or None,
    }
