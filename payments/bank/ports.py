"""What the bank desk needs of its store, within one transaction, and the nouns that live there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Protocol

from core.bank_account import BankAccount
from ledger.domain.entry import LedgerEntry
from payments.bank.domain.continuity import Span
from payments.bank.domain.match import OpenInvoice, Reason
from payments.bank.domain.statement import Statement
from payments.domain.payment import Payment
from payments.ports import PaymentUnit
from rating.credit_ledger import CreditLedger


@dataclass(frozen=True, slots=True)
class Source:
    """Where a statement came from: the file's name and digest, and who imported it."""

    file: str
    sha256: str
    by: str


@dataclass(frozen=True, slots=True)
class BankEntry:
    """An entry as it stands. `status`: open, done, rejected or noted (money that went out)."""

    entry_id: str
    account_id: str
    currency: str
    booked_on: date
    valued_on: date
    amount: Decimal
    is_reversal: bool
    bank_reference: str
    remittance: str
    reference_texts: tuple[str, ...]
    counterparty: str
    counterparty_account: str
    status: str
    allocated: Decimal
    decided_by: str
    note: str

    @property
    def left(self) -> Decimal:
        """What is not allocated yet; positive, whichever way the money went."""
        return abs(self.amount) - self.allocated


@dataclass(frozen=True, slots=True)
class Allocation:
    """What a part of an entry is for. `kind`: invoice, credit, held (kept for the payer), return."""

    allocation_id: str
    entry_id: str
    kind: str
    tenant_id: str | None
    amount: Decimal
    confirmed_by: str
    confirmed_at: datetime
    fee: Decimal = Decimal(0)
    payment_id: str | None = None
    grant_id: str | None = None
    returned_id: str | None = None
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Given:
    """An allocation with what was taken back of it, and the invoice's number if it has one."""

    allocation: Allocation
    returned: Decimal
    number: str | None

    @property
    def left(self) -> Decimal:
        """What can still be taken back."""
        return self.allocation.amount - self.returned


@dataclass(frozen=True, slots=True)
class Payable:
    """An invoice locked for a payment. `charging` is a card or PayPal payment of it that is under way."""

    invoice: OpenInvoice
    status: str
    attempts: int
    charging: str | None


@dataclass(frozen=True, slots=True)
class AccountState:
    """What the desk knows of an account: its statements, what its entries add up to, and how many wait."""

    account_id: str
    currency: str
    spans: tuple[Span, ...]
    moved: Decimal
    entries: int
    open_entries: int
    open_amount: Decimal


class BankUnit(Protocol):
    """One transaction of the desk; leaving it without an exception commits."""

    @property
    def payments(self) -> PaymentUnit:
        """Payments, in the same transaction."""
        ...

    @property
    def credits(self) -> CreditLedger:
        """Credits, in the same transaction."""
        ...

    async def post(self, entries: Sequence[LedgerEntry], now: datetime) -> None:
        """Post to the double-entry ledger, in the same transaction."""
        ...

    async def lock_account(self, account_id: str) -> None:
        """Let nobody else import into the account until the end."""
        ...

    async def known_digest(self, statement_id: str) -> str | None:
        """Return what a statement of this id said, None if there is none."""
        ...

    async def spans(self, account_id: str) -> list[Span]:
        """Return from where to where the account's statements go."""
        ...

    async def moved(self, account_id: str) -> Decimal:
        """Return what all entries of the account add up to."""
        ...

    async def twins_before(self, account_id: str, format: str, keys: Collection[str]) -> Counter[str]:
        """Return how often the keys stand in numbered statements of a format."""
        ...

    async def add_statement(
        self, statement_id: str, account: BankAccount, statement: Statement, source: Source, now: datetime
    ) -> None:
        """Write a statement down."""
        ...

    async def add_entries(
        self,
        statement_id: str,
        account_id: str,
        statement: Statement,
        ids: Sequence[str],
        keys: Sequence[str],
        now: datetime,
    ) -> list[BankEntry]:
        """Write the statement's entries down and return those that were new."""
        ...

    async def lock_entry(self, name: str) -> BankEntry | None:
        """Lock and return an entry by its id or the beginning of it; None if there is none.

        Raises `InvalidInputError` (`ambiguous_entry`) if several begin so.
        """
        ...

    async def entries(self, *, statuses: Collection[str], account_id: str | None = None) -> list[BankEntry]:
        """Return entries of these statuses, oldest first, unlocked."""
        ...

    async def returnable(self) -> list[tuple[BankEntry, Decimal]]:
        """Return the entries that came in and were allocated, with what of them was not taken back, oldest first."""
        ...

    async def invoices(self, currency: str) -> list[OpenInvoice]:
        """Return the invoices of a currency that a payment may be meant for, those that are paid among them."""
        ...

    async def find_invoice(self, name: str) -> str | None:
        """Return the id of an invoice by its number or id."""
        ...

    async def lock_invoice(self, invoice_id: str) -> Payable:
        """Lock and return an invoice, as whoever held the lock before has left it."""
        ...

    async def payers(self) -> dict[str, frozenset[str]]:
        """Return the tenants that paid from an account before, by the account's compact name."""
        ...

    async def has_tenant(self, tenant_id: str) -> bool:
        """Tell whether there is such a tenant."""
        ...

    async def given(self, entry_id: str) -> list[Given]:
        """Return what an entry was allocated to, in the order of confirming."""
        ...

    async def add_allocation(self, allocation: Allocation) -> None:
        """Write an allocation down; the entry's sum follows."""
        ...

    async def decide(self, entry_id: str, status: str, by: str, now: datetime, note: str = "") -> None:
        """Set what is decided about an entry."""
        ...

    async def settled_of(self, payment_id: str) -> Payment | None:
        """Lock and return a payment whose settlement has reached its invoice; None while it has not."""
        ...

    async def accounts(self) -> list[AccountState]:
        """Return every account that has a statement."""
        ...


class BankDesk(Protocol):
    """The store."""

    def transaction(self) -> AbstractAsyncContextManager[BankUnit]:
        """Open a transaction; an exception rolls it back."""
        ...
