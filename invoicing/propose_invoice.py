"""Proposes the next invoice of a billing period: all that is owed for it, and what has changed since in earlier ones.

- The period itself: everything in arrears, and once more what was billed for it in advance.
- The period after it: what is billed in advance, until that period has an invoice of its own.
- Earlier periods that a change put down after their invoice reaches into: a change effective in them, or in a longer
  fee (a year's) that was billed with them.

What earlier invoices billed for the same items is taken away, so a preview and the invoice that follows it are made by
the same function from the same facts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from core.errors import must_hold
from core.meters import Meter
from core.period import Period
from invoicing.domain.lines import Billed, Line, check_recurring, difference, total_of
from invoicing.domain.subscribed import Subscribed, latest_effect
from invoicing.ports import Account, UsageReader
from invoicing.propose_lines import Proposal, propose_period
from rating.domain.timeline import Change, Timeline
from rating.rate_timeline import PlanOf, holdings_of

# As far back as changes are looked for; what is older is billed by asking for that period itself.
_PERIODS_BACK_MAX = 36


@dataclass(frozen=True, slots=True)
class ProposedInvoice:
    """What an invoice of a billing period would say now: `lines` are left to bill, `target` is all of the period's.

    `billed` is what documents billed of the items before, `others` are the other periods that were proposed.
    `is_first`: nothing of the period was invoiced before, or all of it was voided.
    """

    period: Period
    sequence: int
    currency: str
    lines: tuple[Line, ...]
    target: Proposal
    others: tuple[Proposal, ...]
    billed: Mapping[str, Billed]
    is_first: bool

    @property
    def net(self) -> Decimal:
        """The sum of the lines; negative if less is owed than was billed."""
        return total_of(self.lines)

    @property
    def is_due(self) -> bool:
        """Whether the lines are to be issued.

        The first invoice of a period is issued if it has any line: a free plan's usage is confirmed at nothing due.
        After that only money counts: a quantity that moved within what is included needs no second document.
        """
        return bool(self.lines) if self.is_first else any(line.amount for line in self.lines)


async def propose_invoice(
    account: Account,
    subscribed: Subscribed,
    period: Period,
    *,
    usage: UsageReader,
    meters: Mapping[str, Meter],
    also: Sequence[Change] = (),
) -> ProposedInvoice:
    """Return the next invoice of one of the subscription's billing periods, without storing anything.

    `also` are changes that might be made. Raises `BrokenInvariantError` where the figures contradict each other.
    """
    timeline, plan_of = subscribed.timeline(also=also), subscribed.plan_of(meters)
    invoiced = await account.invoiced(subscribed.subscription_id)
    began = subscribed.start.started_at
    corrected = list(_changed_periods(timeline, plan_of, began, (*subscribed.changes, *also), invoiced, period))
    proposals = []
    for one in (*corrected, period):
        proposals.append(await _propose(timeline, one, plan_of, subscribed, usage, meters))
    following = timeline.cycle.period_at(period.end)
    if not any(start >= following.start for start in invoiced):
        proposals.append(await _propose(timeline, following, plan_of, subscribed, usage, meters, ahead=True))
    proposed = [line for proposal in proposals for line in proposal.lines]
    billed = await account.billed(
        subscribed.subscription_id,
        settling=[proposal.period.start for proposal in proposals],
        item_keys=[line.item_key for line in proposed],
    )
    check_recurring(proposed)
    currencies = {holding.plan.currency for proposal in proposals for holding in proposal.holdings}
    must_hold(len(currencies) <= 1, f"plans in {' and '.join(sorted(currencies))} were held")
    shown = shown_period(subscribed, period)
    return ProposedInvoice(
        period=shown,
        sequence=await account.next_sequence(subscribed.subscription_id, shown),
        currency=currencies.pop() if currencies else account.buyer.currency,
        lines=tuple(difference(proposed, billed)),
        target=proposals[len(corrected)],
        others=tuple(proposals[: len(corrected)] + proposals[len(corrected) + 1 :]),
        billed=billed,
        is_first=shown.start not in invoiced,
    )


def shown_period(subscribed: Subscribed, period: Period) -> Period:
    """Return the period that the invoice names: what is billed before the first one begins stands on one of that."""
    cycle = subscribed.start.cycle
    return cycle.period_at(period.end) if period.end <= subscribed.start.started_at else period


async def _propose(
    timeline: Timeline,
    period: Period,
    plan_of: PlanOf,
    subscribed: Subscribed,
    usage: UsageReader,
    meters: Mapping[str, Meter],
    *,
    ahead: bool = False,
) -> Proposal:
    return await propose_period(
        timeline,
        period,
        plan_of=plan_of,
        redemptions=subscribed.redemptions,
        usage=usage,
        meters=meters,
        ahead=ahead,
    )


def _changed_periods(
    timeline: Timeline,
    plan_of: PlanOf,
    began: datetime,
    changes: Sequence[Change],
    invoiced: Mapping[datetime, datetime],
    period: Period,
) -> Iterator[Period]:
    """Yield the periods before `period` that a change reaches into which was put down after their last invoice.

    `invoiced` has, by the start of a billing period, when its account was last settled; one without any invoice could
    have been settled from its end on.
    """
    if not changes or began >= period.start:
        return
    before = list(timeline.cycle.periods(Period(began, period.start)))
    for earlier in [one for one in before if one.start < period.start][-_PERIODS_BACK_MAX:]:
        since = invoiced.get(earlier.start, earlier.end)
        effects = [latest_effect(change, changes) for change in changes if change.recorded_at > since]
        if effects and min(effects) < _reach(timeline, plan_of, earlier):
            yield earlier


def _reach(timeline: Timeline, plan_of: PlanOf, period: Period) -> datetime:
    """Return the end of the last fee that falls due with a billing period, at least the period's own."""
    fees = [fee for holding in holdings_of(timeline, period, plan_of) for fee in holding.fees]
    return max([period.end, *(fee.own.end for fee in fees)])
