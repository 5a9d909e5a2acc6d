"""Previews the invoice of the billing period that holds an instant, with a change that might be made.

The same functions make the invoice later, so what is previewed is what will be billed, to the cent, if nothing else
happens: no more usage, no other change, no credit granted or drawn meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.errors import Fault, InvalidInputError, NotFoundError
from core.meters import Meter
from core.period import Period, format_instant
from invoicing.determine_taxes import TaxRules, UndeterminedTaxError, determine_taxes
from invoicing.domain.invoice import Draft
from invoicing.domain.lines import Line
from invoicing.domain.subscribed import Subscribed
from invoicing.domain.tax.document_taxes import taxes_of
from invoicing.domain.tax.taxed_lines import TaxGroup
from invoicing.invoice_period import last_held, plan_shown
from invoicing.ports import Account, Books, UsageReader
from invoicing.propose_invoice import propose_invoice
from rating.domain.credit import dues_of, plan_draws
from rating.domain.timeline import Change, ChangeKind, cut_to_minute, replay
from rating.draw_credits import total_drawn
from rating.rate_timeline import period_name


@dataclass(frozen=True, slots=True)
class Wish:
    """A change that might be made, from an instant on: another plan, another quantity, or the end. None: as it is."""

    plan_id: str | None = None
    plan_version: int | None = None
    quantity: Decimal | None = None
    cancel: bool = False


@dataclass(frozen=True, slots=True)
class Preview:
    """What the next invoice of a billing period would say; `total` is negative if less is owed than was billed.

    `taxes` are the tax by category, rate and place; `total` holds them.
    """

    subscription_id: str
    period: Period
    name: str
    currency: str
    lines: tuple[Line, ...]
    total: Decimal
    credits_applied: Decimal
    taxes: tuple[TaxGroup, ...] = ()
    sequence: int = 1
    # What its document would name: the plan held last, and whose days bound the period.
    plan: Mapping[str, Any] = field(default_factory=dict)
    time_zone: str = "UTC"

    @property
    def tax(self) -> Decimal:
        """The tax in the total."""
        return sum((group.tax for group in self.taxes), Decimal(0))

    @property
    def subtotal(self) -> Decimal:
        """The total without tax."""
        return self.total - self.tax

    @property
    def amount_due(self) -> Decimal:
        """What is left to be paid after credits."""
        return self.total - self.credits_applied


async def preview_invoice(
    tenant_id: str,
    at: datetime,
    *,
    books: Books,
    usage: UsageReader,
    subscription_id: str | None = None,
    changes: Sequence[Change] = (),
    wish: Wish | None = None,
    rules: TaxRules | None = None,
) -> Preview:
    """Return the invoice of the billing period that holds `at`, as it would be if the changes were made.

    `changes` are given as they would be put down; a `wish` becomes a change from `at` on. Nothing is stored. Raises
    `NotFoundError` (no such tenant or subscription, or several and none named), `InvalidInputError` (a change that
    contradicts what is held; nothing held then; tax that cannot be determined by the `rules`), `BrokenInvariantError`.
    """
    async with books.view_account(tenant_id) as account:
        if account is None:
            raise NotFoundError(f"no tenant {tenant_id!r}")
        subscribed = await _find(account, subscription_id, at)
        also = list(changes)
        if wish is not None:
            also += await _as_changes(account, subscribed, wish, at, len(also))
        _check(subscribed, also)
        if also:
            documents = await account.plan_documents(
                {(one.payload["plan_id"], one.payload["plan_version"]) for one in also if "plan_version" in one.payload}
            )
            subscribed = subscribed.knowing(documents)
        return await _preview(account, subscribed, also, at, usage, await account.meters(), rules or TaxRules())


async def _preview(
    account: Account,
    subscribed: Subscribed,
    also: Sequence[Change],
    at: datetime,
    usage: UsageReader,
    meters: dict[str, Meter],
    rules: TaxRules,
) -> Preview:
    timeline = subscribed.timeline(also=also)
    period = timeline.cycle.period_at(at)
    proposal = await propose_invoice(account, subscribed, period, usage=usage, meters=meters, also=also)
    draft = Draft(
        subscribed.subscription_id,
        proposal.period,
        proposal.sequence,
        proposal.currency,
        proposal.lines if proposal.is_due else (),
    )
    try:
        draft = await determine_taxes(
            draft,
            buyer=account.buyer,
            books=account,
            rules=rules,
            # It is issued when the period is over, or now if that was before.
            issued_at=max(at, period.end),
            time_zone=timeline.cycle.time_zone,
        )
    except UndeterminedTaxError as undetermined:
        raise InvalidInputError(undetermined.faults) from undetermined
    lines, total = draft.lines, draft.total
    credits = Decimal(0)
    if total > 0:
        dues = dues_of([line.as_amount() for line in lines], proposal.currency)
        held = await account.ledger.credits(account.buyer.tenant_id)
        credits = total_drawn(plan_draws(held, dues, proposal.currency, period.end))
    name = period_name(timeline.cycle, period)
    taxes = taxes_of(lines)
    plan = plan_shown(last_held(subscribed, timeline, period), subscribed.plan_of(meters))
    return Preview(
        subscribed.subscription_id, period, name, proposal.currency, lines, total, credits, taxes,
        proposal.sequence, plan, timeline.cycle.time_zone,
    )  # fmt: skip


async def _find(account: Account, subscription_id: str | None, at: datetime) -> Subscribed:
    found = await account.subscriptions(datetime.max.replace(tzinfo=at.tzinfo))
    if subscription_id is not None:
        found = [one for one in found if one.subscription_id == subscription_id]
    elif len(found) > 1:
        found = [one for one in found if one.timeline().at(at) is not None]
    if not found:
        raise NotFoundError(
            f"no subscription {subscription_id or ''} of {account.buyer.tenant_id!r}".replace("  ", " ")
        )
    if len(found) > 1:
        names = ", ".join(one.subscription_id for one in found)
        raise NotFoundError(f"{account.buyer.tenant_id!r} has several subscriptions, name one: {names}")
    return found[0]


async def _as_changes(account: Account, subscribed: Subscribed, wish: Wish, at: datetime, number: int) -> list[Change]:
    """Return the changes that a wish comes to; without a version the newest of the plan."""
    effective = cut_to_minute(at)
    wanted: list[tuple[ChangeKind, dict[str, object]]] = []
    if wish.plan_id is not None:
        version = wish.plan_version or await account.newest_version(wish.plan_id)
        if version is None:
            raise NotFoundError(f"no plan {wish.plan_id!r}: apply a catalogue that has it")
        payload = {"plan_id": wish.plan_id, "plan_version": version, "overrides": {}}
        wanted.append((ChangeKind.PLAN_CHANGED, payload))
    if wish.quantity is not None:
        wanted.append((ChangeKind.QUANTITY_CHANGED, {"quantity": f"{wish.quantity:f}"}))
    if wish.cancel:
        wanted.append((ChangeKind.CANCELED, {}))
    first = 1 + number + max((one.sequence for one in subscribed.changes), default=0)
    return [
        Change(sequence, kind, effective, at, payload) for sequence, (kind, payload) in enumerate(wanted, start=first)
    ]


def _check(subscribed: Subscribed, also: Sequence[Change]) -> None:
    """Refuse changes that contradict what is held when they become effective."""
    faults = [fault for _, fault in replay(subscribed.start, (*subscribed.changes, *also)).faults]
    if faults:
        raise InvalidInputError([Fault(one.code, one.reason, one.path) for one in faults])


def shown_period(preview: Preview) -> str:
    """Return the billing period's bounds for people."""
    return f"{format_instant(preview.period.start)} to {format_instant(preview.period.end)}"
