"""The value of a credit note on its way back through the payments it came from. Owns what of it is still owed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from payments.domain.payment import Payment
from payments.domain.refund import Refund, RefundStatus, left_to_refund

_ZERO = Decimal(0)
_GONE = frozenset({RefundStatus.FAILED, RefundStatus.CANCELED})


class NoteRefundStatus(StrEnum):
    """How it stands."""

    # Asked for, or on its way.
    PENDING = "pending"
    # All of it is back with the payer, or became a credit after all.
    DONE = "done"
    # A refund failed: somebody must try again, or give a credit instead.
    OWED = "owed"


@dataclass(frozen=True, slots=True)
class NoteRefund:
    """What is given back for a credit note. `credited` is what became a credit after all."""

    credit_note_id: str
    number: str
    tenant_id: str
    currency: str
    amount: Decimal
    credited: Decimal
    requested_by: str
    refunds: tuple[Refund, ...] = ()

    @property
    def owed(self) -> Decimal:
        """What neither a refund that has not failed nor a credit covers."""
        covered = sum((one.amount.amount for one in self.refunds if one.status not in _GONE), _ZERO)
        return max(self.amount - self.credited - covered, _ZERO)

    @property
    def status(self) -> NoteRefundStatus:
        """How it stands."""
        if self.owed:
            return NoteRefundStatus.OWED
        is_open = any(one.is_open for one in self.refunds)
        return NoteRefundStatus.PENDING if is_open else NoteRefundStatus.DONE


@dataclass(frozen=True, slots=True)
class Refundable:
    """A settled payment with all refunds of it; `is_held` where the payer's bank has taken the money."""

    payment: Payment
    refunds: Sequence[Refund]
    is_held: bool


def spread_refund(amount: Decimal, payments: Sequence[Refundable]) -> list[tuple[str, Decimal]] | None:
    """Return (payment id, part) that together are `amount`, the newest payment first; None if there is not so much."""
    parts, left = [], amount
    newest_first = sorted(payments, key=lambda one: (one.payment.created_at, one.payment.payment_id), reverse=True)
    for one in newest_first:
        part = _ZERO if one.is_held else min(left, left_to_refund(one.payment, one.refunds))
        if part > 0:
            parts.append((one.payment.payment_id, part))
            left -= part
    return None if left > 0 else parts
