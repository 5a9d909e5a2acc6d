"""Lets a person say that an entry takes back an earlier one: a returned transfer, or money that was given back.

What the earlier entry was for is taken back in the same transaction: held money first, then credit, then invoices, the
last one first. An invoice that a returned transfer had paid is owed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from core.clock import Clock
from core.errors import BrokenInvariantError, ConflictError, Fault, InvalidInputError, NotFoundError
from core.ids import derive_id
from core.messages import RETURNED_TRANSFER
from core.money import Money
from ledger.domain.postings import WIRE, of_bank_fee, of_bank_return
from payments.bank.confirm_match import Confirmed, booked_at, lock_open_entry
from payments.bank.domain.match import Reason
from payments.bank.ports import Allocation, BankDesk, BankEntry, BankUnit, Given
from payments.domain.history import Cause, CauseKind
from payments.domain.refund import Refund, RefundStatus, left_to_refund
from payments.record_change import record_refund_change
from rating.domain.credit import EntryKind

_ORDER = {"held": 0, "credit": 1, "invoice": 2}


class NotSettledYetError(ConflictError):
    """The payment has not reached its invoice yet: try again in a moment."""

    code = "not_settled_yet"


class CreditUsedError(ConflictError):
    """The credit has paid for something meanwhile."""

    code = "credit_used"


class RefundedBeforeError(ConflictError):
    """So much of the payment has been given back already."""

    code = "refunded_before"


async def confirm_return(
    entry: str,
    original: str,
    *,
    desk: BankDesk,
    clock: Clock,
    by: str,
    invoice: str | None = None,
    reasons: Sequence[Reason] = (),
) -> Confirmed:
    """Write down that an entry takes back (part of) `original`; with `invoice` only what that invoice got.

    Raises `NotFoundError`, `AlreadyConfirmedError`, `EntryRejectedError`, `NotSettledYetError`, `CreditUsedError`,
    `RefundedBeforeError` and `InvalidInputError` (`not_outgoing`, `not_incoming`, `wrong_account`, `exceeds_original`).
    """
    now = clock.now()
    async with desk.transaction() as unit:
        outgoing = await lock_open_entry(unit, entry)
        received = await unit.lock_entry(original)
        if received is None:
            raise NotFoundError(f"no bank entry {original[:60]!r}")
        _check(outgoing, received)
        given = [each for each in await unit.given(received.entry_id) if each.left > 0]
        if invoice is not None:
            given = [each for each in given if each.number == invoice]
        given.sort(key=lambda each: _ORDER[each.allocation.kind])
        parts = _take(outgoing, given)
        number = len(await unit.given(outgoing.entry_id))
        made = [
            await _take_back(unit, outgoing, each, amount, number + index, by, now, tuple(reasons))
            for index, (each, amount) in enumerate(parts)
        ]
        for allocation in made:
            await unit.add_allocation(allocation)
        cause = derive_id("back", outgoing.entry_id, str(number))
        back = of_bank_return(cause, outgoing.currency, amount=outgoing.left, at=booked_at(outgoing))
        await unit.post(back, now)
        await unit.decide(outgoing.entry_id, "done", by, now)
    return Confirmed(outgoing, tuple(made), Decimal(0))


def _check(outgoing: BankEntry, received: BankEntry) -> None:
    faults = []
    if outgoing.amount > 0:
        faults.append(Fault("not_outgoing", f"{outgoing.entry_id} is money that came in", "entry"))
    if received.amount < 0:
        faults.append(Fault("not_incoming", f"{received.entry_id} is money that went out", "returns"))
    if outgoing.account_id != received.account_id:
        reason = f"one is of {outgoing.account_id}, the other of {received.account_id}"
        faults.append(Fault("wrong_account", reason, "returns"))
    if faults:
        raise InvalidInputError(faults)


def _take(outgoing: BankEntry, given: Sequence[Given]) -> list[tuple[Given, Decimal]]:
    """Return how much of each allocation is taken back; invoices the last one first."""
    kept = [each for each in given if each.allocation.kind != "invoice"]
    paid = [each for each in given if each.allocation.kind == "invoice"]
    left, parts = outgoing.left, []
    for each in (*kept, *reversed(paid)):
        amount = min(left, each.left)
        if amount:
            parts.append((each, amount))
            left -= amount
    if left:
        of = sum((each.left for each in given), Decimal(0))
        reason = f"{of:f} {outgoing.currency} of it was confirmed and can be taken back, {outgoing.left:f} went out"
        raise InvalidInputError([Fault("exceeds_original", reason, "returns")])
    return parts


async def _take_back(
    unit: BankUnit,
    outgoing: BankEntry,
    given: Given,
    amount: Decimal,
    number: int,
    by: str,
    now: datetime,
    reasons: tuple[Reason, ...],
) -> Allocation:
    before = given.allocation
    allocation_id = derive_id("alloc", outgoing.entry_id, str(number + 1))
    # Fees that we bore come back with the whole of it only: of a part nobody knows what they were.
    fee = before.fee if amount == before.amount else Decimal(0)
    if before.kind == "invoice":
        await _return_payment(unit, outgoing, before, amount + fee, allocation_id, by, now)
        if fee and before.tenant_id is not None:
            at = booked_at(outgoing)
            undone = of_bank_fee(allocation_id, before.tenant_id, outgoing.currency, amount=-fee, at=at)
            await unit.post(undone, now)
    elif before.kind == "credit":
        await _return_credit(unit, outgoing, before, amount, now)
    return Allocation(
        allocation_id=allocation_id,
        entry_id=outgoing.entry_id,
        kind="return",
        tenant_id=before.tenant_id,
        amount=amount,
        fee=fee,
        returned_id=before.allocation_id,
        reasons=reasons,
        confirmed_by=by,
        confirmed_at=now,
    )


async def _return_payment(
    unit: BankUnit,
    outgoing: BankEntry,
    before: Allocation,
    amount: Decimal,
    allocation_id: str,
    by: str,
    now: datetime,
) -> None:
    if before.payment_id is None:
        raise BrokenInvariantError(f"{before.allocation_id} pays an invoice without a payment")
    payment = await unit.settled_of(before.payment_id)
    if payment is None:
        raise NotSettledYetError(f"{before.payment_id} has not reached its invoice yet: try again in a moment")
    left = left_to_refund(payment, await unit.payments.refunds_of(payment.payment_id))
    if amount > left:
        raise RefundedBeforeError(f"{left:f} of {payment.amount} is still to be taken back, not {amount:f}")
    returned = Refund(
        refund_id=derive_id("ref", payment.payment_id, allocation_id),
        payment_id=payment.payment_id,
        invoice_id=payment.invoice_id,
        tenant_id=payment.tenant_id,
        provider=WIRE,
        amount=Money(amount, outgoing.currency),
        reason=RETURNED_TRANSFER,
        requested_by=by,
        created_at=now,
        status=RefundStatus.SUCCEEDED,
        provider_reference=allocation_id,
        settled_at=booked_at(outgoing),
    )
    await record_refund_change(unit.payments, None, returned, now, Cause(CauseKind.REQUEST, by))


async def _return_credit(
    unit: BankUnit, outgoing: BankEntry, before: Allocation, amount: Decimal, now: datetime
) -> None:
    credit = None if before.grant_id is None else await unit.credits.lock_credit(before.grant_id)
    if credit is None:
        raise BrokenInvariantError(f"{before.allocation_id} is a credit that is not there")
    if credit.balance < amount:
        reason = f"{credit.balance:f} of the credit {credit.grant.grant_id} is left, {amount:f} was taken back"
        raise CreditUsedError(reason)
    await unit.credits.enter(
        credit.grant, EntryKind.REFUNDED, -amount, at=now, reference=outgoing.entry_id, reason=RETURNED_TRANSFER
    )
