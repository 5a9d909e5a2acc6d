"""Asks the provider for what is open of a finalized invoice: at most one charge, whatever breaks on the way.

The payment is committed as pending before the call, and its id is the provider's idempotency key. An unknown outcome
leaves it pending: the caller tries again, which first looks the charge up, then repeats the call with the same key.
Rules: Stripe's API reference, "Idempotent requests" (results, 500s included, are repeated for a key and kept 24 hours).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import structlog

from core.clock import Clock
from core.errors import BrokenInvariantError, Fault, InvalidInputError
from core.messages import InvoiceFinalized
from core.money import Money
from payments.domain.amount_due import parse_amount_due
from payments.domain.history import Cause, CauseKind
from payments.domain.payment import (
    NO_PAYMENT_METHOD,
    PROVIDER_ERROR,
    Outcome,
    Payment,
    PaymentStatus,
    Refusal,
    fail,
    payment_id_of,
    record_answer,
)
from payments.ports import ExhaustedKeyError, PaymentMethod, PaymentProvider, PaymentStore, PaymentUnit
from payments.record_change import record_change, record_opening

NO_PROVIDER = "none"
# Stripe may forget a key after 24 hours: past this age a repeated call could charge again, so we only look up.
KEY_LIFE = timedelta(hours=23)
# Attempts that end without any answer of the issuer; declines are dunning's affair.
TECHNICAL_ATTEMPTS_MAX = 3
log = structlog.get_logger()


async def charge_invoice(
    invoice: InvoiceFinalized,
    *,
    store: PaymentStore,
    providers: Mapping[str, PaymentProvider],
    clock: Clock,
    retry_of: str | None = None,
) -> Payment | None:
    """Charge what is open of the amount due and return the payment as recorded; None if nothing is.

    A payment that is already under way or done is returned as it is, so is one that ended without money, unless it is
    `retry_of` that dunning asks for: then the next attempt is opened, once. Raises `InvalidInputError` for a message
    that cannot be charged, and `UnavailableError` while the outcome is unknown: call again.
    """
    amount = parse_amount_due(invoice.amount_due, invoice.currency)
    if not amount.amount:
        return None
    while True:
        async with store.transaction() as unit:
            payment, is_new = await _open_payment(unit, invoice, amount, providers, clock.now(), retry_of)
            method = await unit.method_at(invoice.tenant_id, payment.provider) if payment is not None else None
        if payment is None or payment.status is not PaymentStatus.PENDING:
            return payment
        if method is None:
            # Taken away while the outcome was open. Nothing can be asked, and failing it could hide a charge.
            log.error("payment.left_pending", payment_id=payment.payment_id, reason="the payment method was removed")
            return payment
        provider = providers[payment.provider]
        outcome = await _ask(provider, payment, method, invoice, is_new=is_new, now=clock.now())
        recorded = await _record(store, payment, outcome, clock.now())
        if recorded.failure_code != PROVIDER_ERROR or recorded.attempt >= TECHNICAL_ATTEMPTS_MAX:
            return recorded


async def _open_payment(
    unit: PaymentUnit,
    invoice: InvoiceFinalized,
    amount: Money,
    providers: Mapping[str, PaymentProvider],
    now: datetime,
    retry_of: str | None,
) -> tuple[Payment | None, bool]:
    """Return the attempt to work on and whether it was opened now; None if another payment holds the invoice."""
    latest = await unit.latest_payment(invoice.invoice_id)
    attempt = 1
    if latest is not None:
        is_technical = latest.failure_code == PROVIDER_ERROR and latest.attempt < TECHNICAL_ATTEMPTS_MAX
        has_ended = latest.status in {PaymentStatus.FAILED, PaymentStatus.CANCELED}
        if not is_technical and not (has_ended and latest.payment_id == retry_of):
            return latest, False
        attempt = latest.attempt + 1
    amount = await _still_open(unit, invoice, amount)
    if not amount.amount:
        log.info("payment.nothing_open", invoice_id=invoice.invoice_id)
        return None, False
    method = await unit.payment_method(invoice.tenant_id)
    usable = method is not None and method.provider in providers
    payment = Payment(
        payment_id=payment_id_of(invoice.invoice_id, attempt),
        invoice_id=invoice.invoice_id,
        tenant_id=invoice.tenant_id,
        attempt=attempt,
        provider=method.provider if method is not None and usable else NO_PROVIDER,
        amount=amount,
        created_at=now,
    )
    cause = Cause(CauseKind.REQUEST, f"invoice {invoice.number}")
    if not await record_opening(unit, payment, now, cause):
        return None, False
    if not usable:
        failed = fail(payment, NO_PAYMENT_METHOD, "the tenant has no payment method that a provider here can charge")
        await record_change(unit, payment, failed, now, cause)
        log.warning("payment.no_method", invoice_id=payment.invoice_id, tenant_id=payment.tenant_id)
        return failed, True
    return payment, True


async def _still_open(unit: PaymentUnit, invoice: InvoiceFinalized, asked: Money) -> Money:
    """Return what is to be charged, no more than is open now: the invoice may have been voided, credited or paid."""
    left = await unit.lock_open_amount(invoice.invoice_id)
    if left is None:
        raise InvalidInputError([Fault("unknown_invoice", f"no invoice {invoice.invoice_id!r}", "invoice_id")])
    if left.currency != asked.currency:
        reason = f"{asked.currency} asked, the invoice is in {left.currency}"
        raise InvalidInputError([Fault("currency_mismatch", reason, "currency")])
    return Money(min(asked.amount, left.amount), asked.currency)


async def _ask(
    provider: PaymentProvider,
    payment: Payment,
    method: PaymentMethod,
    invoice: InvoiceFinalized,
    *,
    is_new: bool,
    now: datetime,
) -> Outcome:
    if not is_new:
        # An earlier call may have got through although its answer did not.
        found = await provider.find_charge(payment, method)
        if found is not None:
            return found
        if now - payment.created_at >= KEY_LIFE:
            return _without_charge("the outcome stayed unknown and the provider holds no charge")
    try:
        return await provider.charge(payment, method, f"Invoice {invoice.number}")
    except ExhaustedKeyError as error:
        return await provider.find_charge(payment, method) or _without_charge(str(error))


def _without_charge(reason: str) -> Outcome:
    return Outcome(PaymentStatus.FAILED, None, None, PROVIDER_ERROR, reason)


async def _record(store: PaymentStore, asked: Payment, outcome: Outcome, now: datetime) -> Payment:
    async with store.transaction() as unit:
        payment = await unit.lock_payment(asked.payment_id)
        if payment is None:
            raise BrokenInvariantError(f"payment {asked.payment_id} vanished while it was being charged")
        changed = record_answer(payment, outcome)
        if isinstance(changed, Refusal):
            # Our own request answered with another amount or intent: no later step could be trusted.
            raise BrokenInvariantError(
                f"{payment.payment_id}: the provider's answer contradicts our request: {changed}"
            )
        await record_change(unit, payment, changed, now, Cause(CauseKind.ANSWER))
    log.info(
        "payment.recorded", payment_id=changed.payment_id, status=changed.status.value, code=changed.failure_code or ""
    )
    return changed
