"""Invoices a tenant's billing periods: what is owed, less what was billed before, becomes the next invoice.

Everything happens in one transaction that holds the tenant's account, so of two consumers with the same request one
bills and the other then finds nothing new. Credits are drawn in it too: no invoice without its draws, no draw without
its invoice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from msgspec import structs
from prometheus_client import Counter

from core.clock import Clock
from core.errors import BrokenInvariantError, Fault, InvalidInputError, must_hold
from core.messages import InvoicingRequest
from core.meters import Meter
from core.period import Period
from invoicing.domain.invoice import Draft, Invoice, Origin
from invoicing.domain.lines import Line, split_lines, total_of
from invoicing.domain.subscribed import Subscribed
from invoicing.domain.which_periods import check_over, read_request, requested_periods
from invoicing.issue_document import Heading, issue_credit_note, issue_invoice, tax_draft
from invoicing.ports import Account, Books, UsageReader
from invoicing.propose_invoice import ProposedInvoice, propose_invoice, shown_period
from invoicing.propose_lines import Proposal
from invoicing.terms import Terms
from rating.domain.timeline import Held, Timeline
from rating.rate_timeline import PlanOf

# What a credit note says that nobody asked for.
CORRECTION_REASON = "Less is owed than was invoiced"
log = structlog.get_logger()
_INVOICES = Counter("meterbook_invoices_total", "Invoicing requests by outcome", ["outcome"])
_UNPRICED = Counter("meterbook_unpriced_usage_total", "Usage rows without a price, seen when invoicing", ["meter"])


@dataclass(frozen=True, slots=True)
class Target:
    """A billing period to be invoiced."""

    subscribed: Subscribed
    period: Period


async def invoice_period(
    request: InvoicingRequest,
    *,
    books: Books,
    usage: UsageReader,
    terms: Terms,
    clock: Clock,
    is_final: bool = False,
) -> list[Invoice]:
    """Return the documents this request gave rise to; none when nothing new is owed, or a grace is not over yet.

    `is_final` waits for no grace. Where less is owed than was billed that is a credit note. Raises `InvalidInputError`
    (`invalid_period`, `period_not_over`, `unknown_tenant`). A parked account is skipped. An account whose figures make
    no sense (a broken invariant) is parked.
    """
    asked, now = read_request(request.period), clock.now()
    try:
        async with books.open_account(request.tenant_id) as account:
            if account is None:
                raise InvalidInputError([Fault("unknown_tenant", f"no tenant {request.tenant_id!r}", "tenant_id")])
            targets = await targets_of(account, asked, now)
            if account.buyer.parked_reason is not None:
                log.warning("account.skipped", tenant=request.tenant_id, parked=account.buyer.parked_reason)
                _INVOICES.labels("skipped").inc()
                return []
            invoices = await bill_targets(account, targets, usage, terms, now, is_final=is_final)
    except BrokenInvariantError as broken:
        await park_account(books, request.tenant_id, broken, now, period=request.period)
        return []
    count_outcome(invoices)
    return invoices


def count_outcome(invoices: Sequence[Invoice]) -> None:
    """Count what a request gave rise to."""
    _INVOICES.labels("invoiced" if invoices else "nothing_new").inc(len(invoices) or 1)


async def targets_of(account: Account, asked: str | datetime, now: datetime) -> list[Target]:
    """Return the billing periods that a request asks for; raises `InvalidInputError` if one is not over yet."""
    calendar = account.buyer.calendar
    before = asked if isinstance(asked, datetime) else calendar.period(asked).end
    targets = [
        Target(subscribed, period)
        for subscribed in await account.subscriptions(before)
        for period in requested_periods(asked, subscribed.start.cycle, subscribed.start.started_at, calendar)
    ]
    check_over(asked, [target.period for target in targets], calendar, now)
    return targets


async def bill_targets(
    account: Account,
    targets: Iterable[Target],
    usage: UsageReader,
    terms: Terms,
    now: datetime,
    *,
    is_final: bool = False,
    replaces: str | None = None,
) -> list[Invoice]:
    """Issue what is owed for billing periods, within the caller's transaction; or keep it as drafts for their grace.

    `is_final`: whatever grace is left. `replaces` is the invoice that they are issued anew for.
    """
    meters = await account.meters()
    proposed: list[Proposal] = []
    issued: list[Invoice] = []
    # One after the other: what a document has billed, the next one finds billed.
    for group in _groups(account, targets):
        due: list[tuple[Target, ProposedInvoice]] = []
        graces: list[datetime] = []
        for target in group:
            graces += await _drop_drafts(account, target)
            proposal = await propose_invoice(account, target.subscribed, target.period, usage=usage, meters=meters)
            proposed.append(proposal.target)
            if proposal.is_due:
                due.append((target, proposal))
        for target, proposal in _together(due):
            ends = min(graces, default=now + timedelta(hours=terms.grace_hours))
            if now < ends and not is_final:
                await _keep_draft(account, target, proposal, meters, terms, ends, now)
            else:
                issued += await _issue(account, target, proposal, meters, terms, now, replaces)
    _report_unpriced(account, proposed)
    return issued


def _groups(account: Account, targets: Iterable[Target]) -> list[list[Target]]:
    """Return what may stand on one document: where the tenant wants that, subscriptions of the same period."""
    if not account.buyer.consolidated_invoices:
        return [[target] for target in targets]
    groups: dict[tuple[Period, Period], list[Target]] = {}
    for target in targets:
        shown = shown_period(target.subscribed, target.period)
        groups.setdefault((shown, target.period), []).append(target)
    return list(groups.values())


def _together(due: Sequence[tuple[Target, ProposedInvoice]]) -> list[tuple[Target, ProposedInvoice]]:
    """Return one proposal per currency, on the first subscription's account; the others' lines name their own."""
    found: dict[str, tuple[Target, ProposedInvoice]] = {}
    for target, proposal in due:
        first = found.get(proposal.currency)
        if first is None:
            found[proposal.currency] = (target, proposal)
            continue
        owner, before = first
        own = tuple(structs.replace(line, subscription_id=target.subscribed.subscription_id) for line in proposal.lines)
        both = replace(before, lines=(*before.lines, *own), billed={**before.billed, **proposal.billed})
        found[proposal.currency] = (owner, both)
    return list(found.values())


async def _drop_drafts(account: Account, target: Target) -> list[datetime]:
    """Take the drafts of a billing period away, for it is proposed again; returns when their graces are over."""
    period = shown_period(target.subscribed, target.period)
    drafts = await account.issued.drafts(target.subscribed.subscription_id, period)
    for draft in drafts:
        await account.issued.drop_draft(draft.invoice_id)
    return [draft.finalize_at for draft in drafts if draft.finalize_at is not None]


async def _keep_draft(
    account: Account,
    target: Target,
    proposal: ProposedInvoice,
    meters: Mapping[str, Meter],
    terms: Terms,
    finalize_at: datetime,
    now: datetime,
) -> None:
    heading = heading_of(target.subscribed, proposal.period, meters, terms)
    draft = await tax_draft(account, _draft(target, proposal, proposal.lines), heading, terms, now)
    await account.issued.put_draft(draft, finalize_at, now)
    log.info("invoice.drafted", tenant=account.buyer.tenant_id, draft=draft.invoice_id, until=str(finalize_at))


def _report_unpriced(account: Account, proposals: Iterable[Proposal]) -> None:
    """Say which usage nobody pays for: of values without a price, and of meters that no subscription prices."""
    known = list(proposals)
    priced = {meter_id for proposal in known for meter_id in proposal.priced}
    for proposal in known:
        foreign = (row for row in proposal.foreign if row.meter_id not in priced)
        for row in (*proposal.unpriced, *foreign):
            _UNPRICED.labels(row.meter_id).inc()
            log.error(
                "usage.unpriced",
                tenant=account.buyer.tenant_id,
                plan=", ".join(holding.reference.text for holding in proposal.holdings),
                meter=row.meter_id,
                dimensions=dict(row.dimensions),
                quantity=str(row.quantity),
            )


async def _issue(
    account: Account,
    target: Target,
    proposal: ProposedInvoice,
    meters: Mapping[str, Meter],
    terms: Terms,
    now: datetime,
    replaces: str | None,
) -> list[Invoice]:
    """Issue what is proposed: an invoice, or where less is owed than was billed a credit note, beside one for the new.

    What is owed for the first time stands on an invoice even where more is given back than it costs: it is a supply of
    its own, taxed as of now, and the credit of the note pays for it.
    """
    buyer, currency = account.buyer, proposal.currency
    must_hold(currency == buyer.currency, f"the plan is in {currency}, the account in {buyer.currency}")
    heading = replace(heading_of(target.subscribed, proposal.period, meters, terms), replaces=replaces)
    draft = await tax_draft(account, _draft(target, proposal, proposal.lines), heading, terms, now)
    if draft.total >= 0:
        return [_checked(await issue_invoice(account, draft, heading, terms, now), proposal.lines)]
    new, back = split_lines(proposal.lines, proposal.billed)
    corrected = replace(heading, origin=Origin.CORRECTION, reason=CORRECTION_REASON)
    note = await tax_draft(account, _draft(target, proposal, back), corrected, terms, now)
    issued = [_checked(await issue_credit_note(account, note, corrected, terms, now), back)]
    if new:
        following = _draft(target, proposal, new, sequence=proposal.sequence + 1)
        draft = await tax_draft(account, following, heading, terms, now)
        issued.append(_checked(await issue_invoice(account, draft, heading, terms, now), new))
    return issued


def _draft(target: Target, proposal: ProposedInvoice, lines: Sequence[Line], *, sequence: int | None = None) -> Draft:
    subscription_id = target.subscribed.subscription_id
    return Draft(subscription_id, proposal.period, sequence or proposal.sequence, proposal.currency, tuple(lines))


def _checked(invoice: Invoice, lines: Sequence[Line]) -> Invoice:
    must_hold(total_of(invoice.draft.lines) == total_of(lines), f"{invoice.number} is not the sum of what was proposed")
    return invoice


def heading_of(subscribed: Subscribed, period: Period, meters: Mapping[str, Meter], terms: Terms) -> Heading:
    """Return what the document of a billing period says besides its lines."""
    timeline = subscribed.timeline()
    held = last_held(subscribed, timeline, period)
    plan = plan_shown(held, subscribed.plan_of(meters))
    return Heading(Origin.PERIOD, plan, timeline.cycle.time_zone, _due_days(subscribed, held, terms))


def last_held(subscribed: Subscribed, timeline: Timeline, period: Period) -> Held:
    """Return what was held last in a billing period, else the last ever, else what the subscription began with."""
    phases = timeline.within(period) or timeline.phases
    return phases[-1].held if phases else subscribed.start.held


def plan_shown(held: Held, plan_of: PlanOf) -> dict[str, Any]:
    """Return the plan that the document names."""
    plan = plan_of(held.plan_id, held.plan_version, held.overrides)
    return {"id": plan.plan_id, "name": plan.name, "version": held.plan_version}


def _due_days(subscribed: Subscribed, held: Held, terms: Terms) -> int:
    """Return the days until due: those of the contract that held last, if it says any."""
    agreed = (one.net_days for one in subscribed.contracts if (one.contract_id, one.version) == held.contract)
    return next((days for days in agreed if days is not None), terms.due_days)


async def park_account(
    books: Books, tenant_id: str, broken: BrokenInvariantError, now: datetime, *, period: str
) -> None:
    """Park the account in a transaction of its own: the one that found the trouble has been rolled back."""
    async with books.open_account(tenant_id) as account:
        if account is not None:
            await account.park(str(broken), now)
    _INVOICES.labels("parked").inc()
    log.error("account.parked", tenant=tenant_id, period=period, reason=str(broken))
