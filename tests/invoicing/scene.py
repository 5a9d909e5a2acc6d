"""The scene of a billing story: tenants on plans, a clock, usage as it comes, and the invoices it leads to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from core.calendar import Calendar
from core.clock import ManualClock
from core.messages import InvoicingRequest
from invoicing.adapters.seller_file import load_seller
from invoicing.domain.invoice import Buyer, Invoice
from invoicing.domain.subscribed import Subscribed
from invoicing.invoice_period import invoice_period
from invoicing.terms import Terms
from rating.domain.contract import Contract as ContractVersion
from rating.domain.coupon import Coupon, Redemption
from rating.domain.credit import CreditGrant, CreditKind
from rating.domain.cycle import Interval, calendar_cycle, start_cycle
from rating.domain.plan import Plan
from rating.domain.proration import Convention
from rating.domain.timeline import AddOn, Change, ChangeKind, Held, State, SubscriptionStart
from runtime.settings import Settings
from tests.invoicing.memory import Contract, MemoryBooks, MemoryUsage
from tests.rating.plans import METERS, TIERS

TERMS = Terms(load_seller(Settings.model_construct(seller_file=None)), 15)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def contract_of(
    plan: Plan,
    *,
    started: str = "2026-01-01",
    ended: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    subscription_id: str = "sub_1",
) -> Contract:
    return Contract(
        subscription_id=subscription_id,
        plan_id=plan.plan_id,
        plan_version=1,
        plan_digest=plan.digest,
        document=plan.document,
        overrides=overrides or {},
        started_at=at(started),
        ended_at=at(ended) if ended else None,
    )


def subscribed_to(
    *plans: Plan,
    started: str = "2026-10-01",
    interval: Interval = Interval.MONTH,
    zone: str = "UTC",
    anchored: bool = False,
    convention: Convention = Convention.DAYS,
    quantity: str = "1",
    add_ons: tuple[AddOn, ...] = (),
    trial_ends: str | None = None,
    contracts: tuple[ContractVersion, ...] = (),
    tenant_id: str = "acme",
) -> Subscribed:
    """Return a subscription to the first of the plans; the others may be changed to. All are version 1.

    Periods follow the calendar's months, or the day it `started` when `anchored`.
    """
    began = local(started, zone)
    calendar = Calendar(zone, 1)
    cycle = start_cycle(interval, zone, began) if anchored else calendar_cycle(interval, calendar, began)
    ends = local(trial_ends, zone) if trial_ends else None
    state = State.TRIAL if ends else State.ACTIVE
    held = Held(plans[0].plan_id, 1, {}, Decimal(quantity), add_ons, state)
    start = SubscriptionStart(f"sub_{tenant_id}", tenant_id, cycle, convention, began, began, held, ends)
    return Subscribed(start, (), contracts, {(plan.plan_id, 1): plan.document for plan in plans})


def local(text: str, zone: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


class Scene:
    terms: Terms = TERMS

    def __init__(self) -> None:
        self.books, self.usage = MemoryBooks(METERS), MemoryUsage()
        self.clock = ManualClock(at("2026-11-03"))

    def subscribe(self, *plans: Plan, **facts: Any) -> None:
        """Let acme subscribe as `subscribed_to` says."""
        one = subscribed_to(*plans, **facts)
        zone = one.start.cycle.time_zone
        buyer = Buyer("acme", "Acme", "billing@example.com", "1 Road\nTown", "DE", plans[0].currency, time_zone=zone)
        self.books.add_tenant(buyer)
        self.books.state.subscribed["acme"] = [one]

    @property
    def subscribed(self) -> Subscribed:
        return self.books.state.subscribed["acme"][0]

    def change(self, kind: ChangeKind, when: str, *, put_down: str | None = None, **payload: Any) -> None:
        """Put a change down, effective at a local time; at that moment, if not said otherwise."""
        zone = self.subscribed.start.cycle.time_zone
        one = Change(len(self.subscribed.changes) + 1, kind, local(when, zone), local(put_down or when, zone), payload)
        self.books.state.subscribed["acme"] = [replace(self.subscribed, changes=(*self.subscribed.changes, one))]

    def switch(self, plan: Plan, when: str, **facts: Any) -> None:
        """Change to another plan."""
        self.change(ChangeKind.PLAN_CHANGED, when, plan_id=plan.plan_id, plan_version=1, overrides={}, **facts)

    def redeem(self, coupon: Coupon, when: str) -> None:
        """Redeem a coupon for acme's subscription."""
        instant = local(when, self.subscribed.start.cycle.time_zone)
        redeemed = Redemption(
            f"red_{coupon.coupon_id}", coupon, "acme", self.subscribed.subscription_id, instant, instant
        )
        both = (*self.subscribed.redemptions, redeemed)
        self.books.state.subscribed["acme"] = [replace(self.subscribed, redemptions=both)]

    async def grant(self, amount: str, when: str, expires: str | None = None, **facts: Any) -> None:
        """Grant acme a credit in its currency."""
        number = len(self.books.state.ledger.held) + 1
        currency = self.books.state.buyers["acme"].currency
        grant = CreditGrant(
            f"cred_{number}", "acme", facts.pop("kind", CreditKind.PAID), Decimal(amount), currency, at(when), at(when),
            at(expires) if expires else None, **facts,
        )  # fmt: skip
        assert await self.books.state.ledger.add_grant(grant)

    def tenant(self, tenant_id: str, *contracts: Contract, currency: str = "USD") -> None:
        buyer = Buyer(tenant_id, tenant_id.title(), "billing@example.com", "1 Road\nTown", "DE", currency)
        self.books.add_tenant(buyer, *contracts)

    def on(self, tier: str, tenant_id: str = "acme", **contract: Any) -> None:
        self.tenant(tenant_id, contract_of(TIERS[tier], subscription_id=f"sub_{tenant_id}", **contract))

    def used(self, meter_id: str, quantity: str | int, when: str = "2026-10-10T10:00", **dimensions: str) -> None:
        self.usage.add("acme", meter_id, quantity, at(when), **dimensions)

    async def bill(self, tenant_id: str = "acme", period: str = "2026-10") -> list[Invoice]:
        request = InvoicingRequest(
            tenant_id=tenant_id, period=period, run_id="run", requested_at="2026-11-03T00:00:00Z"
        )
        return await invoice_period(request, books=self.books, usage=self.usage, terms=self.terms, clock=self.clock)

    async def bill_one(self, tenant_id: str = "acme", period: str = "2026-10") -> Invoice:
        (invoice,) = await self.bill(tenant_id, period)
        return invoice

    @property
    def parked(self) -> str | None:
        return self.books.state.buyers["acme"].parked_reason

    async def bill_at(self, now: str, period: str) -> list[Invoice]:
        """Bill a month at a moment of the tenant's zone."""
        self.clock.travel_to(local(now, self.subscribed.start.cycle.time_zone))
        return await self.bill(period=period)


def amounts(invoice: Invoice) -> dict[str, str]:
    return {line.description: str(line.amount) for line in invoice.draft.lines}
