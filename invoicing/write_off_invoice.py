"""Writes an invoice off: nobody expects to be paid any more. It counts as billed, so nothing of it comes again."""

from __future__ import annotations

from dataclasses import replace

import structlog

from core.clock import Clock
from invoicing.domain.standing import Standing
from invoicing.open_invoice import InvoiceStateError, PaymentUnderWayError, check_issued, check_reason, open_invoice
from invoicing.ports import Books
from ledger.domain.postings import of_write_off

log = structlog.get_logger()


async def write_off_invoice(reference: str, *, reason: str, books: Books, clock: Clock) -> Standing:
    """Let an invoice be uncollectible; one that is so is returned as it is. Money that comes all the same is taken.

    Raises `NotFoundError`, `InvoiceStateError` (a draft, a credit note, void, or nothing open),
    `PaymentUnderWayError`, `InvalidInputError` (`invalid_reason`).
    """
    why, now = check_reason(reason), clock.now()
    async with open_invoice(reference, books) as opened:
        standing, account = opened.standing, opened.account
        if standing.status == "uncollectible":
            return standing
        check_issued(standing)
        if standing.status not in ("finalized", "overdue"):
            raise InvoiceStateError(f"{standing.name} is {standing.status}: nothing of it is open")
        if standing.in_flight:
            raise PaymentUnderWayError(f"a payment of {standing.name} is under way; try again when it has ended")
        await account.issued.close(standing.invoice_id, "uncollectible", reason=why, at=now)
        lost = of_write_off(
            standing.invoice_id, standing.tenant_id, standing.currency, open_amount=standing.amount_open, at=now
        )
        await account.post(lost, now)
    log.info("invoice.written_off", tenant=standing.tenant_id, number=standing.number, open=str(standing.amount_open))
    return replace(standing, status="uncollectible", reason=why)
