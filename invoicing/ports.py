"""What invoicing needs from the stores and from Kafka."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from core.messages import InvoicingRequest
from core.meters import Meter
from core.period import Period
from invoicing.domain.invoice import Buyer, Invoice
from invoicing.domain.lines import Billed
from invoicing.domain.usage_evidence import UsageEvidence


@dataclass(frozen=True, slots=True)
class Contract:
    """A subscription with the plan version it was sold, both as documents."""

    subscription_id: str
    plan_id: str
    plan_version: int
    plan_digest: str
    document: Mapping[str, Any]
    overrides: Mapping[str, Any]
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class ListedInvoice:
    """An invoice as lists show it."""

    invoice_id: str
    number: str
    tenant_id: str
    plan_id: str
    period_start: datetime
    sequence: int
    status: str
    currency: str
    total: Decimal
    amount_paid: Decimal
    issued_at: datetime
    due_at: datetime
    paid_at: datetime | None
    document: str | None


class Account(Protocol):
    """One tenant's books, locked: nobody else invoices this tenant until the transaction ends."""

    @property
    def buyer(self) -> Buyer:
        """The tenant."""
        ...

    async def contracts_in(self, period: Period) -> list[Contract]:
        """Return the subscriptions that hold any part of the period, by start."""
        ...

    async def meters(self) -> dict[str, Meter]:
        """Return all meters by id."""
        ...

    async def billed(self, subscription_id: str, period: Period) -> dict[str, Billed]:
        """Return what was billed for the period, summed over its invoices, by item key."""
        ...

    async def next_sequence(self, subscription_id: str, period: Period) -> int:
        """Return the sequence the period's next invoice gets."""
        ...

    async def take_number(self, series: str) -> int:
        """Return the next number of a series; it is used up only if the transaction commits, so no gap can appear."""
        ...

    async def add(self, invoice: Invoice) -> None:
        """Store a finalized invoice and announce it, in this transaction."""
        ...

    async def park(self, reason: str, now: datetime) -> None:
        """Let nothing be invoiced any more until a person has looked."""
        ...


class Books(Protocol):
    """The accounts of all tenants."""

    def open_account(self, tenant_id: str) -> AbstractAsyncContextManager[Account | None]:
        """Lock a tenant's account in a transaction that commits unless the block raises; None for an unknown tenant."""
        ...


class UsageReader(Protocol):
    """Where counted usage lies."""

    async def usage(
        self, tenant_id: str, window: Period, *, meters: Mapping[str, Meter], month: Period
    ) -> UsageEvidence:
        """Return the usage of a window on whole minutes.

        `meters` are all there are; a level held for the whole `month` is one unit-month.
        """
        ...


class InvoiceRegister(Protocol):
    """Invoices as a whole, for the batch run and for lists."""

    async def tenants_to_invoice(self, period: Period, tenant_id: str | None) -> list[tuple[str, str | None]]:
        """Return (tenant, why it is parked or None) for tenants with a subscription in the period."""
        ...

    async def invoices(self, period: Period | None, tenant_id: str | None) -> list[ListedInvoice]:
        """Return finalized invoices by number."""
        ...


class Requests(Protocol):
    """Where invoicing requests go."""

    async def send(self, requests: Sequence[InvoicingRequest]) -> None:
        """Put the requests on the topic and wait until the broker has them all."""
        ...


class UsageProgress(Protocol):
    """How far usage has come on its way into the warehouse."""

    async def settled(self, as_of: datetime) -> bool:
        """Tell whether every event the broker had received by `as_of` is counted."""
        ...


@dataclass(frozen=True, slots=True)
class Payable:
    """An invoice as settling it sees it."""

    invoice_id: str
    tenant_id: str
    status: str
    currency: str
    total: Decimal
    amount_paid: Decimal


class Settlements(Protocol):
    """Invoices being paid."""

    def open_payable(self, invoice_id: str) -> AbstractAsyncContextManager[OpenPayable | None]:
        """Lock an invoice in a transaction; None if it is unknown."""
        ...


class OpenPayable(Protocol):
    """One locked invoice."""

    @property
    def payable(self) -> Payable:
        """The invoice as it stands."""
        ...

    async def mark_paid(self, amount: Decimal, paid_at: datetime) -> None:
        """Record the payment."""
        ...


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """What a document is made from."""

    invoice_id: str
    tenant_id: str
    number: str
    snapshot: Mapping[str, Any]
    sha256: str


@dataclass(frozen=True, slots=True)
class Document:
    """A rendered document: where it lies, its SHA-256 and size."""

    invoice_id: str
    media_type: str
    location: str
    sha256: str
    size_bytes: int


class DocumentRegister(Protocol):
    """Snapshots and the documents made from them."""

    async def snapshot(self, invoice_id: str) -> StoredSnapshot | None:
        """Return an invoice's snapshot, None if there is no such invoice."""
        ...

    async def document(self, invoice_id: str, media_type: str) -> Document | None:
        """Return what was rendered before, None if nothing was."""
        ...

    async def put_document(self, document: Document, rendered_at: datetime) -> None:
        """Record a rendered document, replacing what was recorded before."""
        ...


class DocumentStore(Protocol):
    """Where rendered documents are kept."""

    async def write(self, name: str, content: bytes) -> str:
        """Keep the bytes under a name such as `acme/MB-2026-000001.pdf`, durably; returns the location."""
        ...

    async def holds(self, location: str, sha256: str) -> bool:
        """Tell whether the location still holds exactly these bytes."""
        ...


@dataclass(frozen=True, slots=True)
class InvoicedFact:
    """What an invoice billed for one charge and meter ("" for none), for dashboards."""

    tenant_id: str
    period: str
    invoice_id: str
    plan_id: str
    charge_id: str
    meter_id: str
    quantity: Decimal
    amount: Decimal
    currency: str
    issued_at: datetime
    sequence: int


class InvoicedLines(Protocol):
    """Lines of finalized invoices."""

    async def facts(self, invoice_id: str) -> list[InvoicedFact]:
        """Return an invoice's lines summed by charge and meter; empty for an unknown invoice."""
        ...


class FactStore(Protocol):
    """Where dashboards read what was invoiced."""

    async def put(self, facts: Sequence[InvoicedFact]) -> None:
        """Write the facts; writing them again changes nothing."""
        ...
