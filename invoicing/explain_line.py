"""Explains invoice lines: reads what was billed, derives it again on two ways, and says whether it is the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from core.errors import NotFoundError
from core.meters import Meter
from core.period import Period
from invoicing.derive_lines import derive_lines
from invoicing.domain.explanation import (
    Changes,
    Derivations,
    EventBehind,
    EventState,
    Explanation,
    Outcome,
    explain,
)
from invoicing.domain.lines import Line
from invoicing.domain.stored_invoice import BilledShare, LineReference, StoredInvoice, StoredPlan
from invoicing.explain_ports import EventStore, InvoiceArchive
from invoicing.ports import UsageReader
from invoicing.recount_usage import Recount

CHANGES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Explained:
    """Explanations in order, each with the way back to the events behind it."""

    explanation: Explanation
    recount: Recount
    meters: dict[str, Meter]

    def events(self) -> AsyncIterator[EventBehind]:
        """Yield the events behind the line: billed, late, and taken out since."""
        line = self.explanation.line
        windows = _windows(line, self.recount)
        return self.recount.events_behind(self.explanation.invoice.tenant_id, line, windows, self.meters)


async def explain_line(
    reference: LineReference, *, archive: InvoiceArchive, events: EventStore, rollups: UsageReader
) -> list[Explained]:
    """Return the explanation of each line that is meant, by issue and position.

    Raises `NotFoundError` where there is no such invoice, line or item, `UnavailableError`.
    """
    invoices = await archive.invoices(reference)
    if not invoices:
        what = "item" if reference.item_key is not None else "finalized invoice"
        raise NotFoundError(f"no {what} {str(reference.item_key or reference.invoice)[:200]!r}")
    meters = await archive.meters()
    explained = []
    for invoice in invoices:
        lines = _meant(invoice, reference)
        if not lines:
            raise NotFoundError(f"{invoice.number} has {len(invoice.lines)} lines, and no line {reference.position}")
        explained += await _explain_invoice(invoice, lines, meters, archive, events, rollups)
    return explained


async def _explain_invoice(
    invoice: StoredInvoice,
    lines: Sequence[tuple[int, Line]],
    meters: dict[str, Meter],
    archive: InvoiceArchive,
    events: EventStore,
    rollups: UsageReader,
) -> list[Explained]:
    recount = Recount(events, invoice.issued_at)
    contract = await archive.contract(invoice.subscription_id)
    derived = Derivations(
        then=await derive_lines(invoice, contract, meters, recount.then),
        now=await derive_lines(invoice, contract, meters, recount.now),
        rollups=await derive_lines(invoice, contract, meters, rollups),
    )
    shares: dict[str, list[BilledShare]] = {}
    for share in await archive.shares([line.item_key for _, line in lines]):
        shares.setdefault(share.item_key, []).append(share)
    plans: dict[tuple[str, int], StoredPlan | None] = {}
    explained = []
    for position, line in lines:
        plan_of = line.evidence.get("plan") or {"id": "", "version": 0}
        named = (str(plan_of["id"]), int(plan_of["version"]))
        if named not in plans:
            plans[named] = await archive.plan(*named)
        of_item = shares.get(line.item_key, [])
        explanation = explain(invoice, position, line, shares=of_item, plan=plans[named], derived=derived)
        one = Explained(explanation, recount, meters)
        if explanation.outcome is Outcome.DIFFERS or explanation.later_invoices:
            one = replace(one, explanation=replace(explanation, changes=await _changes(one)))
        explained.append(one)
    return explained


async def _changes(explained: Explained) -> Changes:
    first: list[EventBehind] = []
    counts = {EventState.LATE: 0, EventState.TAKEN_OUT: 0}
    async for behind in explained.events():
        if behind.state is EventState.BILLED:
            continue
        counts[behind.state] += 1
        if counts[behind.state] <= CHANGES_SHOWN:
            first.append(behind)
    first.sort(key=lambda behind: (behind.state.value, behind.event.received_at, behind.event.event_id))
    return Changes(tuple(first), counts[EventState.LATE], counts[EventState.TAKEN_OUT])


def _meant(invoice: StoredInvoice, reference: LineReference) -> list[tuple[int, Line]]:
    if reference.item_key is not None:
        return [(position, line) for position, line in invoice.lines if line.item_key == reference.item_key]
    if reference.position is None:
        return list(invoice.lines)
    return [(position, line) for position, line in invoice.lines if position == reference.position]


def _windows(line: Line, recount: Recount) -> Sequence[Period]:
    """Return the windows whose usage the line bills, of those that were counted."""
    named = line.evidence.get("query", {})
    texts = {named["window"]} if "window" in named else set(named.get("windows", ()))
    return [window for window in recount.windows if str(window) in texts] or recount.windows
