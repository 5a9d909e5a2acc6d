"""Invoices as they are stored: finalized at once, numbered, with the snapshot the document is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from core.calendar import Calendar
from core.errors import must_hold
from core.ids import derive_id
from core.period import Period, format_instant
from invoicing.domain.lines import Line, total_of


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

    @property
    def calendar(self) -> Calendar:
        """How the tenant's time is cut into months."""
        return Calendar(self.time_zone, self.billing_anchor_day)


@dataclass(frozen=True, slots=True)
class Draft:
    """What one invoice will say, before it has a number and a date. `sequence` 1 is the period's first invoice."""

    subscription_id: str
    period: Period
    sequence: int
    currency: str
    lines: tuple[Line, ...]

    @property
    def invoice_id(self) -> str:
        """The same subscription, period and sequence give the same invoice, whoever makes it."""
        return derive_id("inv", self.subscription_id, format_instant(self.period.start), str(self.sequence))

    @property
    def total(self) -> Decimal:
        """The sum of the lines; taxes come on top when there are any."""
        return total_of(self.lines)


@dataclass(frozen=True, slots=True)
class Invoice:
    """A finalized invoice. `status` is `paid` from the start when nothing is due, else `finalized`."""

    draft: Draft
    tenant_id: str
    number: str
    tax: Decimal
    issued_at: datetime
    due_at: datetime
    snapshot: Mapping[str, Any]
    snapshot_sha256: str
    engine_version: str
    credits_applied: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        must_hold(self.total >= 0, f"invoice {self.number} has a negative total")
        must_hold(0 <= self.credits_applied <= self.total, f"invoice {self.number} draws too much credit")

    @property
    def total(self) -> Decimal:
        """What the invoice asks for before credits, in its currency, rounded to the minor unit."""
        return self.draft.total + self.tax

    @property
    def amount_due(self) -> Decimal:
        """What is left to be paid after credits."""
        return self.total - self.credits_applied

    @property
    def status(self) -> str:
        """`paid` if nothing is due, else `finalized`."""
        return "finalized" if self.amount_due else "paid"


def series_of(prefix: str, issued_at: datetime) -> str:
    """Return the series an invoice is numbered in: one per seller and year."""
    return f"{prefix}-{issued_at.year:04}"


def format_number(series: str, number: int) -> str:
    """Return the printed number (`MB-2026-000123`)."""
    return f"{series}-{number:06}"


def due_date(issued_at: datetime, days: int) -> datetime:
    """Return when an invoice falls due."""
    return issued_at + timedelta(days=days)
