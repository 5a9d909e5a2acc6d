"""What must hold of the ledger's accounts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from rating.domain.credit import LedgerAccount

_LIABILITY = LedgerAccount.CUSTOMER_CREDITS.value
_ZERO = Decimal(0)


def unbalanced(accounts: Mapping[tuple[str, str], Decimal], owed: Mapping[str, Decimal]) -> list[str]:
    """Return in words what does not hold: debits equal credits, and the liability is what balances add up to.

    `accounts` is each account's debits less credits by (account, currency), `owed` the sum of balances by currency.
    """
    found = []
    for currency in sorted({currency for _, currency in accounts} | set(owed)):
        total = sum((net for (_, of), net in accounts.items() if of == currency), _ZERO)
        if total:
            found.append(f"{currency}: debits exceed credits by {total:f}")
        liability, balances = -accounts.get((_LIABILITY, currency), _ZERO), owed.get(currency, _ZERO)
        if liability != balances:
            found.append(f"{currency}: {_LIABILITY} holds {liability:f}, balances add up to {balances:f}")
    return found
