"""Derives a stored invoice's items again, with the functions that invoices are made with and any reader of usage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from core.errors import BrokenInvariantError
from core.meters import Meter
from invoicing.domain.explanation import Derivation
from invoicing.domain.lines import Line
from invoicing.domain.stored_invoice import StoredInvoice
from invoicing.domain.subscribed import Subscribed
from invoicing.ports import UsageReader
from invoicing.propose_lines import propose_period
from rating.domain.coupon import Redemption


async def derive_lines(
    invoice: StoredInvoice,
    subscribed: Subscribed | None,
    meters: Mapping[str, Meter],
    usage: UsageReader,
    *,
    known_at: datetime | None,
    now: datetime,
) -> Derivation:
    """Return every item that the subscription owes for the billing periods that the invoice's lines settle.

    As known at an instant: what was put down later (changes, coupons) is left out; None is the present. A period that
    the invoice bills ahead is derived ahead while it runs. Says why where it cannot be derived.
    """
    if subscribed is None:
        return Derivation({}, f"there is no subscription {invoice.subscription_id} in the books any more")
    lines: dict[str, Line] = {}
    try:
        # It was known when it was invoiced, whenever its record was made.
        known = None if known_at is None else max(known_at, subscribed.start.recorded_at)
        timeline = subscribed.timeline(known_at=known)
        redeemed = [found for one in subscribed.redemptions if (found := _as_known(one, known_at)) is not None]
        for start in sorted({line.settles or invoice.period.start for _, line in invoice.lines}):
            period = timeline.cycle.period_at(start)
            ahead = start > invoice.period.start and (known_at is not None or now < period.end)
            proposal = await propose_period(
                timeline,
                period,
                plan_of=subscribed.plan_of(meters),
                redemptions=redeemed,
                usage=usage,
                meters=meters,
                ahead=ahead,
            )
            lines |= {line.item_key: line for line in proposal.lines}
    except BrokenInvariantError as broken:
        return Derivation({}, str(broken))
    return Derivation(lines)


def _as_known(redemption: Redemption, known_at: datetime | None) -> Redemption | None:
    """Return a redemption as known at an instant; None if it was made later."""
    if known_at is None:
        return redemption
    if redemption.redeemed_at > known_at:
        return None
    removed_at = redemption.removed_at
    return replace(redemption, removed_at=None) if removed_at is not None and removed_at > known_at else redemption
