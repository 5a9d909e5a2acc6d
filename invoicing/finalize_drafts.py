"""Finalizes drafts whose grace is over: what is owed is proposed once more, so usage that came late is in it."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from core.clock import Clock
from core.errors import BrokenInvariantError
from invoicing.domain.invoice import Invoice
from invoicing.domain.standing import Standing
from invoicing.domain.which_periods import period_before
from invoicing.invoice_period import Target, bill_targets, park_account
from invoicing.life_ports import DraftRegister
from invoicing.ports import Books, UsageReader
from invoicing.terms import Terms

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Finalized:
    """What became of drafts: documents issued, drafts of which nothing is owed any more, and parked tenants."""

    issued: tuple[Invoice, ...] = ()
    dropped: tuple[str, ...] = ()
    parked: tuple[str, ...] = ()


async def finalize_drafts(
    *,
    drafts: DraftRegister,
    books: Books,
    usage: UsageReader,
    terms: Terms,
    clock: Clock,
    tenant_id: str | None = None,
    is_early: bool = False,
) -> Finalized:
    """Finalize every draft whose grace is over, or all of them (`is_early`); again, nothing new.

    Parked accounts keep their drafts. A draft's account whose figures make no sense is parked, the others go on.
    """
    issued: list[Invoice] = []
    dropped: list[str] = []
    parked: list[str] = []
    for draft in await drafts.drafts(due_at=None if is_early else clock.now(), tenant_id=tenant_id):
        try:
            made = await _finalize(draft, books=books, usage=usage, terms=terms, clock=clock)
        except BrokenInvariantError as broken:
            await park_account(books, draft.tenant_id, broken, clock.now(), period=str(draft.period))
            made = None
        if made is None:
            parked.append(draft.tenant_id)
            continue
        issued += made
        if not made:
            dropped.append(draft.invoice_id)
    return Finalized(tuple(issued), tuple(dropped), tuple(dict.fromkeys(parked)))


async def _finalize(
    draft: Standing, *, books: Books, usage: UsageReader, terms: Terms, clock: Clock
) -> list[Invoice] | None:
    """Return what was issued for a draft's billing period; None if the account is parked."""
    now = clock.now()
    async with books.open_account(draft.tenant_id) as account:
        if account is None or await account.issued.lock(draft.invoice_id) is None:
            return []
        if account.buyer.parked_reason is not None:
            log.warning("account.skipped", tenant=draft.tenant_id, parked=account.buyer.parked_reason)
            return None
        targets = []
        for subscribed in await account.subscriptions(max(draft.period.end, now)):
            is_own = subscribed.subscription_id == draft.subscription_id
            # A consolidated draft is on the first subscription's account, and over all of the same period.
            is_beside = account.buyer.consolidated_invoices and (
                subscribed.start.cycle.period_at(draft.period.start) == draft.period
            )
            if is_own or is_beside:
                # A draft over what is billed before its period began falls due with the end of the one before.
                period = (
                    draft.period if draft.period.end <= now else period_before(subscribed.start.cycle, draft.period)
                )
                targets.append(Target(subscribed, period))
        return await bill_targets(account, targets, usage, terms, now, is_final=True)
