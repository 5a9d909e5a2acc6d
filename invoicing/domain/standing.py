"""How a stored document stands: what of it was paid, credited, given back, and what is still open."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from core.period import Period
from invoicing.domain.invoice import DocumentKind, Origin

_ZERO = Decimal(0)
OPEN = frozenset({"finalized", "overdue", "uncollectible"})


@dataclass(frozen=True, slots=True)
class Standing:
    """A document as it stands now; amounts are signed as in the books (a credit note's total is negative).

    `amount_credited` is what credit notes took off what was open, `credits_returned` what they gave back to the credits
    that it had drawn, `credit_granted` what they gave back of money paid, as new credits. `in_flight`: a payment is
    under way whose end is not known here yet, so nothing is taken off what it asks for.
    """

    invoice_id: str
    number: str | None
    tenant_id: str
    subscription_id: str | None
    kind: DocumentKind
    origin: Origin
    status: str
    currency: str
    period: Period
    sequence: int
    subtotal: Decimal
    tax: Decimal
    total: Decimal
    credits_applied: Decimal = _ZERO
    amount_credited: Decimal = _ZERO
    amount_paid: Decimal = _ZERO
    credits_returned: Decimal = _ZERO
    credit_granted: Decimal = _ZERO
    in_flight: bool = False
    issued_at: datetime | None = None
    reason: str = ""
    replaces: str | None = None
    asked_sha256: str | None = None
    finalize_at: datetime | None = None

    @property
    def name(self) -> str:
        """The printed number, or the id of a draft."""
        return self.number or self.invoice_id

    @property
    def amount_due(self) -> Decimal:
        """What is left to be paid after credits and credit notes; nothing of a credit note."""
        if self.kind is DocumentKind.CREDIT_NOTE:
            return _ZERO
        return self.total - self.credits_applied - self.amount_credited

    @property
    def amount_open(self) -> Decimal:
        """What is still to be paid."""
        return self.amount_due - self.amount_paid if self.status in OPEN else _ZERO

    @property
    def creditable(self) -> Decimal:
        """What no credit note has taken back yet."""
        if self.kind is DocumentKind.CREDIT_NOTE or self.status in ("draft", "void"):
            return _ZERO
        return self.total - self.amount_credited - self.credits_returned - self.credit_granted


@dataclass(frozen=True, slots=True)
class Application:
    """Where a credit note's value goes for one invoice; see `Standing` for the three ways. None is negative."""

    invoice_id: str
    amount: Decimal = _ZERO
    credits_returned: Decimal = _ZERO
    credit_granted: Decimal = _ZERO

    @property
    def total(self) -> Decimal:
        """The three together."""
        return self.amount + self.credits_returned + self.credit_granted
