"""What drawing and keeping credits needs from a store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from rating.domain.credit import Credit, CreditEntry, CreditGrant, EntryKind


class CreditLedger(Protocol):
    """Credits and their entries, within the caller's transaction.

    The store numbers the entries, keeps the balances, and refuses an entry that would take a balance below zero.
    """

    async def lock_credits(self, tenant_id: str) -> list[Credit]:
        """Return the tenant's credits that have a balance, by grant id; nobody else moves them meanwhile."""
        ...

    async def credits(self, tenant_id: str) -> list[Credit]:
        """Return all of a tenant's credits with what is left of them, in the draw order."""
        ...

    async def lock_credit(self, grant_id: str) -> Credit | None:
        """Return one credit, None if there is none; nobody else moves it meanwhile."""
        ...

    async def add_grant(self, grant: CreditGrant) -> bool:
        """Store a grant with its first entry unless there is one of its id; tells whether it was new."""
        ...

    async def enter(
        self,
        grant: CreditGrant,
        kind: EntryKind,
        amount: Decimal,
        *,
        at: datetime,
        reference: str = "",
        reason: str = "",
    ) -> CreditEntry:
        """Append an entry of a signed amount and return it as it was written.

        Written at `at`, or with the grant's entry before it if that is later. Raises `BrokenInvariantError` for an
        entry that must not be: more than is left, or the same cause twice.
        """
        ...

    async def entries_for(self, invoice_id: str) -> list[CreditEntry]:
        """Return what an invoice drew and gave back, in the order in which it was written."""
        ...

    async def entries_of(self, tenant_id: str, *, known_at: datetime | None = None) -> list[CreditEntry]:
        """Return a tenant's entries in the order in which they were written, without those later than `known_at`."""
        ...

    async def expired(self, at: datetime, limit: int) -> Sequence[str]:
        """Return the ids of up to `limit` grants that have expired by `at` and still have a balance, by id."""
        ...
