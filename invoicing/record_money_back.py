"""Records what became of settled money afterwards: refunds, and disputes by the payer's bank.

Neither opens the invoice again. It was paid; what is to be taken back of it is a credit note's affair, and charging
again what was charged back is nobody's. The ledger says where the money is. A transfer that the payer's bank took back
is no refund: the invoice is owed again.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from core.clock import Clock
from core.messages import RETURNED_TRANSFER, PaymentDisputed, PaymentRefunded
from invoicing.settle_invoice import check_payer, read_amount, read_instant, refusal
from invoicing.settlement_ports import MoneyBack, Settlements
from ledger.domain.postings import WIRE

log = structlog.get_logger()


async def record_refund(refunded: PaymentRefunded, *, settlements: Settlements, clock: Clock) -> bool:
    """Record a refund that went through, or one that came back; tells whether it was new.

    Raises `InvalidInputError` (`unknown_invoice`, `unknown_payment`, `unknown_refund` for one that came back and was
    never heard of, `tenant_mismatch`, `currency_mismatch`, `recorded_otherwise`, `invalid_amount`, `invalid_time`).
    """
    amount = read_amount(refunded.amount, refunded.currency)
    kind = "refund" if refunded.status == "succeeded" else "refund_failed"
    # The reason of any other provider's refund is what a person wrote.
    if refunded.provider == WIRE and refunded.reason == RETURNED_TRANSFER:
        kind = "returned"
    change = MoneyBack(
        kind, refunded.refund_id, refunded.payment_id, refunded.provider, amount, refunded.currency,
        read_instant(refunded.at, "at"),
    )  # fmt: skip
    first = kind if kind == "returned" else "refund"
    return await _record(change, refunded, after=first, settlements=settlements, clock=clock)


async def record_dispute(disputed: PaymentDisputed, *, settlements: Settlements, clock: Clock) -> bool:
    """Record a dispute's step; tells whether it was new. A dispute is won or lost over what it was opened for.

    Raises `InvalidInputError` as `record_refund`, `unknown_dispute` for the end of one that was never opened.
    """
    amount = read_amount(disputed.amount, disputed.currency)
    change = MoneyBack(
        f"dispute_{disputed.status}", disputed.dispute_id, disputed.payment_id, disputed.provider, amount,
        disputed.currency, read_instant(disputed.at, "at"),
    )  # fmt: skip
    return await _record(change, disputed, after="dispute_opened", settlements=settlements, clock=clock)


async def _record(
    change: MoneyBack,
    message: PaymentRefunded | PaymentDisputed,
    *,
    after: str,
    settlements: Settlements,
    clock: Clock,
) -> bool:
    """`after` is the step that every other one follows; what it was about is what the others are about."""
    async with settlements.open_payable(message.invoice_id) as opened:
        if opened is None:
            raise refusal("unknown_invoice", f"no invoice {message.invoice_id!r}", "invoice_id")
        if opened.payable.tenant_id != message.tenant_id or isinstance(message, PaymentRefunded):
            check_payer(opened.payable, message.tenant_id, message.currency)
        if change.kind != after:
            first = await opened.money_back(after, change.cause)
            if first is None:
                what = "refund" if after == "refund" else "dispute"
                raise refusal(f"unknown_{what}", f"nothing was heard of {change.cause!r} before", f"{what}_id")
            change = replace(change, amount=first.amount, currency=first.currency)
        before = await opened.money_back(change.kind, change.cause)
        if before is not None:
            if replace(before, happened_at=change.happened_at) != change:
                was = f"{before.amount:f} {before.currency}"
                raise refusal("recorded_otherwise", f"{change.cause} was about {was} before", "amount")
            return False
        await opened.give_back(change, now=clock.now())
    log.info(
        f"payment.{change.kind}", tenant=message.tenant_id, invoice=message.invoice_id, payment=change.payment_id,
        amount=str(change.amount), currency=change.currency,
    )  # fmt: skip
    return True
