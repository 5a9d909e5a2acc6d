"""An invoice line explained: what was billed, what comes out when it is derived again, and what does not agree.

Pure: figures and documents in, checks and a verdict out. A line bills its item less what earlier invoices billed of it,
so the line is compared as of when it was invoiced, and the item as of now with all that was ever billed for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum
from typing import Any

from core.money import round_to_minor
from core.period import format_instant
from invoicing.domain.lines import Line
from invoicing.domain.snapshot import money_text
from invoicing.domain.stored_event import Reading, StoredEvent
from invoicing.domain.stored_invoice import BilledShare, StoredInvoice, StoredPlan
from invoicing.domain.tax.tax_working import tax_findings
from rating.domain.digest import digest_of
from rating.domain.price import plain

_ZERO = Decimal(0)


class Outcome(Enum):
    """What came of it; the value is the command's exit code."""

    EQUAL = 0
    DIFFERS = 1
    UNDERIVABLE = 2


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold: a stable code for programs, a sentence for people that says how it is."""

    code: str
    holds: bool
    said: str


@dataclass(frozen=True, slots=True)
class Figures:
    """An item's figures as one way of deriving it gives them; all zero where it proposes no such item."""

    quantity: Decimal = _ZERO
    exact_amount: Decimal = _ZERO
    amount: Decimal = _ZERO
    steps: tuple[str, ...] = ()
    hours: tuple[tuple[str, Decimal, int], ...] = ()
    usage_digest: str = ""

    @classmethod
    def of(cls, line: Line | None) -> Figures:
        """Return the figures of a proposed line."""
        if line is None:
            return cls()
        evidence = line.evidence
        every = ((str(hour), Decimal(quantity), int(events)) for hour, quantity, events in evidence.get("hours", ()))
        # What was taken out again may leave an hour of nothing behind.
        hours = tuple((hour, quantity, events) for hour, quantity, events in every if quantity or events)
        digest = str(evidence.get("usage_digest", ""))
        steps = tuple(evidence.get("steps", ()))
        return cls(line.quantity, line.exact_amount, line.amount, steps, hours, digest)

    def less(self, before: Figures) -> Figures:
        """Return these figures without what was billed before."""
        return replace(
            self,
            quantity=self.quantity - before.quantity,
            exact_amount=self.exact_amount - before.exact_amount,
            amount=self.amount - before.amount,
        )

    def bills_like(self, other: Figures) -> bool:
        """Tell whether both bill the same: quantity, exact amount and amount."""
        mine = (self.quantity, self.exact_amount, self.amount)
        return mine == (other.quantity, other.exact_amount, other.amount)


@dataclass(frozen=True, slots=True)
class Derivation:
    """All items of a period as one way of deriving them gives them, by item key; or why it could not be done."""

    lines: Mapping[str, Line]
    failure: str | None = None

    def figures(self, item_key: str) -> Figures:
        """Return an item's figures."""
        return Figures.of(self.lines.get(item_key))


@dataclass(frozen=True, slots=True)
class Derivations:
    """The ways: single events as known when the invoice was issued, single events now, rollups now."""

    then: Derivation
    now: Derivation
    rollups: Derivation

    @property
    def failure(self) -> str | None:
        """Why one of them could not be done; None if all could."""
        return self.then.failure or self.now.failure or self.rollups.failure


class EventState(Enum):
    """How an event stands to a line."""

    BILLED = "billed"
    # Received after the invoice was issued.
    LATE = "late"
    # Counted then, voided or amended since.
    TAKEN_OUT = "taken_out"


@dataclass(frozen=True, slots=True)
class EventBehind:
    """An event behind a line, what its meter reads off it, and how it stands to the line."""

    event: StoredEvent
    reading: Reading
    state: EventState


@dataclass(frozen=True, slots=True)
class Changes:
    """What became known after the invoice: the first events of each kind, how many there are in all, and in a sentence
    each what was put down of the subscription: changes, coupons.
    """

    first: tuple[EventBehind, ...] = ()
    late: int = 0
    taken_out: int = 0
    put_down: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """A line with everything that was found out about it.

    `billed` is the line itself, `billed_before` what earlier invoices billed of its item, `billed_in_all` what all did.
    `then` is the item as known when invoiced, `now` and `rollups` as known now.
    """

    invoice: StoredInvoice
    position: int
    line: Line
    billed: Figures
    billed_before: Figures
    billed_in_all: Figures
    then: Figures
    now: Figures
    rollups: Figures
    checks: tuple[Check, ...]
    failure: str | None
    later_invoices: tuple[str, ...] = ()
    changes: Changes = Changes()

    @property
    def outcome(self) -> Outcome:
        """Whether the line equals what comes out when it is derived again."""
        if self.failure is not None:
            return Outcome.UNDERIVABLE
        return Outcome.EQUAL if all(check.holds for check in self.checks) else Outcome.DIFFERS

    @property
    def owed(self) -> Decimal:
        """What the item owes now beyond everything billed for it; negative where too much was billed."""
        return self.now.amount - self.billed_in_all.amount


def explain(
    invoice: StoredInvoice,
    position: int,
    line: Line,
    key: str,
    *,
    shares: Sequence[BilledShare],
    plan: StoredPlan | None,
    derived: Derivations,
) -> Explanation:
    """Compare a stored line with what was derived again.

    `key` is its item's, as it is made now; `shares` are all that was billed of the item, by issue.
    """
    at = next((index for index, share in enumerate(shares) if share.invoice_id == invoice.invoice_id), len(shares))
    billed, before, in_all = Figures.of(line), _sum(shares[:at]), _sum(shares)
    then, now, rollups = derived.then.figures(key), derived.now.figures(key), derived.rollups.figures(key)
    taxes = [Check(code, holds, said) for code, holds, said in tax_findings(invoice, line)]
    checks = [*_papers(invoice, line), *taxes]
    failure = derived.failure
    if line.evidence.get("by_hand"):
        failure = "a person put it down: it follows from no price and no usage"
    else:
        checks += _prices(invoice, line, plan)
    if failure is None:
        checks += _figures(invoice, line, billed, before, in_all, then, now, rollups)
    later = tuple(dict.fromkeys(share.number for share in shares[at + 1 :]))
    return Explanation(
        invoice, position, line, billed, before, in_all, then, now, rollups, tuple(checks), failure, later
    )


def hour_differences(then: Figures, now: Figures) -> list[tuple[str, Decimal, Decimal]]:
    """Return (hour, quantity then, quantity now) of the hours that are not alike."""
    was = {hour: quantity for hour, quantity, _ in then.hours}
    is_now = {hour: quantity for hour, quantity, _ in now.hours}
    hours = sorted(was.keys() | is_now.keys())
    pairs = [(hour, was.get(hour, _ZERO), is_now.get(hour, _ZERO)) for hour in hours]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _papers(invoice: StoredInvoice, line: Line) -> Iterable[Check]:
    """Check that the invoice's papers agree with each other: snapshot, line, total, rounding."""
    intact = digest_of(dict(invoice.snapshot)) == invoice.snapshot_sha256
    yield Check(
        "snapshot_intact",
        intact,
        f"the document's content has its digest {invoice.snapshot_sha256[:12]}"
        if intact
        else "the document's content does not have the digest that was noted when it was issued",
    )
    shown = [
        (one.get("description"), one.get("quantity"), one.get("amount"))
        for group in invoice.snapshot.get("groups", ())
        for one in group.get("lines", ())
    ]
    mine = _as_printed(invoice, line)
    if mine in shown:
        yield Check("line_as_printed", True, "the stored line is the one on the document")
    else:
        printed = [one for one in shown if one[0] == mine[0]]
        said = f"stored: {mine[1]} for {mine[2]}; on the document: " + (
            " or ".join(f"{quantity} for {amount}" for _, quantity, amount in printed) or "no such line"
        )
        yield Check("line_as_printed", False, said)
    total = sum((one.net for _, one in invoice.lines), _ZERO)
    yield Check(
        "lines_add_up",
        total == invoice.subtotal,
        f"the invoice's lines add up to its subtotal {invoice.subtotal:f}"
        if total == invoice.subtotal
        else f"the invoice's lines add up to {total:f}, its subtotal is {invoice.subtotal:f}",
    )
    if line.corrects_invoice is None:
        rounded = round_to_minor(line.exact_amount, invoice.currency)
        yield Check(
            "rounded_once",
            rounded == line.amount,
            f"{plain(line.exact_amount)} rounded half up is {money_text(rounded, invoice.currency)}"
            + ("" if rounded == line.amount else f", not {money_text(line.amount, invoice.currency)}"),
        )


def _as_printed(invoice: StoredInvoice, line: Line) -> tuple[str, str, str]:
    """Return description, quantity and amount as the document has them: what a coupon takes off is one row."""
    coupon = line.evidence.get("coupon")
    if line.kind != "coupon" or not isinstance(coupon, Mapping):
        return line.description, plain(line.quantity), money_text(line.amount, invoice.currency)
    together = [
        one.amount
        for _, one in invoice.lines
        if one.kind == "coupon"
        and one.settles == line.settles
        and one.evidence.get("coupon", {}).get("redemption") == coupon.get("redemption")
    ]
    return str(coupon.get("name")), "1", money_text(sum(together, _ZERO), invoice.currency)


def _prices(invoice: StoredInvoice, line: Line, plan: StoredPlan | None) -> Iterable[Check]:
    """Check that the price document in the evidence and the plan version it came from are what they were."""
    charge = line.evidence.get("charge")
    if charge is not None:
        found = digest_of({"charge": charge, "currency": invoice.currency})
        intact = found == line.price_digest
        yield Check(
            "price_intact",
            intact,
            f"the price on the line has its digest {line.price_digest[:12]}"
            if intact
            else f"the price on the line has digest {found[:12]}, the line was billed with {line.price_digest[:12]}",
        )
    named = line.evidence.get("plan")
    if not isinstance(named, Mapping):
        return
    name = f"{named.get('id')} version {named.get('version')}"
    if plan is None:
        yield Check("plan_intact", False, f"there is no plan {name} in the books any more")
        return
    found = digest_of(dict(plan.document))
    if found == plan.digest:
        yield Check("plan_intact", True, f"plan {name} has the digest {found[:12]} that was noted when it was stored")
    else:
        altered = _altered(charge, plan)
        said = f"plan {name} was altered: it has digest {found[:12]}, {plan.digest[:12]} was noted when it was stored"
        yield Check("plan_intact", False, said + (f"; {altered}" if altered else ""))


def _altered(charge: Any, plan: StoredPlan) -> str:
    """Say which fields of the line's charge are not those it was billed with."""
    if not isinstance(charge, Mapping):
        return ""
    stored = next((one for one in plan.document.get("charges", ()) if one.get("id") == charge.get("id")), None)
    if stored is None:
        return f"it has no charge {charge.get('id')!r} any more"
    names = sorted(name for name in charge.keys() | stored.keys() if charge.get(name) != stored.get(name))
    return ", ".join(f"{name}: billed with {charge.get(name)!r}, now {stored.get(name)!r}" for name in names)


def _figures(
    invoice: StoredInvoice,
    line: Line,
    billed: Figures,
    before: Figures,
    in_all: Figures,
    then: Figures,
    now: Figures,
    rollups: Figures,
) -> Iterable[Check]:
    issued = format_instant(invoice.issued_at.replace(microsecond=0))
    owed_then = then.less(before)
    # What arrived in the instant of invoicing may have been counted already.
    same = owed_then.bills_like(billed) or now.less(before).bills_like(billed)
    yield Check(
        "billed_as_derived",
        same,
        f"the events received until {issued} give what was billed"
        if same
        else f"the events received until {issued} give {_bill(owed_then, invoice)}, billed: {_bill(billed, invoice)}",
    )
    digest = billed.usage_digest
    if line.meter_id is not None and digest and same:
        agrees = digest in (then.usage_digest, now.usage_digest, rollups.usage_digest)
        alike = billed.hours in (then.hours, now.hours)
        yield Check(
            "usage_digest",
            agrees or alike,
            f"the usage has the digest {digest[:12]} noted on the line"
            if agrees
            else "the tenant's usage has another digest than noted on the line, this line's hours are the same"
            if alike
            else f"the usage noted on the line (digest {digest[:12]}) is not the usage of the events then",
        )
    alike = now.bills_like(rollups)
    yield Check(
        "rollups_agree",
        alike,
        "rollups and single events give the same"
        if alike
        else f"now single events give {_bill(now, invoice)}, rollups {_bill(rollups, invoice)}",
    )
    settled = now.amount == in_all.amount
    moved = now.quantity != in_all.quantity
    yield Check(
        "nothing_since",
        settled,
        f"as known now the item is {_bill(now, invoice)}, billed for it in all was {_bill(in_all, invoice)}"
        if not settled
        else "what became known since changes the quantity and not the amount"
        if moved
        else "nothing became known since that was not billed",
    )


def _bill(figures: Figures, invoice: StoredInvoice) -> str:
    return f"{plain(figures.quantity)} for {money_text(figures.amount, invoice.currency)}"


def _sum(shares: Sequence[BilledShare]) -> Figures:
    return Figures(
        sum((share.quantity for share in shares), _ZERO),
        sum((share.exact_amount for share in shares), _ZERO),
        sum((share.amount for share in shares), _ZERO),
    )
