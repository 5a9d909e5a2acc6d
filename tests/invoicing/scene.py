"""The scene of a billing story: tenants on plans, a clock, usage as it comes, and the invoices it leads to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from core.clock import ManualClock
from core.messages import InvoicingRequest
from invoicing.adapters.seller_file import load_seller
from invoicing.domain.invoice import Buyer, Invoice
from invoicing.invoice_period import Terms, invoice_period
from invoicing.ports import Contract
from rating.domain.plan import Plan
from runtime.settings import Settings
from tests.invoicing.memory import MemoryBooks, MemoryUsage
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


class Scene:
    def __init__(self) -> None:
        self.books, self.usage = MemoryBooks(METERS), MemoryUsage()
        self.clock = ManualClock(at("2026-11-03"))

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
        return await invoice_period(request, books=self.books, usage=self.usage, terms=TERMS, clock=self.clock)

    async def bill_one(self, tenant_id: str = "acme", period: str = "2026-10") -> Invoice:
        (invoice,) = await self.bill(tenant_id, period)
        return invoice

    @property
    def parked(self) -> str | None:
        return self.books.state.buyers["acme"].parked_reason


def amounts(invoice: Invoice) -> dict[str, str]:
    return {line.description: str(line.amount) for line in invoice.draft.lines}
