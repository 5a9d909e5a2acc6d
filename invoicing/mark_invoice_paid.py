"""Marks an invoice paid when its payment has settled."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, InvalidOperation

import structlog

from core.errors import Fault, InvalidInputError
from core.messages import PaymentSettled
from invoicing.ports import Payable, Settlements

log = structlog.get_logger()
_PAYABLE = ("finalized", "overdue")


async def mark_invoice_paid(settled: PaymentSettled, *, settlements: Settlements) -> bool:
    """Mark the invoice paid; tells whether it was open, for the same payment may be reported again.

    Raises `InvalidInputError` (`unknown_invoice`, `tenant_mismatch`, `currency_mismatch`, `amount_mismatch`,
    `not_payable`, `invalid_amount`, `invalid_time`): money that does not fit its invoice is for a person to look at.
    """
    amount, paid_at = _read_amount(settled.amount), _read_instant(settled.settled_at)
    async with settlements.open_payable(settled.invoice_id) as opened:
        if opened is None:
            raise _refusal("unknown_invoice", f"no invoice {settled.invoice_id!r}", "invoice_id")
        invoice = opened.payable
        _check(invoice, settled, amount)
        if invoice.status == "paid":
            return False
        await opened.mark_paid(amount, paid_at)
    log.info("invoice.paid", tenant=settled.tenant_id, invoice=settled.invoice_id, payment=settled.payment_id)
    return True


def _check(invoice: Payable, settled: PaymentSettled, amount: Decimal) -> None:
    if invoice.tenant_id != settled.tenant_id:
        raise _refusal("tenant_mismatch", "the invoice belongs to another tenant", "tenant_id")
    if invoice.currency != settled.currency:
        reason = f"paid in {settled.currency}, the invoice is in {invoice.currency}"
        raise _refusal("currency_mismatch", reason, "currency")
    if amount != invoice.amount_due:
        raise _refusal("amount_mismatch", f"paid {amount}, the invoice asks for {invoice.amount_due}", "amount")
    if invoice.status not in (*_PAYABLE, "paid"):
        raise _refusal("not_payable", f"the invoice is {invoice.status}", "invoice_id")


def _read_amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite():
        raise _refusal("invalid_amount", f"not an amount: {text!r}", "amount")
    return amount


def _read_instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise _refusal("invalid_time", f"not an instant: {text!r}", "settled_at") from None
    if instant.tzinfo is None:
        raise _refusal("invalid_time", f"no time zone: {text!r}", "settled_at")
    return instant


def _refusal(code: str, reason: str, path: str) -> InvalidInputError:
    return InvalidInputError([Fault(code, reason, path)])
