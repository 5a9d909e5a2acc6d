"""Marks invoices overdue when the day on which they were due is over, by the tenant's own calendar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog

from core.calendar import Calendar
from core.clock import Clock

_BATCH = 500
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DueInvoice:
    """A finalized invoice whose due date has come, with the calendar of its tenant."""

    invoice_id: str
    due_at: datetime
    calendar: Calendar

    def is_overdue(self, now: datetime) -> bool:
        """Tell whether the local day on which it was due is over."""
        return self.calendar.day_of(self.due_at).end <= now


class DueInvoices(Protocol):
    """Where due invoices are found and marked."""

    async def due(self, now: datetime, after: str, limit: int) -> Sequence[DueInvoice]:
        """Return finalized invoices with an amount open that were due by an instant, by id, those after an id."""
        ...

    async def mark(self, invoice_ids: Sequence[str]) -> Sequence[str]:
        """Mark them overdue and return which were: what was paid or closed meanwhile stays as it is."""
        ...


async def mark_overdue(*, invoices: DueInvoices, clock: Clock) -> list[str]:
    """Mark every invoice that is overdue now and return which were marked; again, nothing new."""
    now, marked, after = clock.now(), list[str](), ""
    while found := await invoices.due(now, after, _BATCH):
        over = [one.invoice_id for one in found if one.is_overdue(now)]
        marked += await invoices.mark(over) if over else []
        after = found[-1].invoice_id
    for invoice_id in marked:
        log.info("invoice.overdue", invoice=invoice_id)
    return marked
