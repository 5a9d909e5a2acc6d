"""Explains invoice lines: reads what was billed, derives it again on two ways, and says whether it is the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from core.errors import NotFoundError
from core.meters import Meter
from core.period import format_instant
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
from invoicing.domain.subscribed import Subscribed
from invoicing.explain_ports import EventStore, InvoiceArchive
from invoicing.ports import UsageReader
from invoicing.recount_usage import Recount
from rating.domain.windows import Windows, show_windows
from rating.rate_timeline import PlanReference

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
    reference: LineReference, *, archive: InvoiceArchive, events: EventStore, rollups: UsageReader, now: datetime
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
        owners: dict[str, list[tuple[int, Line]]] = {}
        for position, line in lines:
            owners.setdefault(line.subscription_id or invoice.subscription_id, []).append((position, line))
        found: list[Explained] = []
        for owner, own in owners.items():
            of_owner = replace(invoice, subscription_id=owner)
            found += await _explain_invoice(of_owner, own, meters, archive, events, rollups, now)
        explained += sorted(found, key=lambda one: one.explanation.position)
    return explained


async def _explain_invoice(
    invoice: StoredInvoice,
    lines: Sequence[tuple[int, Line]],
    meters: dict[str, Meter],
    archive: InvoiceArchive,
    events: EventStore,
    rollups: UsageReader,
    now: datetime,
) -> list[Explained]:
    known_at = invoice.issued_at
    recount, subscribed = Recount(events, known_at), await archive.subscribed(invoice.subscription_id)
    derived = Derivations(
        then=await derive_lines(invoice, subscribed, meters, recount.then, known_at=known_at, now=now),
        now=await derive_lines(invoice, subscribed, meters, recount.now, known_at=None, now=now),
        rollups=await derive_lines(invoice, subscribed, meters, rollups, known_at=None, now=now),
    )
    plan_at_start = _plan_at_start(subscribed)
    keys = {position: _present_key(line, plan_at_start) for position, line in lines}
    shares: dict[str, list[BilledShare]] = {}
    for share in await archive.shares(invoice.subscription_id, list(keys.values()), plan_at_start):
        shares.setdefault(share.item_key, []).append(share)
    plans: dict[tuple[str, int], StoredPlan | None] = {}
    explained = []
    for position, line in lines:
        plan_of = line.evidence.get("plan") or {"id": "", "version": 0}
        named = (str(plan_of["id"]), int(plan_of["version"]))
        if named not in plans:
            plans[named] = await archive.plan(*named)
        key = keys[position]
        explanation = explain(
            invoice, position, line, key, shares=shares.get(key, ()), plan=plans[named], derived=derived
        )
        one = Explained(explanation, recount, meters)
        if explanation.outcome is Outcome.DIFFERS or explanation.later_invoices:
            changes = replace(await _changes(one), put_down=tuple(_put_down(subscribed, known_at)))
            one = replace(one, explanation=replace(explanation, changes=changes))
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


def _put_down(subscribed: Subscribed | None, since: datetime) -> Iterator[str]:
    """Yield what was put down of the subscription after an instant, as sentences."""
    if subscribed is None:
        return
    for change in subscribed.changes:
        if change.recorded_at > since:
            effective, recorded = format_instant(change.effective_at), format_instant(change.recorded_at)
            yield f"{change.kind.value.replace('_', ' ')}, effective {effective}, put down {recorded}"
    for one in subscribed.redemptions:
        if one.redeemed_at > since:
            yield f"coupon {one.coupon.coupon_id} redeemed {format_instant(one.redeemed_at)}"
        elif one.removed_at is not None and one.removed_at > since:
            yield f"coupon {one.coupon.coupon_id} removed {format_instant(one.removed_at)}"


def _meant(invoice: StoredInvoice, reference: LineReference) -> list[tuple[int, Line]]:
    if reference.item_key is not None:
        return [(position, line) for position, line in invoice.lines if line.item_key == reference.item_key]
    if reference.position is None:
        return list(invoice.lines)
    return [(position, line) for position, line in invoice.lines if position == reference.position]


def _plan_at_start(subscribed: Subscribed | None) -> str:
    """Return the plan version that a subscription began with, as item keys name it."""
    if subscribed is None:
        return ""
    held = subscribed.start.held
    return PlanReference(held.plan_id, held.plan_version, held.overrides).text


def _present_key(line: Line, plan_at_start: str) -> str:
    """Return the item's key as it is made now: a line from before lines had periods does not name its plan version."""
    return line.item_key if line.settles is not None else f"{line.item_key}|{plan_at_start}"


def _windows(line: Line, recount: Recount) -> Sequence[Windows]:
    """Return the windows whose usage the line bills, of those that were counted."""
    text = line.evidence.get("query", {}).get("window")
    return [windows for windows in recount.windows if show_windows(windows) == text] or recount.windows
