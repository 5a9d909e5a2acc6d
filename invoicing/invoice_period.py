"""Invoices a tenant's billing periods: what is owed, less what was billed before, becomes the next invoice.

Everything happens in one transaction that holds the tenant's account, so of two consumers with the same request one
bills and the other then finds nothing new. Credits are drawn in it too: no invoice without its draws, no draw without
its invoice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from prometheus_client import Counter

from core.clock import Clock
from core.errors import BrokenInvariantError, Fault, InvalidInputError, must_hold
from core.messages import InvoicingRequest
from core.meters import Meter
from core.period import Period
from invoicing.determine_taxes import TaxRules, determine_taxes, freeze_exchange
from invoicing.domain.exchange import NO_RATES, ExchangeRates
from invoicing.domain.invoice import Draft, Invoice, due_date, format_number, series_of
from invoicing.domain.lines import total_of
from invoicing.domain.seller import Seller
from invoicing.domain.snapshot import build_snapshot
from invoicing.domain.subscribed import Subscribed
from invoicing.domain.tax.tables import TaxTables
from invoicing.domain.which_periods import check_over, read_request, requested_periods
from invoicing.ports import Account, Books, UsageReader
from invoicing.propose_invoice import ProposedInvoice, propose_invoice
from invoicing.propose_lines import Proposal
from invoicing.tax_ports import TaxService
from rating.domain.credit import dues_of
from rating.domain.digest import digest_of
from rating.domain.timeline import Held, Timeline
from rating.draw_credits import draw_credits, total_drawn
from rating.rate_charges import ENGINE_VERSION
from rating.rate_timeline import PlanOf, period_name

log = structlog.get_logger()
_INVOICES = Counter("meterbook_invoices_total", "Invoicing requests by outcome", ["outcome"])
_UNPRICED = Counter("meterbook_unpriced_usage_total", "Usage rows without a price, seen when invoicing", ["meter"])


class ParkedError(BrokenInvariantError):
    """The account cannot be invoiced before a person has looked."""

    code = "account_parked"


@dataclass(frozen=True, slots=True)
class Terms:
    """What the seller sets for all invoices: who sells, days until due, and by what tables tax is charged."""

    seller: Seller
    due_days: int
    tables: TaxTables = field(default_factory=TaxTables)
    exchange: ExchangeRates = NO_RATES
    tax_service: TaxService | None = None

    @property
    def tax_rules(self) -> TaxRules:
        """How tax is charged."""
        return TaxRules(self.seller.tax, self.tables, self.exchange, self.tax_service)


@dataclass(frozen=True, slots=True)
class _Target:
    """A billing period to be invoiced."""

    subscribed: Subscribed
    period: Period


async def invoice_period(
    request: InvoicingRequest, *, books: Books, usage: UsageReader, terms: Terms, clock: Clock
) -> list[Invoice]:
    """Return the invoices this request gave rise to; none when nothing new is owed.

    Raises `InvalidInputError` (`invalid_period`, `period_not_over`, `unknown_tenant`). A parked account is skipped.
    An account whose figures make no sense (a broken invariant, or less owed than was billed) is parked.
    """
    asked, now = read_request(request.period), clock.now()
    try:
        async with books.open_account(request.tenant_id) as account:
            if account is None:
                raise InvalidInputError([Fault("unknown_tenant", f"no tenant {request.tenant_id!r}", "tenant_id")])
            targets = await _targets(account, asked, now)
            if account.buyer.parked_reason is not None:
                log.warning("account.skipped", tenant=request.tenant_id, parked=account.buyer.parked_reason)
                _INVOICES.labels("skipped").inc()
                return []
            invoices = await _invoice(account, targets, usage, terms, now)
    except BrokenInvariantError as broken:
        await _park(books, request, broken, now)
        return []
    _INVOICES.labels("invoiced" if invoices else "nothing_new").inc(len(invoices) or 1)
    for invoice in invoices:
        log.info(
            "invoice.finalized",
            tenant=request.tenant_id,
            number=invoice.number,
            total=str(invoice.total),
            amount_due=str(invoice.amount_due),
        )
    return invoices


async def _targets(account: Account, asked: str | datetime, now: datetime) -> list[_Target]:
    calendar = account.buyer.calendar
    before = asked if isinstance(asked, datetime) else calendar.period(asked).end
    targets = [
        _Target(subscribed, period)
        for subscribed in await account.subscriptions(before)
        for period in requested_periods(asked, subscribed.start.cycle, subscribed.start.started_at, calendar)
    ]
    check_over(asked, [target.period for target in targets], calendar, now)
    return targets


async def _invoice(
    account: Account, targets: Iterable[_Target], usage: UsageReader, terms: Terms, now: datetime
) -> list[Invoice]:
    meters = await account.meters()
    proposed = [
        (target, await propose_invoice(account, target.subscribed, target.period, usage=usage, meters=meters))
        for target in targets
    ]
    _report_unpriced(account, [invoice.target for _, invoice in proposed])
    invoices = []
    for target, proposal in proposed:
        if not proposal.is_due:
            continue
        invoices.append(await _finalize(account, target, proposal, meters, terms, now))
    return invoices


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


async def _finalize(
    account: Account,
    target: _Target,
    proposal: ProposedInvoice,
    meters: Mapping[str, Meter],
    terms: Terms,
    now: datetime,
) -> Invoice:
    buyer, timeline = account.buyer, target.subscribed.timeline()
    must_hold(
        proposal.currency == buyer.currency, f"the plan is in {proposal.currency}, the account in {buyer.currency}"
    )
    if proposal.net < 0:
        # A credit note would be the answer; until there are any, a person decides.
        name = period_name(timeline.cycle, proposal.period)
        raise ParkedError(f"{name}: {-proposal.net} {proposal.currency} less is owed than was invoiced")
    draft = Draft(
        target.subscribed.subscription_id, proposal.period, proposal.sequence, proposal.currency, proposal.lines
    )
    zone = timeline.cycle.time_zone
    draft = await determine_taxes(
        draft, buyer=buyer, books=account, rules=terms.tax_rules, issued_at=now, time_zone=zone
    )
    exchange = freeze_exchange(draft, terms.tax_rules, now, zone)
    dues = dues_of([line.as_amount() for line in draft.lines], draft.currency)
    draws = await draw_credits(buyer.tenant_id, draft.invoice_id, dues, draft.currency, ledger=account.ledger, at=now)
    # The number is taken last: its row stays locked until the commit, and every other invoice waits for it.
    series = series_of(terms.seller.number_prefix, now)
    number = format_number(series, await account.take_number(series))
    held = last_held(target.subscribed, timeline, proposal.period)
    due_days = _due_days(target.subscribed, held, terms)
    due_at = due_date(now, due_days)
    corrected = {line.corrects_invoice for line in draft.lines} & proposal.numbers.keys()
    snapshot = build_snapshot(
        draft,
        number=number,
        issued_at=now,
        due_at=due_at,
        due_days=due_days,
        seller=terms.seller,
        buyer=buyer,
        plan=plan_shown(held, target.subscribed.plan_of(meters)),
        time_zone=timeline.cycle.time_zone,
        numbers_corrected={invoice_id: proposal.numbers[invoice_id] for invoice_id in corrected if invoice_id},
        credits_applied=total_drawn(draws),
        exchange=exchange,
    )
    invoice = Invoice(
        draft=draft,
        tenant_id=buyer.tenant_id,
        number=number,
        issued_at=now,
        due_at=due_at,
        snapshot=snapshot,
        snapshot_sha256=digest_of(snapshot),
        engine_version=ENGINE_VERSION,
        credits_applied=total_drawn(draws),
        exchange=exchange,
    )
    await account.add(invoice)
    must_hold(total_of(draft.lines) == proposal.net, "the invoice's total is not the sum of its lines")
    return invoice


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


async def _park(books: Books, request: InvoicingRequest, broken: BrokenInvariantError, now: datetime) -> None:
    """Park the account in a transaction of its own: the one that found the trouble has been rolled back."""
    async with books.open_account(request.tenant_id) as account:
        if account is not None:
            await account.park(str(broken), now)
    _INVOICES.labels("parked").inc()
    log.error("account.parked", tenant=request.tenant_id, period=request.period, reason=str(broken))
