"""Gives (a part of) a settled payment back: at most once per request, and never more than was settled.

The refund is committed as pending before the call, and its id is the provider's idempotency key. An unknown outcome
leaves it pending: asking again with the same request looks it up first; `close_pending_payments` does so by the clock.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from decimal import Decimal

from core.clock import Clock
from core.errors import BrokenInvariantError, ConflictError, Fault, InvalidInputError, NotFoundError
from core.money import Money, is_whole_minor
from payments.charge_invoice import KEY_LIFE
from payments.domain.card_data import refuse_card_numbers
from payments.domain.dispute import HELD
from payments.domain.history import Cause, CauseKind
from payments.domain.payment import PROVIDER_ERROR, Payment, PaymentStatus, Refusal
from payments.domain.refund import Refund, RefundOutcome, RefundStatus, left_to_refund, record_refund, refund_id_of
from payments.ports import ExhaustedKeyError, PaymentProvider, PaymentStore, PaymentUnit
from payments.record_change import record_refund_change

REASON_MAX = 200


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """Who wants which part of a payment back, and why; `amount` None is all that is left.

    `key` names the request: the same key asks for the same refund, with other words it is refused.
    """

    payment_id: str
    key: str
    amount: Decimal | None
    reason: str
    requested_by: str


async def refund_payment(
    request: RefundRequest, *, store: PaymentStore, providers: Mapping[str, PaymentProvider], clock: Clock
) -> Refund:
    """Refund and return the refund as recorded; the same request again returns the same refund.

    Raises `NotFoundError`; `InvalidInputError` (`not_settled`, `invalid_amount`, `exceeds_payment`, `disputed`,
    `unknown_provider`, `card_number`, ...) with nothing done; `ConflictError` for a key used for something else; and
    `UnavailableError` while the outcome is unknown: ask again.
    """
    async with store.transaction() as unit:
        refund, payment, is_new = await open_refund(unit, request, refundable=providers, clock=clock)
    if refund.status is not RefundStatus.PENDING:
        return refund
    provider = providers[payment.provider]
    return await finish_refund(refund, payment, store=store, provider=provider, clock=clock, is_new=is_new)


async def open_refund(
    unit: PaymentUnit, request: RefundRequest, *, refundable: Container[str], clock: Clock
) -> tuple[Refund, Payment, bool]:
    """Write the refund down, asking no provider; returns it with its payment, and whether it is new.

    `refundable` are the providers whose payments can be refunded. Raises as `refund_payment`.
    """
    _check_words(request)
    payment = await unit.lock_payment(request.payment_id)
    if payment is None:
        raise NotFoundError(f"no payment {request.payment_id!r}")
    if payment.provider not in refundable:
        reason = f"{payment.payment_id} was paid by {payment.provider}, which is not refunded from here"
        raise InvalidInputError([Fault("unknown_provider", reason, "payment_id")])
    refund, is_new = await _open_refund(unit, payment, request, clock)
    return refund, payment, is_new


async def finish_refund(
    refund: Refund, payment: Payment, *, store: PaymentStore, provider: PaymentProvider, clock: Clock, is_new: bool
) -> Refund:
    """Ask the provider for a pending refund and record what it says; one that may have been asked is looked up first.

    Raises `UnavailableError` while the outcome is unknown.
    """
    asked_at = clock.now()
    outcome, cause = None, Cause(CauseKind.ANSWER)
    if not is_new:
        outcome = await provider.find_refund(refund, payment)
        cause = Cause(CauseKind.LOOKUP)
        if outcome is None and asked_at - refund.created_at >= KEY_LIFE:
            # A repeated call could refund again now; nothing of ours was found in a day.
            outcome = _without_refund("the outcome stayed unknown and the provider holds no refund")
    if outcome is None:
        cause = Cause(CauseKind.ANSWER)
        try:
            outcome = await provider.refund(refund, payment)
        except ExhaustedKeyError as error:
            outcome = await provider.find_refund(refund, payment) or _without_refund(str(error))
    async with store.transaction() as unit:
        await unit.lock_payment(payment.payment_id)
        known = await unit.find_refund(refund.refund_id)
        if known is None:
            raise BrokenInvariantError(f"refund {refund.refund_id} vanished while it was made")
        changed = record_refund(known, outcome, clock.now())
        if isinstance(changed, Refusal):
            raise BrokenInvariantError(f"{refund.refund_id}: the provider's answer contradicts our request: {changed}")
        await record_refund_change(unit, known, changed, clock.now(), cause)
    return changed


async def _open_refund(
    unit: PaymentUnit, payment: Payment, request: RefundRequest, clock: Clock
) -> tuple[Refund, bool]:
    refund_id = refund_id_of(payment.payment_id, request.key)
    known = await unit.find_refund(refund_id)
    if known is not None:
        if request.amount is not None and Money(request.amount, payment.amount.currency) != known.amount:
            raise ConflictError(f"the request {request.key!r} refunded {known.amount} already")
        return known, False
    amount = await _amount_of(unit, payment, request)
    now = clock.now()
    refund = Refund(
        refund_id=refund_id,
        payment_id=payment.payment_id,
        invoice_id=payment.invoice_id,
        tenant_id=payment.tenant_id,
        provider=payment.provider,
        amount=amount,
        reason=request.reason,
        requested_by=request.requested_by,
        created_at=now,
    )
    await record_refund_change(unit, None, refund, now, Cause(CauseKind.REQUEST, request.requested_by))
    return refund, True


async def _amount_of(unit: PaymentUnit, payment: Payment, request: RefundRequest) -> Money:
    if payment.status is not PaymentStatus.SUCCEEDED:
        raise _refuse("not_settled", f"{payment.payment_id} is {payment.status.value}, no money came", "payment_id")
    if any(dispute.status in HELD for dispute in await unit.disputes_of(payment.payment_id)):
        # Stripe refuses it too (error code charge_disputed): the bank has taken the money already.
        raise _refuse("disputed", f"the payer's bank holds the money of {payment.payment_id}", "payment_id")
    left = left_to_refund(payment, await unit.refunds_of(payment.payment_id))
    amount = left if request.amount is None else request.amount
    if amount <= 0 or not is_whole_minor(amount, payment.amount.currency):
        if request.amount is None:
            raise _refuse("exceeds_payment", f"{payment.payment_id} is refunded in full", "amount")
        reason = f"expected such as 12.50, got {str(amount)[:40]} {payment.amount.currency}"
        raise _refuse("invalid_amount", reason, "amount")
    if amount > left:
        raise _refuse("exceeds_payment", f"{amount:f} asked, {left:f} {payment.amount.currency} is left", "amount")
    return Money(amount, payment.amount.currency)


def _check_words(request: RefundRequest) -> None:
    words = {"key": request.key, "reason": request.reason, "requested_by": request.requested_by}
    refuse_card_numbers(words)
    faults = [
        Fault("invalid_text", f"expected 1 to {REASON_MAX} characters without control characters", name)
        for name, text in words.items()
        if not 1 <= len(text) <= REASON_MAX or not text.isprintable()
    ]
    if request.amount is not None and not request.amount.is_finite():
        faults.append(Fault("invalid_amount", "expected a number such as 12.50", "amount"))
    if faults:
        raise InvalidInputError(faults)


def _refuse(code: str, reason: str, path: str) -> InvalidInputError:
    return InvalidInputError([Fault(code, reason, path)])


def _without_refund(reason: str) -> RefundOutcome:
    return RefundOutcome(RefundStatus.FAILED, None, None, PROVIDER_ERROR, reason)
