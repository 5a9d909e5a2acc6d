"""What a batch run would issue, without storing anything: every tenant's proposal for a month of its own calendar."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal

from core.clock import Clock
from core.errors import BrokenInvariantError, Fault, InvalidInputError, MeterbookError
from core.period import format_instant, parse_month
from invoicing.domain.which_periods import requested_periods
from invoicing.ports import Books, InvoiceRegister, ToInvoice, UsageReader
from invoicing.propose_invoice import propose_invoice

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Tried:
    """What a run would do for a tenant: how many documents, and their sum without tax, credit notes below zero.

    `left_out` says why nothing would be issued: parked, the month not over, or what does not make sense.
    """

    tenant_id: str
    currency: str = ""
    documents: int = 0
    subtotal: Decimal = _ZERO
    left_out: str = ""


async def tenants_to_try(
    month: str, *, tenant_id: str | None, register: InvoiceRegister, clock: Clock
) -> list[ToInvoice]:
    """Return whom a run would ask for; raises `InvalidInputError` (`invalid_period`, `period_not_over` for all)."""
    widest, now = parse_month(month), clock.now()
    tenants = await register.tenants_to_invoice(month, tenant_id)
    ends = min((one.calendar.period(month).end for one in tenants), default=widest.end)
    if now < ends:
        reason = f"{month} ends at {format_instant(ends)}; usage is still coming in"
        raise InvalidInputError([Fault("period_not_over", reason, "period")])
    return tenants


async def try_run(
    month: str, tenants: list[ToInvoice], *, books: Books, usage: UsageReader, clock: Clock
) -> AsyncIterator[Tried]:
    """Yield what a run would do for each tenant, in order."""
    for tenant in tenants:
        try:
            yield await _try(month, tenant, books, usage, clock)
        except BrokenInvariantError as broken:
            yield Tried(tenant.tenant_id, left_out=f"would be parked: {broken}")
        except MeterbookError as error:
            yield Tried(tenant.tenant_id, left_out=str(error))


async def _try(month: str, tenant: ToInvoice, books: Books, usage: UsageReader, clock: Clock) -> Tried:
    if tenant.parked_reason is not None:
        return Tried(tenant.tenant_id, left_out=f"parked: {tenant.parked_reason}")
    if tenant.calendar.period(month).end > clock.now():
        return Tried(tenant.tenant_id, left_out="its month is not over yet")
    documents, subtotal = 0, _ZERO
    async with books.view_account(tenant.tenant_id) as account:
        if account is None:
            return Tried(tenant.tenant_id, left_out="no such tenant")
        meters = await account.meters()
        for subscribed in await account.subscriptions(tenant.calendar.period(month).end):
            start = subscribed.start
            for period in requested_periods(month, start.cycle, start.started_at, tenant.calendar):
                proposal = await propose_invoice(account, subscribed, period, usage=usage, meters=meters)
                if proposal.is_due:
                    documents, subtotal = documents + 1, subtotal + proposal.net
        return Tried(tenant.tenant_id, account.buyer.currency, documents, subtotal)
