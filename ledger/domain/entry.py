"""Accounts, postings and entries. Owns that debits equal credits in every entry and currency, and an entry's name.

An entry's id is made from its cause, so posting the same cause twice is one entry; entries are only ever added.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from core.errors import must_hold
from core.ids import derive_id
from core.money import minor_units, round_to_minor

_ZERO = Decimal(0)
_SUFFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", re.ASCII)


class AccountKind(StrEnum):
    """What an account is about; the part of its name before a colon."""

    # What tenants owe on invoices.
    RECEIVABLE = "receivable"
    REVENUE = "revenue"
    # By place, as the invoice's tax lines name it: owed to the tax office.
    TAX_PAYABLE = "tax_payable"
    # By provider: where money is. `cash:prepaid` is what a person said came in for a credit.
    CASH = "cash"
    # What is left of credits: owed to tenants.
    CUSTOMER_CREDIT = "customer_credit"
    # What credits that nobody paid for cost, and what of those that were paid for expired unused.
    PROMOTIONS = "promotions"
    BREAKAGE = "breakage"
    # Credit balance: to be given back for a credit note; debit balance: given back without one.
    REFUNDS = "refunds"
    BAD_DEBT = "bad_debt"
    # Taken back by the payer's bank, not decided yet.
    DISPUTED = "disputed"
    FX_DIFFERENCE = "fx_difference"
    # Came in and fits no invoice yet.
    UNALLOCATED = "unallocated"
    # What banks kept of transfers on the way, where we bear it.
    BANK_FEES = "bank_fees"


# Kinds whose accounts are split further.
SPLIT = frozenset({AccountKind.TAX_PAYABLE, AccountKind.CASH})


class EntryKind(StrEnum):
    """What kind of cause an entry has; with the cause's own id it names the entry."""

    INVOICE = "invoice"
    CREDIT_NOTE = "credit_note"
    VOID = "void"
    WRITE_OFF = "write_off"
    SETTLEMENT = "settlement"
    SETTLEMENT_RETURNED = "settlement_returned"
    REFUND = "refund"
    REFUND_FAILED = "refund_failed"
    DISPUTE_OPENED = "dispute_opened"
    DISPUTE_WON = "dispute_won"
    DISPUTE_LOST = "dispute_lost"
    CREDIT = "credit"
    BANK_RECEIPT = "bank_receipt"
    BANK_RETURN = "bank_return"
    BANK_FEE = "bank_fee"
    EXCHANGE = "exchange"


@dataclass(frozen=True, slots=True, order=True)
class Account:
    """An account of one tenant; without a tenant for money of which it is not known yet whose it is."""

    kind: AccountKind
    tenant_id: str | None
    # The provider of cash, the place of a tax; "" for every other kind.
    part: str = ""

    def __post_init__(self) -> None:
        must_hold((self.kind in SPLIT) == bool(self.part), f"{self.kind}: {self.part!r} is no part of it")
        must_hold(not self.part or _SUFFIX.fullmatch(self.part) is not None, f"no name of an account: {self.part!r}")

    @property
    def name(self) -> str:
        """The account's name without the tenant, `cash:stripe`."""
        return f"{self.kind.value}:{self.part}" if self.part else self.kind.value


@dataclass(frozen=True, slots=True)
class Posting:
    """One side of an entry; exactly one of `debit` and `credit` is above zero, in whole minor units."""

    account: Account
    currency: str
    debit: Decimal = _ZERO
    credit: Decimal = _ZERO

    def __post_init__(self) -> None:
        must_hold(min(self.debit, self.credit) == 0 < max(self.debit, self.credit), "a posting has one side")
        minor_units(self.currency)
        must_hold(round_to_minor(self.net, self.currency) == self.net, f"{self.net:f} {self.currency} is not rounded")

    @property
    def net(self) -> Decimal:
        """Debit less credit."""
        return self.debit - self.credit


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """What one cause moved between accounts. `occurred_at` is the cause's own instant, not that of writing it down."""

    kind: EntryKind
    cause: str
    occurred_at: datetime
    postings: tuple[Posting, ...]

    def __post_init__(self) -> None:
        must_hold(bool(self.cause), "an entry needs a cause")
        must_hold(self.occurred_at.tzinfo is not None, "an entry needs an aware instant")
        must_hold(len(self.postings) > 1, f"{self.kind} {self.cause}: an entry has at least two sides")
        for currency, net in net_by_currency(self.postings).items():
            must_hold(net == 0, f"{self.kind} {self.cause}: debits exceed credits by {net:f} {currency}")

    @property
    def entry_id(self) -> str:
        """The same cause has the same entry, however often it is posted."""
        return derive_id("led", self.kind.value, self.cause)

    @property
    def content(self) -> frozenset[tuple[Account, str, Decimal]]:
        """What the entry says, whatever order its postings are in: an account stands in it once per currency."""
        return frozenset((one.account, one.currency, one.net) for one in self.postings)


def net_by_currency(postings: Sequence[Posting]) -> dict[str, Decimal]:
    """Return debits less credits of each currency."""
    found: dict[str, Decimal] = {}
    for one in postings:
        found[one.currency] = found.get(one.currency, _ZERO) + one.net
    return found


def entry_of(
    kind: EntryKind, cause: str, at: datetime, moves: Sequence[tuple[Account, str, Decimal]]
) -> tuple[LedgerEntry, ...]:
    """Return the entry of signed moves (account, currency, debit less credit), one posting per account and currency.

    Moves of zero leave no posting; nothing but those leave no entry. Raises `BrokenInvariantError` unless they balance.
    """
    net: dict[tuple[Account, str], Decimal] = {}
    for account, currency, amount in moves:
        key = (account, currency)
        net[key] = net.get(key, _ZERO) + amount
    postings = tuple(
        Posting(account, currency, debit=max(amount, _ZERO), credit=max(-amount, _ZERO))
        for (account, currency), amount in net.items()
        if amount
    )
    return (LedgerEntry(kind, cause, at, postings),) if postings else ()
