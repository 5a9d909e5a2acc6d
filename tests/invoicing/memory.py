"""Invoicing's ports in memory; they pass the same contract tests as the real stores."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.messages import InvoicingRequest
from core.meters import Meter
from core.period import Period
from invoicing.domain.invoice import Buyer, Invoice, Origin
from invoicing.domain.lines import Billed, bill_up
from invoicing.domain.standing import Standing
from invoicing.domain.subscribed import Subscribed
from invoicing.domain.tax.taxed_lines import Bucket, TaxedBefore
from invoicing.domain.usage_evidence import HourOfUsage, UsageEvidence, usage_by_hour
from invoicing.domain.which_periods import requested_periods
from invoicing.ports import ListedInvoice, ToInvoice
from invoicing.settlement_ports import MoneyBack, Payable, Settlement
from ledger.adapters.memory import MemoryLedger
from ledger.domain.entry import LedgerEntry
from rating.domain.cycle import Interval, calendar_cycle
from rating.domain.fine_usage import Entries, FineUsage, in_order
from rating.domain.measured import MeasuredTotal
from rating.domain.price import UsageEntry
from rating.domain.proration import Convention
from rating.domain.timeline import Change, ChangeKind, Held, SubscriptionStart
from rating.domain.usage import usage_row
from rating.domain.windows import Windows, holds_instant
from tests.invoicing.memory_issued import IssuedState, MemoryIssued
from tests.rating.memory_credits import MemoryCreditLedger


@dataclass(frozen=True, slots=True)
class Contract:
    """A subscription to one plan version, both as documents: what most stories need."""

    subscription_id: str
    plan_id: str
    plan_version: int
    plan_digest: str
    document: Mapping[str, Any]
    overrides: Mapping[str, Any]
    started_at: datetime
    ended_at: datetime | None


@dataclass
class MemoryState:
    buyers: dict[str, Buyer] = field(default_factory=dict)
    contracts: dict[str, list[Contract]] = field(default_factory=dict)
    subscribed: dict[str, list[Subscribed]] = field(default_factory=dict)
    meters: dict[str, Meter] = field(default_factory=dict)
    series: dict[str, int] = field(default_factory=dict)
    ledger: MemoryCreditLedger = field(default_factory=MemoryCreditLedger)
    issued: IssuedState = field(default_factory=IssuedState)
    posted: MemoryLedger = field(default_factory=MemoryLedger)

    @property
    def invoices(self) -> list[Invoice]:
        return self.issued.invoices


class MemoryBooks:
    """`Books` and `InvoiceRegister`: a block that raises leaves no trace, as in a transaction."""

    def __init__(self, meters: Mapping[str, Meter]) -> None:
        self.state = MemoryState(meters=dict(meters))

    def add_tenant(self, buyer: Buyer, *contracts: Contract) -> None:
        self.state.buyers[buyer.tenant_id] = buyer
        self.state.contracts[buyer.tenant_id] = list(contracts)
        self.state.subscribed[buyer.tenant_id] = [subscribed_of(contract, buyer) for contract in contracts]

    @asynccontextmanager
    async def open_account(self, tenant_id: str) -> AsyncIterator[MemoryAccount | None]:
        before = copy.deepcopy(self.state)
        try:
            yield MemoryAccount(self.state, tenant_id) if tenant_id in self.state.buyers else None
        except BaseException:
            self.state = before
            raise

    @asynccontextmanager
    async def view_account(self, tenant_id: str) -> AsyncIterator[MemoryAccount | None]:
        state = copy.deepcopy(self.state)
        yield MemoryAccount(state, tenant_id) if tenant_id in state.buyers else None

    async def drafts(self, *, due_at: datetime | None, tenant_id: str | None) -> list[Standing]:
        found = [
            one
            for one in self.state.issued.standings.values()
            if one.finalize_at is not None and one.status == "draft" and tenant_id in (None, one.tenant_id)
        ]
        return [one for one in found if due_at is None or (one.finalize_at is not None and one.finalize_at <= due_at)]

    async def numbers(self) -> tuple[Mapping[str, int], list[str]]:
        return {series: number + 1 for series, number in self.state.series.items()}, [
            one.number for one in self.state.invoices
        ]

    async def tenant_of(self, reference: str) -> str | None:
        for one in self.state.issued.standings.values():
            if reference in (one.invoice_id, one.number):
                return one.tenant_id
        return None

    async def tenants_to_invoice(self, month: str, tenant_id: str | None) -> list[ToInvoice]:
        found = []
        for buyer in sorted(self.state.buyers.values(), key=lambda buyer: buyer.tenant_id):
            if tenant_id not in (None, buyer.tenant_id):
                continue
            if any(
                one.start.started_at < buyer.calendar.period(month).end
                and (one.timeline().ended_at is None or one.timeline().ended_at > period.start)
                for one in self.state.subscribed[buyer.tenant_id]
                for period in requested_periods(month, one.start.cycle, one.start.started_at, buyer.calendar)
            ):
                found.append(ToInvoice(buyer.tenant_id, buyer.parked_reason, buyer.calendar))
        return found

    async def invoices(self, month: str | None, tenant_id: str | None) -> list[ListedInvoice]:
        raise NotImplementedError("lists are read from PostgreSQL only")


def subscribed_of(contract: Contract, buyer: Buyer) -> Subscribed:
    """Return a subscription to one plan version, cancelled where the contract ends."""
    held = Held(contract.plan_id, contract.plan_version, contract.overrides)
    cycle = calendar_cycle(Interval.MONTH, buyer.calendar, contract.started_at)
    start = SubscriptionStart(
        contract.subscription_id,
        buyer.tenant_id,
        cycle,
        Convention.DAYS,
        contract.started_at,
        contract.started_at,
        held,
    )
    changes: tuple[Change, ...] = ()
    if contract.ended_at is not None:
        changes = (Change(1, ChangeKind.CANCELED, contract.ended_at, contract.started_at),)
    documents = {(contract.plan_id, contract.plan_version): contract.document}
    return Subscribed(start, changes, (), documents)


class MemoryAccount:
    def __init__(self, state: MemoryState, tenant_id: str) -> None:
        self._state, self._tenant_id = state, tenant_id

    @property
    def buyer(self) -> Buyer:
        return self._state.buyers[self._tenant_id]

    @property
    def ledger(self) -> MemoryCreditLedger:
        return self._state.ledger

    @property
    def issued(self) -> MemoryIssued:
        return MemoryIssued(self._state.issued, self._tenant_id)

    async def post(self, entries: Sequence[LedgerEntry], now: datetime) -> int:
        return await self._state.posted.post(entries, now)

    async def subscriptions(self, before: datetime) -> list[Subscribed]:
        found = [one for one in self._state.subscribed[self._tenant_id] if one.start.started_at < before]
        return sorted(found, key=lambda one: one.start.started_at)

    async def meters(self) -> dict[str, Meter]:
        return self._state.meters

    async def newest_version(self, plan_id: str) -> int | None:
        return max((version for known, version in self._documents() if known == plan_id), default=None)

    async def plan_documents(
        self, versions: Collection[tuple[str, int]]
    ) -> Mapping[tuple[str, int], Mapping[str, Any]]:
        return {version: document for version, document in self._documents().items() if version in versions}

    def _documents(self) -> dict[tuple[str, int], Mapping[str, Any]]:
        found: dict[tuple[str, int], Mapping[str, Any]] = {}
        for subscribed in self._state.subscribed.values():
            for one in subscribed:
                found |= one.documents
        return found

    async def billed(
        self, subscription_id: str, *, settling: Sequence[datetime], item_keys: Sequence[str]
    ) -> dict[str, Billed]:
        rows = list(self._state.issued.rows(subscription_id))
        starts = {one.draft.invoice_id: one.draft.period.start for one in self._state.invoices}
        settled = {row.line.item_key: row.line.settles or starts[row.invoice_id] for row in rows}
        return {key: one for key, one in bill_up(rows).items() if key in item_keys or settled[key] in settling}

    async def invoiced(self, subscription_id: str) -> dict[datetime, datetime]:
        found: dict[datetime, datetime] = {}
        for invoice in self._state.issued.counting():
            start, own = invoice.draft.period.start, invoice.draft.subscription_id == subscription_id
            if invoice.origin in (Origin.MANUAL, Origin.ONE_TIME):
                continue
            settled = {start} if own else set()
            for line in invoice.draft.lines:
                if (line.subscription_id or invoice.draft.subscription_id) != subscription_id:
                    continue
                if line.settles and (line.settles < start or (not own and line.settles == start)):
                    settled.add(line.settles)
            for one in settled:
                found[one] = max(found.get(one, invoice.issued_at), invoice.issued_at)
        return found

    async def next_sequence(self, subscription_id: str, period: Period) -> int:
        return await self.issued.next_sequence(subscription_id, period)

    async def taxed_before(self, invoice_ids: Sequence[str]) -> Mapping[Bucket, TaxedBefore]:
        found: dict[Bucket, TaxedBefore] = {}
        for invoice in self._state.invoices:
            for line in invoice.draft.lines:
                origin = line.tax_origin or invoice.draft.invoice_id
                if origin not in invoice_ids or line.treatment is None:
                    continue
                bucket = Bucket(origin, line.treatment.group, line.treatment.behavior)
                before = found.get(bucket) or TaxedBefore(Decimal(0), Decimal(0))
                found[bucket] = TaxedBefore(before.amount + line.amount, before.tax + line.tax_amount)
        return found

    async def take_number(self, series: str) -> int:
        self._state.series[series] = self._state.series.get(series, 0) + 1
        return self._state.series[series]

    async def add(self, invoice: Invoice) -> None:
        self._state.issued.add(invoice)

    async def park(self, reason: str, now: datetime) -> None:
        self._state.buyers[self._tenant_id] = replace(self.buyer, parked_reason=reason)


class MemoryUsage:
    """`UsageReader`."""

    def __init__(self) -> None:
        self.hours: dict[str, list[HourOfUsage]] = {}
        self.measured: dict[str, list[MeasuredTotal]] = {}
        self.events: dict[str, list[tuple[str, UsageEntry]]] = {}

    def add(self, tenant_id: str, meter_id: str, quantity: str | int, hour: datetime, **dimensions: str) -> None:
        row = usage_row(meter_id, Decimal(quantity), dimensions)
        self.hours.setdefault(tenant_id, []).append(HourOfUsage(meter_id, row.dimensions, hour, row.quantity, 1))
        entry = UsageEntry(hour, row.quantity, row.dimensions)
        self.events.setdefault(tenant_id, []).append((meter_id, entry))

    async def usage(self, tenant_id: str, windows: Windows, **_: Any) -> UsageEvidence:
        hours = (row for row in self.hours.get(tenant_id, []) if holds_instant(windows, row.hour))
        return UsageEvidence.of(usage_by_hour(hours), self.measured.get(tenant_id, []))

    async def fine_usage(self, tenant_id: str, windows: Windows, wanted: Collection[FineUsage], **_: Any) -> Entries:
        kept = [(name, one) for name, one in self.events.get(tenant_id, []) if holds_instant(windows, one.at)]
        return {fine: in_order(one for name, one in kept if name == fine.meter_id) for fine in wanted}


class MemoryRequests:
    """`Requests`."""

    def __init__(self) -> None:
        self.sent: list[InvoicingRequest] = []

    async def send(self, requests: Sequence[InvoicingRequest]) -> None:
        self.sent += requests


class MemorySettlements:
    """`Settlements`."""

    def __init__(self, *payables: Payable) -> None:
        self.payables = {payable.invoice_id: payable for payable in payables}
        self.settlements: dict[str, Settlement] = {}
        self.changes: dict[tuple[str, str], MoneyBack] = {}

    @asynccontextmanager
    async def open_payable(self, invoice_id: str) -> AsyncIterator[MemoryPayable | None]:
        yield MemoryPayable(self, self.payables[invoice_id]) if invoice_id in self.payables else None


class MemoryPayable:
    def __init__(self, settlements: MemorySettlements, payable: Payable) -> None:
        self._settlements, self.payable = settlements, payable

    async def settlement(self, payment_id: str) -> Settlement | None:
        return self._settlements.settlements.get(payment_id)

    async def settle(self, settlement: Settlement, *, is_paid: bool, now: datetime) -> None:
        paid = self.payable.amount_paid + settlement.amount
        status = "paid" if is_paid else self.payable.status
        changed = replace(self.payable, status=status, amount_paid=paid)
        self._settlements.payables[changed.invoice_id] = changed
        self._settlements.settlements[settlement.payment_id] = settlement

    async def money_back(self, kind: str, cause: str) -> MoneyBack | None:
        return self._settlements.changes.get((kind, cause))

    async def give_back(self, change: MoneyBack, *, now: datetime) -> None:
        self._settlements.changes[change.kind, change.cause] = change
        if change.kind == "returned":
            before = self.payable
            status = "finalized" if before.status == "paid" else before.status
            paid = before.amount_paid - change.amount
            self._settlements.payables[before.invoice_id] = replace(before, status=status, amount_paid=paid)
