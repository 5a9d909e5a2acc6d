"""Invoices and credit notes as they are stored: numbered, with the snapshot the document is made from.

Amounts are signed: those of a credit note are negative, so that sums over documents are what was billed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import Any

from core.calendar import Calendar
from core.errors import must_hold
from core.ids import derive_id
from core.period import Period, format_instant
from invoicing.domain.exchange import FrozenRate
from invoicing.domain.lines import Line
from invoicing.domain.tax.document_taxes import taxes_of
from invoicing.domain.tax.taxed_lines import TaxGroup
from rating.domain.digest import canonical_json


class DocumentKind(StrEnum):
    """What a document is; each kind has numbers of its own."""

    INVOICE = "invoice"
    CREDIT_NOTE = "credit_note"


class Origin(StrEnum):
    """What a document came from."""

    # A billing period.
    PERIOD = "period"
    # Items that a person put down.
    ONE_TIME = "one_time"
    # Less is owed than was billed.
    CORRECTION = "correction"
    # Given back by a person; what was billed stays billed.
    MANUAL = "manual"
    # An invoice taken back to be issued anew.
    REISSUE = "reissue"


@dataclass(frozen=True, slots=True)
class Buyer:
    """The tenant as the invoice shows it; `parked_reason` says why nothing may be invoiced at present."""

    tenant_id: str
    name: str
    email: str
    address: str
    country: str
    currency: str
    parked_reason: str | None = None
    time_zone: str = "UTC"
    billing_anchor_day: int = 1
    # One document for all subscriptions whose billing period and currency are the same.
    consolidated_invoices: bool = False
    # What decides how the tenant is taxed: see `invoicing.domain.tax.determine.TaxedBuyer`.
    state: str = ""
    postal_code: str = ""
    is_business: bool = True
    vat_number: str = ""
    vat_valid: bool | None = None
    vat_checked_at: datetime | None = None
    tax_exempt: str = ""
    tax_exempt_code: str = ""
    language: str = "en"

    @property
    def calendar(self) -> Calendar:
        """How the tenant's time is cut into months."""
        return Calendar(self.time_zone, self.billing_anchor_day)


# Without slots, so that what is asked for again and again is worked out once.
@dataclass(frozen=True)
class Draft:
    """What one document will say, before it has a number and a date. `sequence` 1 is the period's first one.

    `subscription_id` is None for one-time items of a tenant; those are named by their `cause`, as is what a person
    asked for under a key.
    """

    subscription_id: str | None
    period: Period
    sequence: int
    currency: str
    lines: tuple[Line, ...]
    cause: tuple[str, ...] = ()

    @cached_property
    def invoice_id(self) -> str:
        """The same subscription, period and sequence, or the same cause, give the same document, whoever makes it."""
        if self.cause:
            return derive_id("inv", *self.cause)
        return derive_id("inv", str(self.subscription_id), format_instant(self.period.start), str(self.sequence))

    @cached_property
    def subtotal(self) -> Decimal:
        """The sum of the lines without tax."""
        return sum((line.net for line in self.lines), Decimal(0))

    @cached_property
    def tax(self) -> Decimal:
        """The sum of the lines' tax shares."""
        return sum((line.tax_amount for line in self.lines), Decimal(0))

    @cached_property
    def total(self) -> Decimal:
        """The sum of the lines with tax."""
        return self.subtotal + self.tax

    @cached_property
    def taxes(self) -> tuple[TaxGroup, ...]:
        """The tax by category, rate and place, highest rate first; it must be determined."""
        return taxes_of(self.lines)


@dataclass(frozen=True)
class Invoice:
    """A finalized document. `status` is `paid` from the start when nothing is due, else `finalized`.

    `reason` says why a credit note is, `replaces` is the invoice that this one was issued anew for, `asked_sha256` the
    digest of what a person asked for.
    """

    draft: Draft
    tenant_id: str
    number: str
    issued_at: datetime
    due_at: datetime
    snapshot: Mapping[str, Any]
    engine_version: str
    credits_applied: Decimal = Decimal(0)
    kind: DocumentKind = DocumentKind.INVOICE
    origin: Origin = Origin.PERIOD
    reason: str = ""
    replaces: str | None = None
    asked_sha256: str | None = None
    # Set where the seller's tax returns are in another currency.
    exchange: FrozenRate | None = None

    def __post_init__(self) -> None:
        if self.kind is DocumentKind.CREDIT_NOTE:
            must_hold(self.total <= 0, f"credit note {self.number} asks for money")
        else:
            must_hold(self.total >= 0, f"invoice {self.number} has a negative total")
        must_hold(0 <= self.credits_applied <= max(self.total, Decimal(0)), f"{self.number} draws too much credit")

    @cached_property
    def snapshot_json(self) -> bytes:
        """The snapshot as canonical JSON (RFC 8785), as it is stored."""
        return canonical_json(dict(self.snapshot))

    @cached_property
    def snapshot_sha256(self) -> str:
        """The digest of the snapshot, by which anybody can tell that nothing was changed."""
        return hashlib.sha256(self.snapshot_json).hexdigest()

    @property
    def total(self) -> Decimal:
        """What the invoice asks for before credits, in its currency, rounded to the minor unit."""
        return self.draft.total

    @property
    def tax(self) -> Decimal:
        """The tax in the total."""
        return self.draft.tax

    @property
    def amount_due(self) -> Decimal:
        """What is left to be paid after credits; nothing of a credit note."""
        return max(self.total, Decimal(0)) - self.credits_applied

    @property
    def status(self) -> str:
        """`paid` if nothing is due, else `finalized`."""
        return "finalized" if self.amount_due else "paid"


def series_of(prefix: str, issued_at: datetime, kind: DocumentKind = DocumentKind.INVOICE) -> str:
    """Return the series a document is numbered in: one per seller, kind and year (`MB-2026`, `MB-CN-2026`)."""
    return f"{prefix}-CN-{issued_at.year:04}" if kind is DocumentKind.CREDIT_NOTE else f"{prefix}-{issued_at.year:04}"


def format_number(series: str, number: int) -> str:
    """Return the printed number (`MB-2026-000123`)."""
    return f"{series}-{number:06}"


def due_date(issued_at: datetime, days: int) -> datetime:
    """Return when an invoice falls due."""
    return issued_at + timedelta(days=days)
