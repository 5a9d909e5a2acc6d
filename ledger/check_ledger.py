"""Proves the ledger: debits equal credits, and its balances are what the books beside it say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from ledger.domain.entry import Account, AccountKind
from ledger.ports import Audit, Audited

_ZERO = Decimal(0)
_COMPARED = frozenset(
    {
        AccountKind.RECEIVABLE,
        AccountKind.REVENUE,
        AccountKind.TAX_PAYABLE,
        AccountKind.CUSTOMER_CREDIT,
        AccountKind.CASH,
        AccountKind.DISPUTED,
        AccountKind.UNALLOCATED,
        AccountKind.BANK_FEES,
    }
)


@dataclass(frozen=True, slots=True)
class Difference:
    """An account whose balance (debits less credits) is not what the books say."""

    account: Account
    currency: str
    ledger: Decimal
    books: Decimal

    def __str__(self) -> str:
        whose = self.account.tenant_id or "nobody's"
        return (
            f"{whose} {self.account.name}: the ledger says {self.ledger:f} {self.currency}, the books say"
            f" {self.books:f} {self.currency}, {self.ledger - self.books:+f} apart"
        )


@dataclass(frozen=True, slots=True)
class LedgerProof:
    """What checking found; `faults` are empty if everything holds."""

    entries: int
    # Debits and credits of all entries by currency.
    turnover: Mapping[str, tuple[Decimal, Decimal]]
    compared: int
    faults: tuple[str, ...]


async def check_ledger(audit: Audit) -> LedgerProof:
    """Compare the ledger with the books, all of both as of one instant."""
    audited = await audit.read()
    faults = list(audited.unbalanced)
    for currency, (debits, credits) in sorted(audited.turnover.items()):
        if debits != credits:
            faults.append(f"{currency}: debits {debits:f}, credits {credits:f}, {debits - credits:+f} apart")
    faults += [str(one) for one in differences(audited)]
    return LedgerProof(audited.entries, audited.turnover, len(audited.figures), tuple(faults))


def differences(audited: Audited) -> list[Difference]:
    """Return the accounts of the compared kinds whose balances differ, in order of tenant, account and currency."""
    books: dict[tuple[Account, str], Decimal] = {}
    for figure in audited.figures:
        key = (figure.account, figure.currency)
        books[key] = books.get(key, _ZERO) + figure.amount
    # An account the books know nothing of must be empty.
    keys = books.keys() | {key for key in audited.balances if is_compared(key[0])}
    found = [
        Difference(*key, ledger=audited.balances.get(key, _ZERO), books=books.get(key, _ZERO))
        for key in sorted(keys, key=_order)
    ]
    return [one for one in found if one.ledger != one.books]


def _order(key: tuple[Account, str]) -> tuple[str, str, str]:
    account, currency = key
    return (account.tenant_id or "", account.name, currency)


def is_compared(account: Account) -> bool:
    """Tell whether the books have a figure for an account."""
    return account.kind in _COMPARED
