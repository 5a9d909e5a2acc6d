"""Invoices many tenants in one transaction, with the same outcome as one after the other, in a tenth of the time.

What an invoice costs are round trips: some twenty questions to the stores. Here the tenants' work runs beside each
other, and what they ask at the same moment is asked once for all of them; what they issue is written at the end. A
tenant with anything out of the ordinary is left out and taken alone afterwards (`invoice_period`): a second period or
subscription, drafts, credits to be drawn, less owed than billed, whatever raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from core.clock import Clock
from core.errors import must_hold
from core.messages import InvoicingRequest
from invoicing.domain.invoice import Invoice
from invoicing.domain.which_periods import read_request
from invoicing.invoice_period import bill_targets, count_outcome, targets_of
from invoicing.ports import Account
from invoicing.read_together import UsageTogether
from invoicing.terms import Terms
from invoicing.together_ports import AccountsTogether, BooksTogether, TakeAloneError, UsageOfMany

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class InvoicedTogether:
    """The documents by tenant, and whose request is still to be handled, alone."""

    invoices: dict[str, list[Invoice]]
    alone: tuple[str, ...]


async def invoice_together(
    requests: Sequence[InvoicingRequest], *, books: BooksTogether, usage: UsageOfMany, terms: Terms, clock: Clock
) -> InvoicedTogether:
    """Invoice one request per tenant; raises only what hit the transaction as a whole, and nothing is written then."""
    tenants = [request.tenant_id for request in requests]
    must_hold(len(set(tenants)) == len(tenants), "a tenant is invoiced twice in one transaction")
    reader = UsageTogether(usage)
    async with books.open_together(sorted(tenants)) as together:
        found = await asyncio.gather(
            *(_invoice(request, together, reader, terms, clock) for request in requests), return_exceptions=True
        )
        outcomes = dict(zip(tenants, found, strict=True))
        for tenant_id, outcome in outcomes.items():
            if isinstance(outcome, BaseException):
                _check_left_out(tenant_id, outcome, together)
        await together.write()
    invoices = {tenant_id: one for tenant_id, one in outcomes.items() if not isinstance(one, BaseException)}
    for issued in invoices.values():
        count_outcome(issued)
    return InvoicedTogether(invoices, tuple(tenant_id for tenant_id in tenants if tenant_id not in invoices))


def _check_left_out(tenant_id: str, error: BaseException, together: AccountsTogether) -> None:
    """Raise what ended a tenant's work unless the tenant can simply be left out."""
    if not isinstance(error, Exception) or together.has_written(tenant_id):
        # Its number is taken: without its document there would be a gap.
        raise error
    if not isinstance(error, TakeAloneError):
        log.info("invoicing.taken_alone", tenant=tenant_id, error=repr(error))


async def _invoice(
    request: InvoicingRequest, together: AccountsTogether, usage: UsageTogether, terms: Terms, clock: Clock
) -> list[Invoice]:
    asked, now = read_request(request.period), clock.now()
    account: Account | None = together.accounts.get(request.tenant_id)
    if account is None or account.buyer.parked_reason is not None:
        raise TakeAloneError
    targets = await targets_of(account, asked, now)
    if len(targets) > 1:
        # What the first bills, the second must find billed.
        raise TakeAloneError
    return await bill_targets(account, targets, usage, terms, now)
