"""Issues an invoice anew: it is taken back, and what is owed for its period now is billed, in one transaction.

An invoice without money on it is voided; any other is taken back by a credit note over all that is left of it, whose
credit the new one draws.
"""

from __future__ import annotations

from datetime import datetime

import structlog

from core.clock import Clock
from core.errors import BrokenInvariantError
from invoicing.credit_invoice import heading_of_invoice
from invoicing.domain.credit_note import shares_of, taken_back, value_of
from invoicing.domain.invoice import Draft, Origin
from invoicing.domain.lines import Line
from invoicing.domain.standing import Standing
from invoicing.domain.which_periods import period_before
from invoicing.invoice_period import Target, bill_targets, park_account
from invoicing.issue_document import issue_credit_note, tax_draft
from invoicing.open_invoice import InvoiceStateError, check_issued, check_reason, open_invoice
from invoicing.ports import Account, Books, UsageReader
from invoicing.terms import Terms
from invoicing.void_invoice import check_voidable, void

log = structlog.get_logger()


async def reissue_invoice(
    reference: str, *, reason: str, books: Books, usage: UsageReader, terms: Terms, clock: Clock
) -> list[Standing]:
    """Return the document that took the invoice back (a void one itself) and those in its place; again, the same ones.

    Raises `NotFoundError`, `InvoiceStateError` (a draft, a credit note, one-time items, void by itself, a parked
    account), `PaymentUnderWayError`, `InvalidInputError` (`invalid_reason`). Where the figures make no sense the
    account is parked, nothing is issued, and `BrokenInvariantError` is raised.
    """
    why, now, tenant_id = check_reason(reason), clock.now(), ""
    try:
        async with open_invoice(reference, books) as opened:
            account, standing = opened.account, opened.standing
            tenant_id = account.buyer.tenant_id
            if before := await _done_before(account, standing):
                return before
            _check(account, standing)
            lines = await account.issued.lines(standing.invoice_id)
            targets = await _targets(account, standing, lines, now)
            taken = await _take_back(account, standing, why, terms, now)
            anew = await bill_targets(account, targets, usage, terms, now, is_final=True, replaces=standing.invoice_id)
            found = [*taken, *(one.draft.invoice_id for one in anew)]
            standings = [await account.issued.lock(invoice_id) for invoice_id in found]
    except BrokenInvariantError as broken:
        if tenant_id:
            await park_account(books, tenant_id, broken, now, period=reference)
        raise
    log.info("invoice.reissued", tenant=tenant_id, number=standing.number, documents=len(found))
    return [one for one in standings if one is not None]


async def _done_before(account: Account, standing: Standing) -> list[Standing]:
    """Return what an earlier call made; nothing if there was none."""
    notes = [one for one in await account.issued.corrected_by(standing.invoice_id) if one.origin is Origin.REISSUE]
    anew = await account.issued.replacement_of(standing.invoice_id)
    if not notes and not anew:
        return []
    return [*([standing] if standing.status == "void" else notes), *anew]


def _check(account: Account, standing: Standing) -> None:
    check_issued(standing)
    if standing.origin is Origin.ONE_TIME or standing.subscription_id is None:
        raise InvoiceStateError(f"{standing.name} has one-time items: credit it and put them down again")
    if standing.status == "void":
        raise InvoiceStateError(f"{standing.name} is void: the next run bills its period")
    if account.buyer.parked_reason is not None:
        raise InvoiceStateError(f"the account is parked: {account.buyer.parked_reason}")


async def _targets(account: Account, standing: Standing, lines: list[Line], now: datetime) -> list[Target]:
    """Return the billing periods that the invoice settled, as far as they are over, by subscription and time."""
    owners = {line.subscription_id or standing.subscription_id for line in lines}
    targets = []
    for subscribed in await account.subscriptions(datetime.max.replace(tzinfo=now.tzinfo)):
        if subscribed.subscription_id not in owners:
            continue
        own = [one for one in lines if (one.subscription_id or standing.subscription_id) == subscribed.subscription_id]
        starts = {standing.period.start, *(one.settles for one in own if one.settles is not None)}
        cycle = subscribed.start.cycle
        for start in sorted(starts):
            period = cycle.period_at(start)
            if period.end <= now:
                targets.append(Target(subscribed, period))
            elif start == standing.period.start:
                # It billed its own period in advance: that falls due with the end of the one before.
                targets.append(Target(subscribed, period_before(cycle, period)))
    return targets


async def _take_back(account: Account, standing: Standing, reason: str, terms: Terms, now: datetime) -> list[str]:
    """Void the invoice, or issue a credit note over all that is left of it; returns which document says so."""
    try:
        await check_voidable(account, standing)
    except InvoiceStateError:
        return await _credit_whole(account, standing, reason, terms, now)
    await void(account, standing, reason=reason, now=now)
    return [standing.invoice_id]


async def _credit_whole(account: Account, standing: Standing, reason: str, terms: Terms, now: datetime) -> list[str]:
    shares = shares_of(standing.invoice_id, await account.issued.billed_with(standing.invoice_id))
    left = value_of(shares)
    if left < 0:
        raise InvoiceStateError(f"what is left of {standing.name} takes {-left:f} back: nothing can be credited")
    if left == 0:
        return []
    sequence = await account.issued.next_sequence(standing.subscription_id, standing.period)
    draft = Draft(standing.subscription_id, standing.period, sequence, standing.currency, tuple(taken_back(shares)))
    heading = await heading_of_invoice(account, standing, Origin.REISSUE, reason)
    taxed = await tax_draft(account, draft, heading, terms, now)
    note = await issue_credit_note(account, taxed, heading, terms, now)
    return [note.draft.invoice_id]
