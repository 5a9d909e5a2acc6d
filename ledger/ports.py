"""What causes need of the ledger, and what proving it needs of the books it follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from ledger.domain.entry import Account, LedgerEntry

# An account's debits less credits by currency.
Balances = Mapping[tuple[Account, str], Decimal]


class Ledger(Protocol):
    """The ledger within the caller's transaction."""

    async def post(self, entries: Sequence[LedgerEntry], now: datetime) -> int:
        """Write entries down and return how many were new; what was posted before is not posted again.

        Raises `BrokenInvariantError` if an entry of the same cause says something else.
        """
        ...

    async def entries(
        self, *, tenant_id: str | None = None, account: str | None = None, limit: int | None = None
    ) -> list[LedgerEntry]:
        """Return whole entries that touch a tenant and an account (`cash:stripe`), the newest `limit`, oldest first."""
        ...

    async def balances(self, *, tenant_id: str | None = None) -> Balances:
        """Return every account's debits less credits by account and currency."""
        ...


@dataclass(frozen=True, slots=True)
class Figure:
    """What the books say an account's balance (debits less credits) must be."""

    account: Account
    currency: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Audited:
    """The ledger and the books beside it, as of one instant.

    `turnover` is the sum of debits and of credits by currency, `unbalanced` says in words which entries do not balance.
    """

    entries: int
    turnover: Mapping[str, tuple[Decimal, Decimal]]
    balances: Balances
    figures: Sequence[Figure]
    unbalanced: Sequence[str] = ()


class Audit(Protocol):
    """Where both can be read in one snapshot."""

    async def read(self) -> Audited:
        """Read everything as of one instant."""
        ...
