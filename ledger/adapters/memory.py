"""The ledger in memory, for tests and previews."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from core.errors import must_hold
from ledger.domain.entry import Account, LedgerEntry


class MemoryLedger:
    """`Ledger` without a store."""

    def __init__(self) -> None:
        self._entries: dict[str, LedgerEntry] = {}

    async def post(self, entries: Sequence[LedgerEntry], now: datetime) -> int:
        """Write entries down and return how many were new."""
        new = 0
        for entry in entries:
            new += entry.entry_id not in self._entries
            known = self._entries.setdefault(entry.entry_id, entry)
            must_hold(known.content == entry.content, f"{entry.kind} {entry.cause} was posted with other amounts")
        return new

    async def entries(
        self, *, tenant_id: str | None = None, account: str | None = None, limit: int | None = None
    ) -> list[LedgerEntry]:
        """Return whole entries that touch a tenant and an account, the newest `limit`, oldest first."""
        found = [
            entry
            for entry in self._entries.values()
            if any(
                (tenant_id is None or one.account.tenant_id == tenant_id)
                and (account is None or one.account.name == account)
                for one in entry.postings
            )
        ]
        return found if limit is None else found[len(found) - min(limit, len(found)) :]

    async def balances(self, *, tenant_id: str | None = None) -> dict[tuple[Account, str], Decimal]:
        """Return every account's debits less credits by account and currency."""
        found: dict[tuple[Account, str], Decimal] = {}
        for entry in self._entries.values():
            for one in entry.postings:
                if tenant_id is None or one.account.tenant_id == tenant_id:
                    key = (one.account, one.currency)
                    found[key] = found.get(key, Decimal(0)) + one.net
        return found
