"""What keeping the running cost needs from the stores and from Kafka."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from core.meters import Meter
from core.period import Period
from rating.domain.fine_usage import Entries, FineUsage
from rating.domain.plan import Plan
from rating.domain.timeline import Timeline
from rating.domain.usage import UsageRow
from rating.domain.windows import Windows
from rating.rate_timeline import PlanReference


@dataclass(frozen=True, slots=True)
class HeldTimeline:
    """A subscription's timeline, with its contracts laid over, and every plan version it ever holds as it is priced.

    `plans` is by `rating.rate_timeline.PlanReference.text`.
    """

    timeline: Timeline
    plans: Mapping[str, Plan]

    def plan_of(self, plan_id: str, version: int, overrides: Mapping[str, Any]) -> Plan:
        """Return a plan version with overrides laid over it."""
        text = PlanReference(plan_id, version, overrides).text
        return self.plans[text] if text in self.plans else self.plans[f"+{text}"]


@dataclass(frozen=True, slots=True)
class CostRow:
    """What a tenant's usage of an open month costs so far by one charge and meter ("" for none): absolute.

    `amount` is rounded like the invoice's line. The row with the highest `version` (milliseconds) is the present one.
    `period` is the billing period's name in the tenant's calendar, a UTC month where that is the period.
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
    subscription_id: str = ""
    holding: str = ""

    @property
    def key(self) -> CostKey:
        """What names the row: another row with the same key replaces it."""
        return CostKey(
            self.tenant_id,
            self.period,
            self.subscription_id,
            self.holding,
            self.plan_id,
            self.charge_id,
            self.meter_id,
            self.currency,
        )


class CostKey(NamedTuple):
    """A running cost, whatever its amount: `holding` is the plan version (`lite@3`) that the charge is of."""

    tenant_id: str
    period: str
    subscription_id: str
    holding: str
    plan_id: str
    charge_id: str
    meter_id: str
    currency: str


class Timelines(Protocol):
    """What tenants hold."""

    async def held(self, tenant_ids: Sequence[str], span: Period) -> list[HeldTimeline]:
        """Return the timelines of these tenants' subscriptions that began before the span ends, by tenant and start.

        Those that ended before the span are among them: what was rated of them may have to go. A timeline with a plan
        that cannot be read is left out.
        """
        ...


class PeriodUsage(Protocol):
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
        """Return each tenant's totals of the windows by meter and dimension values; without usage they are absent.

        `meters` are those that may be sampled; a level held for the whole `month` is one unit-month, and none counts
        beyond `until`.
        """
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


class CostSink(Protocol):
    """Where running costs go."""

    async def present(self, tenant_ids: Sequence[str], periods: Sequence[str]) -> Sequence[CostKey]:
        """Return the keys of the tenants' running costs of these periods that are not zero now."""
        ...

    async def put(self, rows: Sequence[CostRow]) -> None:
        """Publish the rows; doing so again with the same or an older version changes nothing."""
        ...
