"""What refunding a credit note needs from the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from payments.domain.note_refund import NoteRefund, Refundable
from payments.domain.refund import Refund
from payments.ports import PaymentUnit
from rating.credit_ledger import CreditLedger


class NoteRefundUnit(Protocol):
    """A credit note, its credit and the payments it came from, in one transaction."""

    @property
    def payments(self) -> PaymentUnit:
        """Payments and refunds in this transaction."""
        ...

    @property
    def credits(self) -> CreditLedger:
        """Credits in this transaction."""
        ...

    async def lock_note(self, reference: str) -> NoteRefund | None:
        """Lock a credit note by id or number; with an `amount` of 0 if it was never to be refunded, None if unknown."""
        ...

    async def paid_value(self, credit_note_id: str) -> Mapping[str, Decimal]:
        """Return what of a credit note's value had been paid, by invoice."""
        ...

    async def refundable(self, invoice_id: str, providers: Sequence[str]) -> Sequence[Refundable]:
        """Lock and return the settled payments of an invoice by these providers."""
        ...

    async def save(self, refund: NoteRefund, now: datetime) -> None:
        """Write it down, or what was credited of it since."""
        ...

    async def add_part(self, credit_note_id: str, part: Refund) -> None:
        """Write down that a refund is for a credit note."""
        ...
