"""Invoices one tenant's billing periods now, waiting for neither a batch run nor a grace."""

from __future__ import annotations

from core.clock import Clock
from core.errors import ConflictError, Fault, InvalidInputError, NotFoundError
from core.ids import derive_id
from core.messages import InvoicingRequest
from core.period import format_instant
from invoicing.domain.standing import Standing
from invoicing.invoice_period import invoice_period
from invoicing.ports import Books, UsageReader
from invoicing.terms import Terms


class AccountParkedError(ConflictError):
    """The account cannot be invoiced before a person has looked."""

    code = "account_parked"


async def invoice_on_demand(
    tenant_id: str, period: str, *, books: Books, usage: UsageReader, terms: Terms, clock: Clock
) -> list[Standing]:
    """Return the documents issued for a month or the last period before an instant; again, none.

    Raises `NotFoundError` (no such tenant), `InvalidInputError` (`invalid_period`, `period_not_over`),
    `AccountParkedError` with the reason, also where this very call parked it.
    """
    now = format_instant(clock.now())
    run_id = derive_id("run", tenant_id, period, now)
    request = InvoicingRequest(tenant_id=tenant_id, period=period, run_id=run_id, requested_at=now)
    try:
        issued = await invoice_period(request, books=books, usage=usage, terms=terms, clock=clock, is_final=True)
    except InvalidInputError as refused:
        if any(fault.code == "unknown_tenant" for fault in refused.faults):
            raise NotFoundError(f"no tenant {tenant_id[:80]!r}") from refused
        raise
    async with books.view_account(tenant_id) as account:
        if account is None:
            raise InvalidInputError([Fault("unknown_tenant", f"no tenant {tenant_id[:80]!r}", "tenant_id")])
        if not issued and account.buyer.parked_reason is not None:
            raise AccountParkedError(f"{tenant_id} is parked: {account.buyer.parked_reason}")
        found = [await account.issued.lock(one.draft.invoice_id) for one in issued]
    return [one for one in found if one is not None]
