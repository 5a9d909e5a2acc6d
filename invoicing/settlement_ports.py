"""What settling invoices needs from the store."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Payable:
    """An invoice as settling it sees it; `amount_due` is what is left after credits and credit notes."""

    invoice_id: str
    tenant_id: str
    status: str
    currency: str
    amount_due: Decimal
    amount_paid: Decimal

    @property
    def amount_open(self) -> Decimal:
        """What is still to be paid."""
        return self.amount_due - self.amount_paid


@dataclass(frozen=True, slots=True)
class Settlement:
    """Money that paid (a part of) an invoice, in its currency."""

    payment_id: str
    invoice_id: str
    provider: str
    amount: Decimal
    settled_at: datetime


@dataclass(frozen=True, slots=True)
class MoneyBack:
    """What became of settled money: a refund or a step of a dispute (`settlement_changes.kind`), named by `cause`."""

    kind: str
    cause: str
    payment_id: str
    provider: str
    amount: Decimal
    currency: str
    happened_at: datetime


class OpenPayable(Protocol):
    """One locked invoice."""

    @property
    def payable(self) -> Payable:
        """The invoice as it stands."""
        ...

    async def settlement(self, payment_id: str) -> Settlement | None:
        """Return what a payment settled before, whatever invoice that was of."""
        ...

    async def settle(self, settlement: Settlement, *, is_paid: bool, now: datetime) -> None:
        """Put a payment onto the invoice and into the ledger.

        Raises `InvalidInputError` (`unknown_payment`) if there is no such payment.
        """
        ...

    async def money_back(self, kind: str, cause: str) -> MoneyBack | None:
        """Return what was recorded of a refund or a dispute's step before."""
        ...

    async def give_back(self, change: MoneyBack, *, now: datetime) -> None:
        """Record it, and put it into the ledger; raises `InvalidInputError` (`unknown_payment`)."""
        ...


class Settlements(Protocol):
    """Invoices being paid."""

    def open_payable(self, invoice_id: str) -> AbstractAsyncContextManager[OpenPayable | None]:
        """Lock an invoice in a transaction; None if it is unknown."""
        ...
