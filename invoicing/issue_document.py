"""Issues a document: its tax, the credits it draws or gives back, its number, its snapshot, and what the ledger says.

Everything happens in the transaction that holds the tenant's account: no invoice without its draws, no credit note
without where its value went, no number without its document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.errors import must_hold
from invoicing.determine_taxes import determine_taxes, freeze_exchange
from invoicing.domain.credit_note import spread_value
from invoicing.domain.exchange import FrozenRate
from invoicing.domain.invoice import DocumentKind, Draft, Invoice, Origin, due_date, format_number, series_of
from invoicing.domain.invoice_postings import postings_of
from invoicing.domain.snapshot import build_snapshot
from invoicing.domain.standing import Application, Standing
from invoicing.ports import Account
from invoicing.terms import Terms
from rating.domain.credit import CreditGrant, CreditKind, dues_of
from rating.domain.credit_postings import CREDIT_NOTE, credit_of_note
from rating.domain.digest import digest_of
from rating.draw_credits import draw_credits, total_drawn
from rating.rate_charges import ENGINE_VERSION
from rating.return_part import return_part

_ZERO = Decimal(0)
# What the document says where no plan is behind it.
NO_PLAN: Mapping[str, Any] = {"id": "", "name": "", "version": 0}


@dataclass(frozen=True, slots=True)
class Heading:
    """What a document says besides its lines.

    `reason` says why a credit note is, `replaces` is the invoice that this one is issued anew for, `asked` what a
    person asked for.
    """

    origin: Origin
    plan: Mapping[str, Any]
    time_zone: str
    due_days: int
    reason: str = ""
    replaces: str | None = None
    asked: Mapping[str, Any] | None = None


async def tax_draft(account: Account, draft: Draft, heading: Heading, terms: Terms, now: datetime) -> Draft:
    """Return the draft with its tax; lines whose tax is known already keep it. Raises `UndeterminedTaxError`."""
    if all(line.tax_origin is not None for line in draft.lines):
        return draft
    zone = heading.time_zone
    return await determine_taxes(
        draft, buyer=account.buyer, books=account, rules=terms.tax_rules, issued_at=now, time_zone=zone
    )


async def issue_invoice(account: Account, draft: Draft, heading: Heading, terms: Terms, now: datetime) -> Invoice:
    """Issue an invoice over a draft whose tax is determined; what credits pay of it is drawn."""
    dues = dues_of([line.as_amount() for line in draft.lines], draft.currency)
    tenant_id = account.buyer.tenant_id
    draws = await draw_credits(tenant_id, draft.invoice_id, dues, draft.currency, ledger=account.ledger, at=now)
    drawn = total_drawn(draws)
    invoice = await _issue(account, draft, heading, terms, now, kind=DocumentKind.INVOICE, credits_applied=drawn)
    await account.post(postings_of(invoice), now)
    return invoice


async def issue_credit_note(account: Account, draft: Draft, heading: Heading, terms: Terms, now: datetime) -> Invoice:
    """Issue a credit note over a draft whose tax is determined and whose total is negative, and spread its value."""
    bearing = await _bearing(account, draft)
    applications = spread_value(draft.lines, bearing)
    must_hold(sum((one.total for one in applications), _ZERO) == -draft.total, "a credit note's value went nowhere")
    invoice = await _issue(account, draft, heading, terms, now, kind=DocumentKind.CREDIT_NOTE)
    applied = sum((one.amount for one in applications), _ZERO)
    returned = sum((one.credits_returned for one in applications), _ZERO)
    given_up = {one.invoice_id for one in bearing if one.status == "uncollectible"}
    written_off = sum((one.amount for one in applications if one.invoice_id in given_up), _ZERO)
    await account.post(postings_of(invoice, applied=applied, returned=returned, written_off=written_off), now)
    for application in applications:
        await _give(account, draft.invoice_id, application, now)
    await _grant(account, draft, sum((one.credit_granted for one in applications), _ZERO), now)
    return invoice


async def _bearing(account: Account, draft: Draft) -> list[Standing]:
    """Return the invoices that the value of a credit note may come from, by issue."""
    owners = dict.fromkeys([draft.subscription_id, *(line.subscription_id for line in draft.lines)])
    found: dict[str, Standing] = {}
    for owner in owners:
        if owner is not None or draft.subscription_id is None:
            found |= {one.invoice_id: one for one in await account.issued.invoices(owner)}
    same = [one for one in found.values() if one.currency == draft.currency and one.issued_at is not None]
    return sorted(same, key=lambda one: (one.issued_at or one.period.end, one.sequence, one.invoice_id))


async def _give(account: Account, credit_note_id: str, application: Application, now: datetime) -> None:
    before = await account.issued.returned_by(application.invoice_id)
    await account.issued.apply(credit_note_id, application, now)
    if application.credits_returned:
        await return_part(
            application.invoice_id,
            application.credits_returned,
            credit_note_id=credit_note_id,
            before=before,
            ledger=account.ledger,
            at=now,
        )


async def _grant(account: Account, draft: Draft, amount: Decimal, now: datetime) -> None:
    """Give what was paid back as a credit, which the next invoice draws."""
    if not amount:
        return
    tenant_id = account.buyer.tenant_id
    grant = CreditGrant(
        credit_of_note(tenant_id, draft.invoice_id),
        tenant_id,
        CreditKind.PAID,
        amount,
        draft.currency,
        effective_at=now,
        granted_at=now,
        reason=CREDIT_NOTE,
    )
    must_hold(await account.ledger.add_grant(grant), f"credit {grant.grant_id} was granted before its credit note")


async def _issue(
    account: Account,
    draft: Draft,
    heading: Heading,
    terms: Terms,
    now: datetime,
    *,
    kind: DocumentKind,
    credits_applied: Decimal = _ZERO,
) -> Invoice:
    # The number is taken last: its row stays locked until the commit, and every other invoice waits for it.
    exchange = freeze_exchange(draft, terms.tax_rules, now, heading.time_zone)
    series = series_of(terms.seller.number_prefix, now, kind)
    corrected = await _corrected(account, draft)
    number = format_number(series, await account.take_number(series))
    invoice = _document(account, draft, heading, terms, now, kind, number, corrected, credits_applied, exchange)
    await account.add(invoice)
    return invoice


async def _corrected(account: Account, draft: Draft) -> list[Standing]:
    found = []
    for invoice_id in sorted({line.corrects_invoice for line in draft.lines if line.corrects_invoice}):
        standing = await account.issued.lock(invoice_id)
        must_hold(standing is not None, f"{draft.invoice_id} corrects {invoice_id}, which is not there")
        found += [standing] if standing is not None else []
    return found


def _document(
    account: Account,
    draft: Draft,
    heading: Heading,
    terms: Terms,
    now: datetime,
    kind: DocumentKind,
    number: str,
    corrected: Sequence[Standing],
    credits_applied: Decimal,
    exchange: FrozenRate | None,
) -> Invoice:
    due_days = heading.due_days if kind is DocumentKind.INVOICE else 0
    due_at = due_date(now, due_days)
    snapshot = build_snapshot(
        draft,
        number=number,
        issued_at=now,
        due_at=due_at,
        due_days=due_days,
        seller=terms.seller,
        buyer=account.buyer,
        plan=dict(heading.plan),
        time_zone=heading.time_zone,
        numbers_corrected={one.invoice_id: one.name for one in corrected},
        corrected_at={one.invoice_id: one.issued_at for one in corrected if one.issued_at is not None},
        credits_applied=credits_applied,
        kind=kind,
        exchange=exchange,
        reason=heading.reason,
    )
    return Invoice(
        draft=draft,
        tenant_id=account.buyer.tenant_id,
        number=number,
        issued_at=now,
        due_at=due_at,
        snapshot=snapshot,
        engine_version=ENGINE_VERSION,
        credits_applied=credits_applied,
        exchange=exchange,
        kind=kind,
        origin=heading.origin,
        reason=heading.reason,
        replaces=heading.replaces,
        asked_sha256=None if heading.asked is None else digest_of(dict(heading.asked)),
    )
