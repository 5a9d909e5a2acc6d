"""The batch run: one invoicing request per tenant with a subscription in the period."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from core.clock import Clock
from core.errors import Fault, InvalidInputError, NotFoundError, UnavailableError
from core.ids import derive_id
from core.messages import InvoicingRequest
from core.period import format_instant, parse_month
from invoicing.ports import InvoiceRegister, Requests, UsageProgress

log = structlog.get_logger()


class UsageBehindError(UnavailableError):
    """Usage that has already arrived is not counted yet; try again shortly."""

    code = "usage_behind"


@dataclass(frozen=True, slots=True)
class InvoicingRun:
    """What a run asked for; `parked` lists tenants left out with the reason, `early` those whose month is not over."""

    run_id: str
    period: str
    requested: tuple[str, ...]
    parked: tuple[tuple[str, str], ...]
    early: tuple[str, ...] = ()


async def run_invoicing(
    month: str,
    *,
    tenant_id: str | None,
    register: InvoiceRegister,
    requests: Requests,
    progress: UsageProgress | None,
    clock: Clock,
) -> InvoicingRun:
    """Ask for every invoice of a month (`2026-10`) of the tenants' own calendars; asking again gives nothing new.

    Tenants whose month is not over yet are left out; ask again when it is. `progress` None means not to look whether
    usage has landed. Raises `InvalidInputError` (`invalid_period`, `period_not_over` if it is over for nobody),
    `NotFoundError` (the one tenant asked for has no subscription then), `UsageBehindError`.
    """
    widest, now = parse_month(month), clock.now()
    tenants = await register.tenants_to_invoice(month, tenant_id)
    over = [one for one in tenants if one.calendar.period(month).end <= now]
    ends = min((one.calendar.period(month).end for one in tenants), default=widest.end)
    if now < ends:
        reason = f"{month} ends at {format_instant(ends)}; usage is still coming in"
        raise InvalidInputError([Fault("period_not_over", reason, "period")])
    if progress is not None and not await progress.settled(now):
        raise UsageBehindError
    if tenant_id is not None and not tenants:
        raise NotFoundError(f"tenant {tenant_id!r} has no subscription in {month}")
    run_id = derive_id("run", month, format_instant(now))
    parked = tuple((one.tenant_id, one.parked_reason) for one in over if one.parked_reason is not None)
    for tenant, reason in parked:
        log.warning("account.skipped", tenant=tenant, parked=reason)
    requested = tuple(one.tenant_id for one in over if one.parked_reason is None)
    early = tuple(one.tenant_id for one in tenants if one not in over)
    await requests.send(
        [
            InvoicingRequest(tenant_id=tenant, period=month, run_id=run_id, requested_at=format_instant(now))
            for tenant in requested
        ]
    )
    log.info(
        "invoicing.requested", run=run_id, period=month, tenants=len(requested), parked=len(parked), early=len(early)
    )
    return InvoicingRun(run_id, month, requested, parked, early)
