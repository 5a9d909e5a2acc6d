"""Voids an invoice: its lines count as never billed, its number stays used, and the credits it drew go back."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import structlog

from core.clock import Clock
from invoicing.domain.invoice_postings import taxes_by_place
from invoicing.domain.standing import Standing
from invoicing.open_invoice import InvoiceStateError, PaymentUnderWayError, check_issued, check_reason, open_invoice
from invoicing.ports import Account, Books
from ledger.domain.postings import of_void
from rating.domain.credit import Draw
from rating.return_credits import return_credits

log = structlog.get_logger()


async def void_invoice(reference: str, *, reason: str, books: Books, clock: Clock) -> Standing:
    """Void an invoice on which there is no money; one that is void is returned as it is.

    Raises `NotFoundError`, `InvoiceStateError` (a draft, a credit note, paid, written off, or corrected by a document
    that counts), `PaymentUnderWayError`, `InvalidInputError` (`invalid_reason`).
    """
    why, now = check_reason(reason), clock.now()
    async with open_invoice(reference, books) as opened:
        if opened.standing.status == "void":
            return opened.standing
        await check_voidable(opened.account, opened.standing)
        await void(opened.account, opened.standing, reason=why, now=now)
    return replace(opened.standing, status="void", reason=why)


async def check_voidable(account: Account, standing: Standing) -> None:
    """Refuse an invoice that must be taken back by a credit note instead; raises as `void_invoice` says."""
    check_issued(standing)
    if standing.in_flight:
        raise PaymentUnderWayError(f"a payment of {standing.name} is under way; try again when it has ended")
    if standing.amount_paid:
        raise InvoiceStateError(f"{standing.amount_paid:f} {standing.currency} of {standing.name} is paid: credit it")
    if standing.status not in ("finalized", "overdue", "paid"):
        raise InvoiceStateError(f"{standing.name} is {standing.status}: credit it")
    if corrected_by := await account.issued.corrected_by(standing.invoice_id):
        names = ", ".join(one.name for one in corrected_by)
        raise InvoiceStateError(f"{standing.name} is corrected by {names}, which would then correct nothing: credit it")


async def void(account: Account, standing: Standing, *, reason: str, now: datetime) -> list[Draw]:
    """Void an invoice that may be voided, within the caller's transaction; returns what its credits got back."""
    returned = await return_credits(standing.invoice_id, ledger=account.ledger, at=now)
    await account.issued.close(standing.invoice_id, "void", reason=reason, at=now)
    taxes = taxes_by_place(await account.issued.lines(standing.invoice_id))
    tenant_id, currency = standing.tenant_id, standing.currency
    entries = of_void(standing.invoice_id, tenant_id, currency, subtotal=standing.subtotal, taxes=taxes, at=now)
    await account.post(entries, now)
    await account.issued.announce_void(standing, now)
    log.info("invoice.voided", tenant=tenant_id, number=standing.number, reason=reason)
    return returned
