"""What simulating other prices needs from the stores; everything is read only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from core.meters import Meter
from core.period import Period
from rating.domain.contract import Contract
from rating.domain.fine_usage import Entries, FineUsage
from rating.domain.timeline import Timeline
from rating.domain.usage import UsageRow
from rating.domain.windows import Windows


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A subscription as known now, before contracts are laid over it, and the contracts of its tenant."""

    timeline: Timeline
    contracts: tuple[Contract, ...] = ()


class History(Protocol):
    """Who held what, and what was billed for it."""

    async def tenants(self, span: Period, after: str, limit: int) -> list[str]:
        """Return the next tenants by id that held anything in the span."""
        ...

    async def subscriptions(self, tenant_ids: Sequence[str]) -> list[Subscribed]:
        """Return the tenants' subscriptions, by tenant and start."""
        ...

    async def billed(self, tenant_ids: Sequence[str], span: Period) -> Mapping[tuple[str, datetime], Decimal]:
        """Return what was billed by tenant and start of the billing period, for periods that start in the span."""
        ...


class UsageHistory(Protocol):
    """Counted usage."""

    async def usage(
        self,
        tenant_ids: Sequence[str],
        windows: Windows,
        *,
        meters: Mapping[str, Meter],
        month: Period,
        until: datetime,
    ) -> Mapping[str, Sequence[UsageRow]]:
        """Return each tenant's totals of the windows; tenants without usage are absent."""
        ...

    async def fine_usage(
        self,
        tenant_ids: Sequence[str],
        windows: Windows,
        wanted: Collection[FineUsage],
        *,
        meters: Mapping[str, Meter],
    ) -> Mapping[str, Entries]:
        """Return each tenant's usage of the windows by quarter hours or single events, as it is wanted."""
        ...
