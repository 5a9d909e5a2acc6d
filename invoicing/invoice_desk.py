"""Everything a person may do to one tenant's invoices, with documents as answers: for the API and the commands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Protocol, runtime_checkable

import psycopg
from psycopg_pool import PoolTimeout

from core.clock import Clock, SystemClock
from core.errors import UnavailableError
from core.period import format_instant
from invoicing.adapters.clickhouse import ClickHouseUsage
from invoicing.adapters.postgres_books import PostgresBooks
from invoicing.adapters.postgres_issued import PostgresDrafts
from invoicing.credit_invoice import CreditWish, credit_invoice
from invoicing.domain.invoice import DocumentKind
from invoicing.domain.snapshot import money_text
from invoicing.domain.standing import Standing
from invoicing.finalize_drafts import Finalized, finalize_drafts
from invoicing.invoice_on_demand import invoice_on_demand
from invoicing.issue_one_time import OneTimeItem, issue_one_time
from invoicing.load_terms import load_terms
from invoicing.ports import UsageReader
from invoicing.reissue_invoice import reissue_invoice
from invoicing.show_invoice import ShownInvoice, show_invoice
from invoicing.terms import Terms
from invoicing.void_invoice import void_invoice
from invoicing.write_off_invoice import write_off_invoice
from runtime.postgres import Connection, Pool, create_pool, join
from runtime.settings import Settings

Document = dict[str, Any]


@runtime_checkable
class NoteRefunds(Protocol):
    """Gives the paid value of credit notes back through the payments it came from."""

    async def refund_note(self, connection: Connection, credit_note_id: str, *, requested_by: str) -> Document:
        """Write the refund down in the caller's transaction, once per note, and return it as it stands.

        Raises `InvalidInputError` (`nothing_paid`, `not_refundable`).
        """
        ...


class InvoiceDesk:
    """The verbs over one pool; `terms` is called when they are first needed, for reading them takes its time."""

    def __init__(
        self,
        pool: Pool,
        usage: UsageReader,
        terms: Callable[[], Terms],
        clock: Clock,
        refunds: NoteRefunds | None = None,
    ) -> None:
        self._pool, self._refunds = pool, refunds
        self._books, self._drafts = PostgresBooks(pool), PostgresDrafts(pool)
        self._usage, self._terms, self._clock = usage, terms, clock

    async def invoice_now(self, tenant_id: str, period: str) -> list[Document]:
        """Issue what is owed for a tenant's period; see `invoice_on_demand`."""
        async with _answering():
            made = await invoice_on_demand(
                tenant_id, period, books=self._books, usage=self._usage, terms=self._terms(), clock=self._clock
            )
        return [standing_document(one) for one in made]

    async def sell_once(self, tenant_id: str, items: Sequence[Mapping[str, Any]], *, key: str) -> Document:
        """Invoice one-time items, given by the fields of `OneTimeItem`; see `issue_one_time`."""
        sold = [OneTimeItem(**item) for item in items]
        async with _answering():
            made = await issue_one_time(
                tenant_id, sold, key=key, books=self._books, terms=self._terms(), clock=self._clock
            )
        return standing_document(made)

    async def credit(
        self, reference: str, *, amount: Decimal | None, lines: dict[int, Decimal | None], reason: str, key: str
    ) -> Document:
        """Give part of an invoice back; see `credit_invoice`."""
        async with _answering():
            made = await credit_invoice(
                reference,
                CreditWish(amount, lines),
                reason=reason,
                key=key,
                books=self._books,
                terms=self._terms(),
                clock=self._clock,
            )
        return standing_document(made)

    async def credit_and_refund(
        self,
        reference: str,
        *,
        amount: Decimal | None,
        lines: dict[int, Decimal | None],
        reason: str,
        key: str,
        requested_by: str,
    ) -> Document:
        """Give part of an invoice back through its payments, in place of a credit; all of it in one transaction."""
        if self._refunds is None:
            raise UnavailableError("nothing is refunded by this process")
        wish = CreditWish(amount, lines, is_refunded=True)
        async with _answering(), self._pool.connection() as connection, connection.transaction():
            made = await credit_invoice(
                reference,
                wish,
                reason=reason,
                key=key,
                books=PostgresBooks(join(connection)),
                terms=self._terms(),
                clock=self._clock,
            )
            refund = await self._refunds.refund_note(connection, made.invoice_id, requested_by=requested_by)
        return {**standing_document(made), "refund": refund}

    async def void(self, reference: str, *, reason: str) -> Document:
        """Void an invoice; see `void_invoice`."""
        async with _answering():
            return standing_document(await void_invoice(reference, reason=reason, books=self._books, clock=self._clock))

    async def write_off(self, reference: str, *, reason: str) -> Document:
        """Let an invoice be uncollectible; see `write_off_invoice`."""
        async with _answering():
            return standing_document(
                await write_off_invoice(reference, reason=reason, books=self._books, clock=self._clock)
            )

    async def reissue(self, reference: str, *, reason: str) -> list[Document]:
        """Issue an invoice anew; see `reissue_invoice`."""
        async with _answering():
            made = await reissue_invoice(
                reference, reason=reason, books=self._books, usage=self._usage, terms=self._terms(), clock=self._clock
            )
        return [standing_document(one) for one in made]

    async def finalize(self, *, tenant_id: str | None, is_early: bool) -> Finalized:
        """Finalize drafts; see `finalize_drafts`."""
        async with _answering():
            return await finalize_drafts(
                drafts=self._drafts, books=self._books, usage=self._usage, terms=self._terms(), clock=self._clock,
                tenant_id=tenant_id, is_early=is_early,
            )  # fmt: skip

    async def show(self, reference: str, *, is_now: bool) -> ShownInvoice:
        """Return a document as issued, and as known now; see `show_invoice`."""
        async with _answering():
            return await show_invoice(reference, books=self._books, usage=self._usage, clock=self._clock, is_now=is_now)


@asynccontextmanager
async def open_invoice_desk(
    settings: Settings, pool: Pool | None = None, refunds: NoteRefunds | None = None
) -> AsyncIterator[InvoiceDesk]:
    """Open the desk on the settings' stores; a caller's pool stays open. Without `refunds`, nothing is refunded."""
    usage, read = ClickHouseUsage(settings), list[Terms]()

    def terms() -> Terms:
        if not read:
            read.append(load_terms(settings))
        return read[0]

    try:
        if pool is not None:
            yield InvoiceDesk(pool, usage, terms, SystemClock(), refunds)
            return
        async with create_pool(settings, max_size=2) as own:
            yield InvoiceDesk(own, usage, terms, SystemClock(), refunds)
    finally:
        await usage.close()


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    """Say that invoices cannot be reached now where the store does not answer."""
    try:
        yield
    except (psycopg.OperationalError, PoolTimeout, OSError) as error:
        raise UnavailableError("invoices cannot be reached now") from error


def standing_document(standing: Standing) -> Document:
    """Return how a document stands as JSON; amounts are strings, those of a credit note negative."""

    def money(amount: Decimal) -> str:
        return money_text(amount, standing.currency)

    is_note = standing.kind is DocumentKind.CREDIT_NOTE
    return {
        "invoice_id": standing.invoice_id,
        "number": standing.number,
        "kind": standing.kind.value,
        "origin": standing.origin.value,
        "tenant_id": standing.tenant_id,
        "subscription_id": standing.subscription_id,
        "status": standing.status,
        "currency": standing.currency,
        "subtotal": money(standing.subtotal),
        "tax": money(standing.tax),
        "total": money(standing.total),
        "credits_applied": money(standing.credits_applied),
        "amount_credited": money(standing.amount_credited),
        "amount_paid": money(standing.amount_paid),
        "amount_due": money(Decimal(0) if is_note else standing.amount_open),
        "period_start": format_instant(standing.period.start),
        "period_end": format_instant(standing.period.end),
        "issued_at": format_instant(standing.issued_at) if standing.issued_at else None,
        "finalize_at": format_instant(standing.finalize_at) if standing.finalize_at else None,
        "reason": standing.reason,
        "replaces": standing.replaces,
    }
