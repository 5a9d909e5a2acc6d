"""What explaining a line needs from the stores; everything is read, nothing is written or locked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

from core.meters import Meter
from core.period import Period
from invoicing.domain.stored_event import Activations, StoredEvent
from invoicing.domain.stored_invoice import BilledShare, LineReference, StoredInvoice, StoredPlan
from invoicing.domain.subscribed import Subscribed


class InvoiceArchive(Protocol):
    """Finalized invoices, and what they were made from."""

    async def invoices(self, reference: LineReference) -> list[StoredInvoice]:
        """Return the invoices with the line that is asked for, by issue; an item may stand on several."""
        ...

    async def shares(self, subscription_id: str, item_keys: Sequence[str], plan: str) -> list[BilledShare]:
        """Return what was billed of these items, by issue; what stands on void invoices is left out.

        Keys from before they named the plan version get `plan`, that of the subscription's start, as the books do.
        """
        ...

    async def plan(self, plan_id: str, version: int) -> StoredPlan | None:
        """Return a plan version as it is stored now."""
        ...

    async def subscribed(self, subscription_id: str) -> Subscribed | None:
        """Return the subscription with all that its invoices depend on."""
        ...

    async def meters(self) -> dict[str, Meter]:
        """Return all meters by id."""
        ...


class EventStore(Protocol):
    """Accepted events one by one."""

    async def activations(self) -> Activations:
        """Return from which source offset on each partition counts each meter."""
        ...

    def events(self, tenant_id: str, window: Period, carried: Collection[str]) -> AsyncIterator[Sequence[StoredEvent]]:
        """Yield the tenant's events of a window on whole minutes, in pages by identity, those taken out too.

        Of the event types in `carried` also all that lie before the window: their levels reach into it.
        """
        ...
