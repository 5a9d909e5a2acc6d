"""The ledger of credits in memory: for tests that need no PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from core.errors import must_hold
from rating.domain.credit import RAISING, Credit, CreditEntry, CreditGrant, EntryKind, accounts_of

_CAUSED = frozenset({EntryKind.DRAWN, EntryKind.RETURNED, EntryKind.REFUNDED})


class MemoryCreditLedger:
    """Behaves like `PostgresCreditLedger`, for one caller at a time."""

    def __init__(self) -> None:
        self.held: dict[str, Credit] = {}
        self.entries: list[CreditEntry] = []

    async def lock_credits(self, tenant_id: str) -> list[Credit]:
        found = [each for each in self.held.values() if each.grant.tenant_id == tenant_id and each.balance]
        return sorted(found, key=lambda credit: credit.grant.grant_id)

    async def credits(self, tenant_id: str) -> list[Credit]:
        found = [each for each in self.held.values() if each.grant.tenant_id == tenant_id]
        return sorted(found, key=lambda credit: credit.grant.draw_order)

    async def lock_credit(self, grant_id: str) -> Credit | None:
        return self.held.get(grant_id)

    async def add_grant(self, grant: CreditGrant) -> bool:
        if grant.grant_id in self.held:
            return False
        self.held[grant.grant_id] = Credit(grant, Decimal(0))
        await self.enter(grant, EntryKind.GRANTED, grant.amount, at=grant.granted_at, reason=grant.reason)
        return True

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
        credit = self.held[grant.grant_id]
        own = [entry for entry in self.entries if entry.grant_id == grant.grant_id]
        place = f"credit {grant.grant_id}"
        must_hold((kind is EntryKind.GRANTED) == (not own), f"{place} is granted once, before anything else")
        must_hold((amount > 0) == (kind in RAISING) or kind is EntryKind.VOIDED, f"{place}: {kind} by {amount}")
        if kind in _CAUSED:
            must_hold(reference != "", f"{place}: this entry needs its cause")
            must_hold((kind, reference) not in {(entry.kind, entry.reference) for entry in own}, f"{place}: twice")
        balance = credit.balance + amount
        must_hold(balance >= 0, f"{place} was overdrawn")
        debit, counter = accounts_of(kind, grant.kind)
        entry = CreditEntry(
            grant_id=grant.grant_id,
            tenant_id=grant.tenant_id,
            number=len(own) + 1,
            kind=kind,
            amount=amount,
            currency=grant.currency,
            balance_after=balance,
            debit=debit,
            credit=counter,
            reference=reference,
            reason=reason,
            recorded_at=max([at, *(before.recorded_at for before in own)]),
        )
        self.entries.append(entry)
        self.held[grant.grant_id] = replace(
            credit, balance=balance, is_voided=credit.is_voided or kind is EntryKind.VOIDED
        )
        return entry

    async def entries_for(self, invoice_id: str) -> list[CreditEntry]:
        kinds = (EntryKind.DRAWN, EntryKind.RETURNED)
        return [entry for entry in self.entries if entry.reference == invoice_id and entry.kind in kinds]

    async def entries_of(self, tenant_id: str, *, known_at: datetime | None = None) -> list[CreditEntry]:
        own = [entry for entry in self.entries if entry.tenant_id == tenant_id]
        return [entry for entry in own if known_at is None or entry.recorded_at <= known_at]

    async def expired(self, at: datetime, limit: int) -> Sequence[str]:
        found = [
            grant_id
            for grant_id, credit in self.held.items()
            if credit.balance and credit.grant.expires_at is not None and credit.grant.expires_at <= at
        ]
        return sorted(found)[:limit]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryCreditLedger]:
        """Nothing is taken back when the block raises."""
        yield self
