"""History in memory: subscriptions, what was billed, and usage by month, as simulating needs them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from core.calendar import Calendar
from core.meters import Meter
from core.period import Period, parse_month
from rating.domain.contract import Contract
from rating.domain.cycle import Interval, calendar_cycle
from rating.domain.fine_usage import Entries, FineUsage
from rating.domain.other_prices import OtherPrices, plans_as_sold, plans_under
from rating.domain.plan import Plan, parse_plan
from rating.domain.price_comparison import Comparison, Totals
from rating.domain.proration import Convention
from rating.domain.timeline import Held, Phase, Timeline
from rating.domain.usage import UsageRow, usage_row
from rating.domain.windows import Windows, hull_of
from rating.simulate_ports import Subscribed
from rating.simulate_prices import Prices, Question, simulate_prices
from tests.rating.plans import METERS, TIERS

NOW = datetime(2027, 1, 10, tzinfo=UTC)


@dataclass
class MemoryHistory:
    """`History` and `UsageHistory`."""

    documents: dict[tuple[str, int], Mapping[str, Any]] = field(
        default_factory=lambda: {(plan_id, 1): plan.document for plan_id, plan in TIERS.items()}
    )
    held: list[Subscribed] = field(default_factory=list)
    invoiced: dict[tuple[str, datetime], Decimal] = field(default_factory=dict)
    used: dict[tuple[str, str], list[UsageRow]] = field(default_factory=dict)
    asked: list[tuple[Windows, tuple[str, ...]]] = field(default_factory=list)

    def subscribe(
        self, tenant_id: str, plan_id: str, *, started: str = "2026-01-01", ended: str | None = None,
        overrides: Mapping[str, Any] | None = None, contracts: tuple[Contract, ...] = (), zone: str = "UTC",
    ) -> None:  # fmt: skip
        start = datetime.fromisoformat(started).replace(tzinfo=UTC)
        end = datetime.fromisoformat(ended).replace(tzinfo=UTC) if ended else None
        phase = Phase(start, end, Held(plan_id, 1, overrides or {}))
        cycle = calendar_cycle(Interval.MONTH, Calendar(zone), start)
        name = f"sub_{tenant_id}_{len(self.held)}"
        self.held.append(Subscribed(Timeline(name, tenant_id, cycle, Convention.DAYS, (phase,)), contracts))

    def use(self, tenant_id: str, meter_id: str, quantity: str | int, month: str = "2026-10", **dims: str) -> None:
        self.used.setdefault((tenant_id, month), []).append(usage_row(meter_id, quantity, dims))

    async def tenants(self, span: Period, after: str, limit: int) -> list[str]:
        return sorted({one.timeline.tenant_id for one in self.held if one.timeline.tenant_id > after})[:limit]

    async def subscriptions(self, tenant_ids: Sequence[str]) -> list[Subscribed]:
        return [one for one in self.held if one.timeline.tenant_id in tenant_ids]

    async def billed(self, tenant_ids: Sequence[str], span: Period) -> Mapping[tuple[str, datetime], Decimal]:
        return {key: amount for key, amount in self.invoiced.items() if key[0] in tenant_ids and key[1] in span}

    async def usage(
        self, tenant_ids: Sequence[str], windows: Windows, *, month: Period, **_: Any
    ) -> Mapping[str, Sequence[UsageRow]]:
        self.asked.append((windows, tuple(tenant_ids)))
        # What was used in a month counts at its middle.
        middle = hull_of(windows)
        return {
            tenant_id: rows
            for (tenant_id, name), rows in self.used.items()
            if tenant_id in tenant_ids and parse_month(name).start.replace(day=15) in middle
        }

    async def fine_usage(
        self, tenant_ids: Sequence[str], windows: Windows, wanted: Collection[FineUsage], *, meters: Mapping[str, Meter]
    ) -> Mapping[str, Entries]:
        raise AssertionError("no price here asks for single events")

    async def simulate(
        self, other: OtherPrices, *, first: str = "2026-10", last: str | None = None, now: datetime = NOW
    ) -> tuple[list[Comparison], Totals]:
        start, end = parse_month(first).start.date(), parse_month(last or first).start.date()
        prices = Prices(plans_as_sold(self.documents, _read), plans_under(other, self.documents, _read), METERS)
        everybody = sorted({one.timeline.tenant_id for one in self.held})
        question = Question(start, end, now, other)
        return await simulate_prices(everybody, question, history=self, usage=self, prices=prices)


def _read(plan_id: str, document: Mapping[str, Any]) -> Plan:
    return parse_plan(plan_id, document, METERS)
