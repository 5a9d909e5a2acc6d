"""What keeping the running cost needs from the stores and from Kafka."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from core.meters import Meter
from core.period import Period
from rating.domain.plan import Plan
from rating.domain.term import Term
from rating.domain.usage import UsageRow


@dataclass(frozen=True, slots=True)
class HeldPlan:
    """A plan as a tenant holds it: overrides laid over it, and for how long."""

    tenant_id: str
    plan: Plan
    term: Term


@dataclass(frozen=True, slots=True)
class CostRow:
    """What a tenant's usage of an open month costs so far by one charge and meter ("" for none): absolute.

    `amount` is rounded like the invoice's line. The row with the highest `version` (milliseconds) is the present one.
    """

    tenant_id: str
    period: str
    plan_id: str
    charge_id: str
    meter_id: str
    quantity: Decimal
    amount: Decimal
    currency: str
    rated_at: datetime
    version: int


class HeldPlans(Protocol):
    """Which plans tenants hold."""

    async def held(self, tenant_ids: Sequence[str], period: Period) -> list[HeldPlan]:
        """Return the plans these tenants hold during any part of the period, by tenant and start."""
        ...


class PeriodUsage(Protocol):
    """Counted usage."""

    async def usage(
        self, tenant_ids: Sequence[str], window: Period, *, meters: Mapping[str, Meter], month: Period, until: datetime
    ) -> Mapping[str, Sequence[UsageRow]]:
        """Return each tenant's totals of the window by meter and dimension values; tenants without usage are absent.

        `meters` are those that may be sampled; a level held for the whole `month` is one unit-month, and none counts
        beyond `until`.
        """
        ...


class CostSink(Protocol):
    """Where running costs go."""

    async def put(self, rows: Sequence[CostRow]) -> None:
        """Publish the rows; doing so again with the same or an older version changes nothing."""
        ...
