"""What invoicing needs from the stores and from Kafka."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from core.calendar import Calendar
from core.messages import InvoicingRequest
from core.meters import Meter
from core.period import Period
from invoicing.domain.invoice import Buyer, Invoice
from invoicing.domain.lines import Billed
from invoicing.domain.subscribed import Subscribed
from invoicing.domain.tax.taxed_lines import Bucket, TaxedBefore
from invoicing.domain.usage_evidence import UsageEvidence
from invoicing.life_ports import IssuedDocuments
from ledger.domain.entry import LedgerEntry
from rating.credit_ledger import CreditLedger
from rating.domain.fine_usage import Entries, FineUsage
from rating.domain.windows import Windows


@dataclass(frozen=True, slots=True)
class ListedInvoice:
    """An invoice as lists show it; `month` is the one of the tenant's calendar in which its billing period ends."""

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
    credits_applied: Decimal = Decimal(0)
    month: str = ""
    kind: str = "invoice"
    amount_due: Decimal = Decimal(0)


class Account(Protocol):
    """One tenant's books, locked: nobody else invoices this tenant until the transaction ends."""

    @property
    def buyer(self) -> Buyer:
        """The tenant."""
        ...

    @property
    def ledger(self) -> CreditLedger:
        """The tenant's credits, moved in this transaction."""
        ...

    @property
    def issued(self) -> IssuedDocuments:
        """The tenant's documents after they were issued, and its drafts."""
        ...

    async def post(self, entries: Sequence[LedgerEntry], now: datetime) -> int:
        """Write down in the double-entry ledger what a cause moved; a cause that is there is not written again."""
        ...

    async def subscriptions(self, before: datetime) -> list[Subscribed]:
        """Return the subscriptions that began before an instant, by start, ended ones too."""
        ...

    async def meters(self) -> dict[str, Meter]:
        """Return all meters by id."""
        ...

    async def newest_version(self, plan_id: str) -> int | None:
        """Return the newest version of a plan, None if there is no such plan."""
        ...

    async def plan_documents(
        self, versions: Collection[tuple[str, int]]
    ) -> Mapping[tuple[str, int], Mapping[str, Any]]:
        """Return the stored documents of plan versions; unknown ones are absent."""
        ...

    async def billed(
        self, subscription_id: str, *, settling: Sequence[datetime], item_keys: Sequence[str]
    ) -> dict[str, Billed]:
        """Return what was billed, summed over all invoices, by item key.

        Of the items named, and of those whose last line settles one of the billing periods that start then. Drafts and
        void documents do not count.
        """
        ...

    async def invoiced(self, subscription_id: str) -> dict[datetime, datetime]:
        """Return, by the start of each billing period that was invoiced, when that was done last."""
        ...

    async def next_sequence(self, subscription_id: str, period: Period) -> int:
        """Return the sequence the period's next document gets; one that a void document has is used up."""
        ...

    async def taxed_before(self, invoice_ids: Sequence[str]) -> Mapping[Bucket, TaxedBefore]:
        """Return what invoices and all that was taken back of them came to, by what is rounded together."""
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

    async def tenant_of(self, reference: str) -> str | None:
        """Return whose an invoice is, by its number or id; None if there is none."""
        ...

    def view_account(self, tenant_id: str) -> AbstractAsyncContextManager[Account | None]:
        """Open a tenant's account for reading, without a lock; whatever is written there is taken back."""
        ...


class UsageReader(Protocol):
    """Where counted usage lies."""

    async def usage(
        self, tenant_id: str, windows: Windows, *, meters: Mapping[str, Meter], month: Period
    ) -> UsageEvidence:
        """Return the usage of windows on whole minutes.

        `meters` are all there are; a level held for the whole `month` is one unit-month.
        """
        ...

    async def fine_usage(
        self, tenant_id: str, windows: Windows, wanted: Collection[FineUsage], *, meters: Mapping[str, Meter]
    ) -> Entries:
        """Return the usage of windows by quarter hours or single events, as it is wanted; in order."""
        ...


@dataclass(frozen=True, slots=True)
class ToInvoice:
    """A tenant that may be invoiced for a month: why it is parked, if it is, and when the month ends where it is."""

    tenant_id: str
    parked_reason: str | None
    calendar: Calendar


class InvoiceRegister(Protocol):
    """Invoices as a whole, for the batch run and for lists."""

    async def tenants_to_invoice(self, month: str, tenant_id: str | None) -> list[ToInvoice]:
        """Return the tenants with a subscription in the month (`2026-10`) of their own calendar, by id."""
        ...

    async def invoices(self, month: str | None, tenant_id: str | None) -> list[ListedInvoice]:
        """Return finalized invoices by number; those of a month (`2026-10`) whose billing period ends in it."""
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
class StoredSnapshot:
    """What a document is made from; `status` is the invoice's."""

    invoice_id: str
    tenant_id: str
    number: str
    snapshot: Mapping[str, Any]
    sha256: str
    status: str = "finalized"


@dataclass(frozen=True, slots=True)
class Document:
    """A rendered document: where it lies, its SHA-256 and size."""

    invoice_id: str
    media_type: str
    location: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class InvoicedFact:
    """What an invoice billed for one charge of a plan version (`holding`) and meter ("" for none), for dashboards.

    `period` is the name of the billing period that the amount settles; coupons have been taken off.
    """

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
    holding: str = ""


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
