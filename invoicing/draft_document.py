"""What a document would show that is not issued: a draft in its grace, or a preview. Stores nothing.

It has no number, no dates and no bank details, and is marked on every page: nobody shall pay it or book it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.errors import Fault, InvalidInputError, NotFoundError, must_hold
from invoicing.domain.invoice import DocumentKind, Draft
from invoicing.domain.snapshot import build_snapshot
from invoicing.invoice_period import heading_of
from invoicing.issue_document import NO_PLAN
from invoicing.ports import Account, Books, UsageReader
from invoicing.preview_invoice import Wish, preview_invoice
from invoicing.terms import Terms
from rating.domain.credit import dues_of, plan_draws
from rating.draw_credits import total_drawn


async def draft_snapshot(reference: str, *, books: Books, terms: Terms) -> dict[str, Any]:
    """Return what the document of a stored draft would show, by its id.

    Raises `NotFoundError`; `InvalidInputError` (`not_a_draft`) for one that was issued.
    """
    tenant_id = await books.tenant_of(reference)
    if tenant_id is None:
        raise NotFoundError(f"no draft {reference[:80]!r}")
    async with books.view_account(tenant_id) as account:
        standing = await account.issued.lock(reference) if account is not None else None
        if account is None or standing is None:
            raise NotFoundError(f"no draft {reference[:80]!r}")
        if standing.status != "draft":
            raise InvalidInputError([Fault("not_a_draft", f"{standing.name} was issued: it has its own document")])
        lines = tuple(await account.issued.lines(standing.invoice_id))
        draft = Draft(standing.subscription_id, standing.period, standing.sequence, standing.currency, lines)
        plan, time_zone = NO_PLAN, account.buyer.time_zone
        found = await account.subscriptions(datetime.max.replace(tzinfo=standing.period.start.tzinfo))
        for subscribed in found:
            if subscribed.subscription_id == standing.subscription_id:
                heading = heading_of(subscribed, standing.period, await account.meters(), terms)
                plan, time_zone = heading.plan, heading.time_zone
        dues = dues_of([line.as_amount() for line in lines], draft.currency)
        held = await account.ledger.credits(tenant_id)
        drawn = (
            total_drawn(plan_draws(held, dues, draft.currency, standing.period.end)) if draft.total > 0 else Decimal(0)
        )
        return await _show(account, draft, plan, time_zone, terms, drawn)


async def preview_snapshot(
    tenant_id: str,
    at: datetime,
    *,
    books: Books,
    usage: UsageReader,
    terms: Terms,
    subscription_id: str | None = None,
    wish: Wish | None = None,
) -> dict[str, Any]:
    """Return what the document of a preview would show; raises what `preview_invoice` does."""
    preview = await preview_invoice(
        tenant_id, at, books=books, usage=usage, subscription_id=subscription_id, wish=wish, rules=terms.tax_rules
    )
    draft = Draft(preview.subscription_id, preview.period, preview.sequence, preview.currency, preview.lines)
    async with books.view_account(tenant_id) as account:
        must_hold(account is not None, f"tenant {tenant_id} went away while its invoice was previewed")
        assert account is not None
        return await _show(account, draft, preview.plan, preview.time_zone, terms, preview.credits_applied)


async def _drawn(account: Account, draft: Draft) -> Decimal:
    """Return what credits would pay of it."""
    if draft.total <= 0:
        return Decimal(0)
    dues = dues_of([line.as_amount() for line in draft.lines], draft.currency)
    held = await account.ledger.credits(account.buyer.tenant_id)
    return total_drawn(plan_draws(held, dues, draft.currency, draft.period.end))


async def _show(
    account: Account, draft: Draft, plan: Mapping[str, Any], time_zone: str, terms: Terms, drawn: Decimal
) -> dict[str, Any]:
    corrected: dict[str, str] = {}
    for invoice_id in sorted({line.corrects_invoice for line in draft.lines if line.corrects_invoice}):
        standing = await account.issued.lock(invoice_id)
        corrected |= {invoice_id: standing.name} if standing is not None else {}
    shown = build_snapshot(
        draft,
        # Overwritten below: nothing is numbered that is not issued.
        number="DRAFT",
        issued_at=draft.period.end,
        due_at=draft.period.end,
        due_days=0,
        seller=terms.seller,
        buyer=account.buyer,
        plan=dict(plan),
        time_zone=time_zone,
        numbers_corrected=corrected,
        credits_applied=drawn,
        kind=DocumentKind.INVOICE if draft.total >= 0 else DocumentKind.CREDIT_NOTE,
    )
    return {
        **shown,
        "invoice": {**shown["invoice"], "number": None, "issued_at": None, "due_at": None},
        "transfer": None,
    }
