"""Puts money that came in onto its invoice, once per payment; the invoice is paid when all of it has come.

Parts are taken as they come. More than is open fits no invoice and is refused: it is for a person to look at. An
invoice that was written off still takes money; what comes lowers the bad debt.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal, InvalidOperation

import structlog

from core.clock import Clock
from core.errors import Fault, InvalidInputError
from core.messages import PaymentSettled
from core.money import round_to_minor
from invoicing.settlement_ports import Payable, Settlement, Settlements

log = structlog.get_logger()
_PAYABLE = ("finalized", "overdue", "uncollectible")


async def settle_invoice(settled: PaymentSettled, *, settlements: Settlements, clock: Clock) -> bool:
    """Record the payment; tells whether it was new, for the same payment may be reported again.

    Raises `InvalidInputError` (`unknown_invoice`, `unknown_payment`, `tenant_mismatch`, `currency_mismatch`,
    `amount_mismatch` for more than is open, `settled_otherwise` for a payment known with another amount or invoice,
    `not_payable`, `invalid_amount`, `invalid_time`): money that does not fit its invoice is for a person to look at.
    """
    amount, settled_at = read_amount(settled.amount, settled.currency), read_instant(settled.settled_at, "settled_at")
    settlement = Settlement(settled.payment_id, settled.invoice_id, settled.provider, amount, settled_at)
    async with settlements.open_payable(settled.invoice_id) as opened:
        if opened is None:
            raise refusal("unknown_invoice", f"no invoice {settled.invoice_id!r}", "invoice_id")
        before = await opened.settlement(settled.payment_id)
        if before is not None:
            if replace(before, settled_at=settled_at) != settlement:
                was = f"{before.amount:f} of {before.invoice_id}"
                raise refusal("settled_otherwise", f"{settled.payment_id} paid {was} before", "payment_id")
            return False
        invoice = opened.payable
        check_payer(invoice, settled.tenant_id, settled.currency)
        if invoice.status not in (*_PAYABLE, "paid"):
            raise refusal("not_payable", f"the invoice is {invoice.status}", "invoice_id")
        if amount > invoice.amount_open:
            reason = f"{amount:f} came, {invoice.amount_open:f} of the invoice is open"
            raise refusal("amount_mismatch", reason, "amount")
        is_paid = amount == invoice.amount_open
        await opened.settle(settlement, is_paid=is_paid, now=clock.now())
    log.info(
        "invoice.paid" if is_paid else "invoice.partly_paid",
        tenant=settled.tenant_id,
        invoice=settled.invoice_id,
        payment=settled.payment_id,
        amount=str(amount),
    )
    return True


def check_payer(invoice: Payable, tenant_id: str, currency: str) -> None:
    """Refuse money of another tenant or in another currency than the invoice's."""
    if invoice.tenant_id != tenant_id:
        raise refusal("tenant_mismatch", "the invoice belongs to another tenant", "tenant_id")
    if invoice.currency != currency:
        raise refusal("currency_mismatch", f"paid in {currency}, the invoice is in {invoice.currency}", "currency")


def read_amount(text: str, currency: str) -> Decimal:
    """Return an amount above zero in whole minor units; raises `InvalidInputError` (`invalid_amount`)."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 < amount < Decimal(10) ** 20 or round_to_minor(amount, currency) != amount:
        raise refusal("invalid_amount", f"not an amount of {currency}: {text[:40]!r}", "amount")
    return amount


def read_instant(text: str, path: str) -> datetime:
    """Return an aware instant; raises `InvalidInputError` (`invalid_time`)."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise refusal("invalid_time", f"not an instant with a zone: {text[:40]!r}", path)
    return instant


def refusal(code: str, reason: str, path: str) -> InvalidInputError:
    """Return the refusal of money that does not fit."""
    return InvalidInputError([Fault(code, reason, path)])
