"""Gives the paid value of a credit note back through the payments it came from, in place of the credit it became.

The credit is taken back and the refunds are written down in one transaction: never both, never neither. They are made
by `payment-upkeep` within seconds. One that fails leaves the note `owed`, for a person to try again or to give the
credit after all. In the ledger the note's value stands in `refunds` until one of the two has happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from core.clock import Clock
from core.errors import ConflictError, Fault, InvalidInputError, NotFoundError, must_hold
from core.ids import derive_id
from payments.domain.note_refund import NoteRefund, spread_refund
from payments.note_refund_ports import NoteRefundUnit
from payments.refund_payment import RefundRequest, open_refund
from rating.domain.credit import CreditGrant, CreditKind, EntryKind
from rating.domain.credit_postings import CREDIT_NOTE, credit_of_note

_ZERO = Decimal(0)


class CreditUsedError(ConflictError):
    """The credit of the note has been used, in full or in part: what is left of it can be refunded as a credit."""

    code = "credit_used"


class RefundUnderWayError(ConflictError):
    """Refunds of the note are under way: nothing is owed of it now."""

    code = "refund_under_way"


async def refund_credit_note(
    reference: str,
    *,
    requested_by: str,
    unit: NoteRefundUnit,
    refundable: Sequence[str],
    clock: Clock,
    is_again: bool = False,
) -> NoteRefund:
    """Refund a credit note; with `is_again` also what was to be refunded before and failed.

    What is under way or done is returned as it is. `refundable` are the providers whose payments can be refunded.
    Raises `NotFoundError`, `InvalidInputError` (`nothing_paid`, `not_refundable` where the payments do not hold so much
    any more: paid by transfer, refunded before, or held by the payer's bank), `CreditUsedError`.
    """
    note = await _find(reference, unit)
    now = clock.now()
    if not note.amount:
        note = await _take_credit_back(note, requested_by, unit, now)
    elif not is_again:
        return note
    left = note.owed
    for invoice_id, paid in (await unit.paid_value(note.credit_note_id)).items():
        part = min(left, paid)
        left -= part
        note = await _open_refunds(note, invoice_id, part, requested_by, unit, refundable, clock)
    must_hold(not left, f"{note.number}: {left:f} would go back that nobody paid")
    return note


async def credit_after_all(reference: str, *, unit: NoteRefundUnit, clock: Clock) -> NoteRefund:
    """Give as a credit what could not be refunded of a note.

    Raises `NotFoundError`, `RefundUnderWayError` if nothing is owed while refunds may still succeed; where all is done
    the note is returned as it is.
    """
    note = await _find(reference, unit)
    if not note.amount:
        raise NotFoundError(f"{note.number} is not refunded: its value is a credit")
    if not note.owed:
        if any(one.is_open for one in note.refunds):
            raise RefundUnderWayError
        return note
    now = clock.now()
    grant = CreditGrant(
        derive_id("credit", note.tenant_id, note.credit_note_id, str(len(note.refunds)), f"{note.credited:f}"),
        note.tenant_id,
        CreditKind.PAID,
        note.owed,
        note.currency,
        effective_at=now,
        granted_at=now,
        reason=CREDIT_NOTE,
    )
    must_hold(await unit.credits.add_grant(grant), f"credit {grant.grant_id} was granted before")
    note = replace(note, credited=note.credited + note.owed)
    await unit.save(note, now)
    return note


async def _find(reference: str, unit: NoteRefundUnit) -> NoteRefund:
    note = await unit.lock_note(reference)
    if note is None:
        raise NotFoundError(f"no credit note {reference[:80]!r}")
    return note


async def _take_credit_back(note: NoteRefund, requested_by: str, unit: NoteRefundUnit, now: datetime) -> NoteRefund:
    """Turn the note's credit into something to be refunded; only the whole of it, for a part may pay an invoice."""
    paid = sum((await unit.paid_value(note.credit_note_id)).values(), _ZERO)
    if not paid:
        reason = f"nothing that {note.number} gives back had been paid"
        raise InvalidInputError([Fault("nothing_paid", reason, "refund")])
    credit = await unit.credits.lock_credit(credit_of_note(note.tenant_id, note.credit_note_id))
    must_hold(credit is not None, f"{note.number} has no credit")
    if credit is None or credit.is_voided or credit.balance != paid:
        raise CreditUsedError
    await unit.credits.enter(
        credit.grant, EntryKind.REFUNDED, -paid, at=now, reference=note.credit_note_id, reason="to be refunded"
    )
    note = replace(note, amount=paid, requested_by=requested_by)
    await unit.save(note, now)
    return note


async def _open_refunds(
    note: NoteRefund,
    invoice_id: str,
    amount: Decimal,
    requested_by: str,
    unit: NoteRefundUnit,
    refundable: Sequence[str],
    clock: Clock,
) -> NoteRefund:
    if not amount:
        return note
    parts = spread_refund(amount, await unit.refundable(invoice_id, refundable))
    if parts is None:
        reason = f"the payments of {invoice_id} do not hold {amount:f} {note.currency} that could be refunded"
        raise InvalidInputError([Fault("not_refundable", reason, "refund")])
    for payment_id, part in parts:
        # Which try it is, for a failed refund keeps its id for good.
        key = f"{note.credit_note_id}-{len(note.refunds) + 1}"
        request = RefundRequest(payment_id, key, part, f"credit note {note.number}", requested_by)
        refund, _, is_new = await open_refund(unit.payments, request, refundable=refundable, clock=clock)
        must_hold(is_new, f"refund {refund.refund_id} of {note.number} was there before")
        await unit.payments.schedule_refund_check(refund.refund_id, 0, clock.now())
        await unit.add_part(note.credit_note_id, refund)
        note = replace(note, refunds=(*note.refunds, refund))
    return note
