"""Invoices a tenant's period: what is owed, less what was billed before, becomes the next invoice.

Everything happens in one transaction that holds the tenant's account, so of two consumers with the same request one
bills and the other then finds nothing new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import structlog
from prometheus_client import Counter

from core.clock import Clock
from core.errors import BrokenInvariantError, Fault, InvalidInputError, must_hold
from core.messages import InvoicingRequest
from core.period import Period, format_instant, parse_month
from invoicing.domain.invoice import Draft, Invoice, due_date, format_number, series_of
from invoicing.domain.lines import Line, difference, total_of
from invoicing.domain.seller import Seller
from invoicing.domain.snapshot import build_snapshot
from invoicing.domain.usage_evidence import UsageEvidence
from invoicing.ports import Account, Books, Contract, UsageReader
from invoicing.propose_lines import Proposal, propose_lines, read_contract
from rating.domain.digest import digest_of
from rating.domain.term import Term
from rating.rate_charges import ENGINE_VERSION

log = structlog.get_logger()
_INVOICES = Counter("meterbook_invoices_total", "Invoicing requests by outcome", ["outcome"])
_UNPRICED = Counter("meterbook_unpriced_usage_total", "Usage rows without a price, seen when invoicing", ["meter"])


class ParkedError(BrokenInvariantError):
    """The account cannot be invoiced before a person has looked."""

    code = "account_parked"


@dataclass(frozen=True, slots=True)
class Terms:
    """What the seller sets for all invoices: who sells, and days until due."""

    seller: Seller
    due_days: int


async def invoice_period(
    request: InvoicingRequest, *, books: Books, usage: UsageReader, terms: Terms, clock: Clock
) -> list[Invoice]:
    """Return the invoices this request gave rise to; none when nothing new is owed.

    Raises `InvalidInputError` (`invalid_period`, `period_not_over`, `unknown_tenant`). A parked account is skipped.
    An account whose figures make no sense (a broken invariant, or less owed than was billed) is parked.
    """
    period, now = parse_month(request.period), clock.now()
    if now < period.end:
        reason = f"{request.period} ends at {format_instant(period.end)}; usage is still coming in"
        raise InvalidInputError([Fault("period_not_over", reason, "period")])
    try:
        async with books.open_account(request.tenant_id) as account:
            if account is None:
                raise InvalidInputError([Fault("unknown_tenant", f"no tenant {request.tenant_id!r}", "tenant_id")])
            if account.buyer.parked_reason is not None:
                log.warning("account.skipped", tenant=request.tenant_id, parked=account.buyer.parked_reason)
                _INVOICES.labels("skipped").inc()
                return []
            invoices = [
                invoice
                for contract in await account.contracts_in(period)
                if (invoice := await _invoice_contract(account, contract, period, usage, terms, now))
            ]
    except BrokenInvariantError as broken:
        await _park(books, request, broken, now)
        return []
    _INVOICES.labels("invoiced" if invoices else "nothing_new").inc(len(invoices) or 1)
    for invoice in invoices:
        log.info("invoice.finalized", tenant=request.tenant_id, number=invoice.number, total=str(invoice.total))
    return invoices


async def _invoice_contract(
    account: Account, contract: Contract, period: Period, usage: UsageReader, terms: Terms, now: datetime
) -> Invoice | None:
    window = Term(contract.started_at, contract.ended_at).within(period)
    if window is None:
        return None
    meters = await account.meters()
    plan = read_contract(contract, meters)
    must_hold(plan.currency == account.buyer.currency, f"the plan is in {plan.currency}, the account in another")
    evidence = await usage.usage(account.buyer.tenant_id, window, meters=meters, month=period)
    proposal = propose_lines(contract, plan, period, evidence)
    for row in proposal.unpriced:
        _UNPRICED.labels(row.meter_id).inc()
        log.error(
            "usage.unpriced",
            tenant=account.buyer.tenant_id,
            plan=contract.plan_id,
            meter=row.meter_id,
            dimensions=dict(row.dimensions),
            quantity=str(row.quantity),
        )
    billed = await account.billed(contract.subscription_id, period)
    sequence = await account.next_sequence(contract.subscription_id, period)
    lines = difference(proposal.lines, billed)
    if not _worth_an_invoice(lines, sequence):
        return None
    net = total_of(lines)
    if net < 0:
        # A credit note would be the answer; until there are any, a person decides.
        raise ParkedError(f"{period.start:%Y-%m}: {-net} {plan.currency} less is owed than was invoiced")
    draft = Draft(contract.subscription_id, period, sequence, plan.currency, tuple(lines))
    numbers = {before.invoice_id: before.number for before in billed.values()}
    invoice = await _finalize(account, draft, contract, proposal, evidence, numbers, terms, now)
    must_hold(invoice.draft.total == net, "the invoice's total is not the sum of its lines")
    return invoice


def _worth_an_invoice(lines: Sequence[Line], sequence: int) -> bool:
    """Tell whether the lines are to be issued.

    The first invoice of a period is issued if it has any line: a free plan's usage is confirmed at nothing due. After
    that only money counts: a quantity that moved within what is included needs no second document.
    """
    return bool(lines) if sequence == 1 else any(line.amount for line in lines)


async def _finalize(
    account: Account,
    draft: Draft,
    contract: Contract,
    proposal: Proposal,
    evidence: UsageEvidence,
    numbers: dict[str, str],
    terms: Terms,
    now: datetime,
) -> Invoice:
    # The number is taken last: its row stays locked until the commit, and every other invoice waits for it.
    series = series_of(terms.seller.number_prefix, now)
    number = format_number(series, await account.take_number(series))
    due_at = due_date(now, terms.due_days)
    corrected = {line.corrects_invoice for line in draft.lines} & numbers.keys()
    snapshot = build_snapshot(
        draft,
        number=number,
        issued_at=now,
        due_at=due_at,
        due_days=terms.due_days,
        seller=terms.seller,
        buyer=account.buyer,
        plan={"id": contract.plan_id, "name": proposal.plan.name, "version": contract.plan_version},
        evidence=evidence,
        numbers_corrected={invoice_id: numbers[invoice_id] for invoice_id in corrected if invoice_id},
    )
    invoice = Invoice(
        draft=draft,
        tenant_id=account.buyer.tenant_id,
        number=number,
        tax=Decimal(0),
        issued_at=now,
        due_at=due_at,
        snapshot=snapshot,
        snapshot_sha256=digest_of(snapshot),
        engine_version=ENGINE_VERSION,
    )
    await account.add(invoice)
    return invoice


async def _park(books: Books, request: InvoicingRequest, broken: BrokenInvariantError, now: datetime) -> None:
    """Park the account in a transaction of its own: the one that found the trouble has been rolled back."""
    async with books.open_account(request.tenant_id) as account:
        if account is not None:
            await account.park(str(broken), now)
    _INVOICES.labels("parked").inc()
    log.error("account.parked", tenant=request.tenant_id, period=request.period, reason=str(broken))
