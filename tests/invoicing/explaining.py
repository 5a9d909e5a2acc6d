"""What explaining needs, in memory: an archive over the books of a scene, and single events beside its rollups."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from core.event_time import to_microseconds
from core.meters import Meter
from core.period import Period
from invoicing.domain.explanation import Explanation
from invoicing.domain.invoice import Invoice
from invoicing.domain.lines import Line
from invoicing.domain.stored_event import Activations, StoredEvent, TakenOut
from invoicing.domain.stored_invoice import BilledShare, LineReference, StoredInvoice, StoredPlan
from invoicing.domain.subscribed import Subscribed
from invoicing.explain_line import explain_line
from rating.domain.digest import digest_of
from tests.invoicing.memory import MemoryBooks
from tests.invoicing.scene import Scene, at
from tests.rating.plans import METERS


class MemoryArchive:
    """`InvoiceArchive` over memory books; `tampered` lines and plans stand for somebody's hand in the database."""

    def __init__(self, books: MemoryBooks) -> None:
        self._books = books
        self.tampered: dict[tuple[str, int], Line] = {}
        self.plans: dict[tuple[str, int], StoredPlan] = {}

    async def invoices(self, reference: LineReference) -> list[StoredInvoice]:
        return [
            stored
            for stored in map(self._stored, self._books.state.invoices)
            if reference.invoice in (stored.number, stored.invoice_id)
            or any(line.item_key == reference.item_key for _, line in stored.lines)
        ]

    async def shares(self, subscription_id: str, item_keys: Sequence[str], plan: str) -> list[BilledShare]:
        found = []
        for stored in map(self._stored, self._books.state.invoices):
            for _, line in stored.lines:
                key = line.item_key if line.settles is not None else f"{line.item_key}|{plan}"
                if key in item_keys:
                    amounts = (line.quantity, line.exact_amount, line.amount)
                    found.append(BilledShare(key, stored.invoice_id, stored.number, stored.issued_at, *amounts))
        return found

    async def plan(self, plan_id: str, version: int) -> StoredPlan | None:
        for contracts in self._books.state.contracts.values():
            for one in contracts:
                if (one.plan_id, one.plan_version) == (plan_id, version):
                    return StoredPlan(plan_id, version, one.document, one.plan_digest)
        for subscribed in self._books.state.subscribed.values():
            for one in subscribed:
                if (plan_id, version) in one.documents:
                    document = one.documents[plan_id, version]
                    return StoredPlan(plan_id, version, document, digest_of(dict(document)))
        return None

    async def subscribed(self, subscription_id: str) -> Subscribed | None:
        every = [one for found in self._books.state.subscribed.values() for one in found]
        stored = {
            (one.plan_id, one.plan_version): one.document
            for contracts in self._books.state.contracts.values()
            for one in contracts
        }
        for one in every:
            if one.subscription_id == subscription_id:
                return replace(one, documents={**one.documents, **stored})
        return None

    async def meters(self) -> dict[str, Meter]:
        return METERS

    def _stored(self, invoice: Invoice) -> StoredInvoice:
        draft = invoice.draft
        lines = tuple(
            (position, self.tampered.get((invoice.number, position), line))
            for position, line in enumerate(draft.lines, 1)
        )
        return StoredInvoice(
            draft.invoice_id, invoice.number, invoice.tenant_id, draft.subscription_id, draft.period, draft.sequence,
            invoice.status, draft.currency, draft.subtotal, invoice.issued_at, invoice.snapshot,
            invoice.snapshot_sha256, lines,
        )  # fmt: skip


class MemoryEvents:
    """`EventStore`; every meter counts from the first offset on."""

    def __init__(self) -> None:
        self.kept: list[StoredEvent] = []
        self.first_offsets: dict[tuple[str, int], int] = dict.fromkeys([(name, 0) for name in METERS], 0)

    async def activations(self) -> Activations:
        return self.first_offsets

    async def events(
        self, tenant_id: str, window: Period, carried: Collection[str]
    ) -> AsyncIterator[Sequence[StoredEvent]]:
        end_us, start_us = to_microseconds(window.end), to_microseconds(window.start)
        found = [
            event
            for event in sorted(self.kept, key=lambda event: (event.source, event.event_id))
            if event.tenant_id == tenant_id
            and event.time_us < end_us
            and (event.time_us >= start_us or event.event_type in carried)
        ]
        for start in range(0, len(found), 2):
            yield found[start : start + 2]


class ExplainedScene(Scene):
    """A scene whose usage comes as single events, which the rollups follow."""

    def __init__(self) -> None:
        super().__init__()
        self.events, self.archive = MemoryEvents(), MemoryArchive(self.books)

    def event(
        self, meter_id: str, quantity: str | int, when: str = "2026-10-10T10:15", *, received: str | None = None,
        **data: str,
    ) -> StoredEvent:  # fmt: skip
        """Let an event of a meter come in (as it happened, if not said otherwise), and the rollups count it."""
        meter = METERS[meter_id]
        number = len(self.events.kept)
        body: dict[str, Any] = dict(data)
        if meter.value_property is not None:
            body[meter.value_property] = str(quantity)
        instant = at(received or when) + timedelta(seconds=0 if received else 1)
        event = StoredEvent(
            "acme", "node-1", f"ev-{number:03}", meter.event_type, "", to_microseconds(at(when)), json.dumps(body),
            instant, 0, number, 0,
        )  # fmt: skip
        self.events.kept.append(event)
        self.used(meter_id, quantity, when[:13] + ":00", **data)
        return event

    def take_out(self, event: StoredEvent, received: str, kind: Literal["void", "amend"] = "void") -> None:
        """Void an event; the rollups of its hour lose it."""
        place = self.events.kept.index(event)
        self.events.kept[place] = replace(event, taken_out=TakenOut(kind, "desk", "correction-1", at(received)))
        hour = datetime.fromtimestamp(event.time_us / 1e6, UTC).replace(minute=0, second=0, microsecond=0)
        data = json.loads(event.data)
        hours = self.usage.hours["acme"]
        gone = next(
            row
            for row in hours
            if row.hour == hour and METERS[row.meter_id].event_type == event.event_type
            and row.quantity == Decimal(data.get(METERS[row.meter_id].value_property or "", 1))
        )  # fmt: skip
        hours.remove(gone)

    async def explain(self, line: str, *, whole: bool = False) -> list[Explanation]:
        from invoicing.domain.stored_invoice import read_reference

        explained = await explain_line(
            read_reference(line, whole=whole),
            archive=self.archive,
            events=self.events,
            rollups=self.usage,
            now=self.clock.now(),
        )
        return [one.explanation for one in explained]

    async def explain_one(self, line: str) -> Explanation:
        (found,) = await self.explain(line)
        return found


def failed(found: Explanation) -> list[str]:
    """Return the codes of the checks that do not hold."""
    return [check.code for check in found.checks if not check.holds]
