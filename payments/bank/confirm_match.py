"""Lets a person say what an entry is for: invoices it pays, credit for the payer, money to be given back.

One transaction makes the payments (`wire`, succeeded), announces them, grants the credit and allocates the entry. The
entry and then the invoices are locked, so of two persons who confirm the same one wins and the other is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Literal

from core.clock import Clock
from core.errors import ConflictError, Fault, InvalidInputError, NotFoundError, must_hold
from core.ids import derive_id
from core.money import Money, is_whole_minor
from ledger.domain.postings import WIRE, of_bank_fee
from payments.bank.domain.match import Proposal, Reason, Rules
from payments.bank.ports import Allocation, BankDesk, BankEntry, BankUnit, Payable
from payments.domain.history import Cause, CauseKind
from payments.domain.payment import Outcome, Payment, PaymentStatus, Refusal, payment_id_of, record_webhook
from payments.record_change import record_change, record_opening
from rating.domain.credit import CreditGrant, CreditKind
from rating.domain.credit_postings import OVERPAYMENT

Rest = Literal["open", "credit", "held"]
RESTS: tuple[Rest, ...] = ("open", "credit", "held")
_PAYABLE = ("finalized", "overdue", "uncollectible")
_ZERO = Decimal(0)


class AlreadyConfirmedError(ConflictError):
    """Nothing of the entry is left: somebody has confirmed it."""

    code = "already_confirmed"


class EntryRejectedError(ConflictError):
    """Somebody said that the entry is none of ours."""

    code = "entry_rejected"


class ChargeUnderWayError(ConflictError):
    """The invoice is being charged: the money may come twice."""

    code = "charge_under_way"


@dataclass(frozen=True, slots=True)
class Wanted:
    """An invoice, by number or id, that the entry pays; without an amount as much as is left and open."""

    invoice: str
    amount: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person says an entry is for.

    `fees_ours`: what the last invoice is short of is bank fees that we bear; it is settled. `rest` says what becomes of
    what is left: it stays open, becomes the tenant's credit, or is held to be given back.
    """

    invoices: tuple[Wanted, ...] = ()
    fees_ours: bool = False
    rest: Rest = "open"
    tenant_id: str | None = None
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What was written; `entry` is the entry before, `left` what is open of it afterwards."""

    entry: BankEntry
    allocations: tuple[Allocation, ...]
    left: Decimal


def wish_of(proposal: Proposal, *, rest: Rest = "open") -> Wish:
    """Return what confirming a proposal means."""
    return Wish(
        invoices=tuple(Wanted(part.invoice_id, part.amount) for part in proposal.parts),
        fees_ours=any(part.fee for part in proposal.parts),
        rest=rest,
        tenant_id=proposal.tenant_ids[0] if len(proposal.tenant_ids) == 1 else None,
        reasons=proposal.reasons,
    )


async def confirm_match(
    entry: str, wish: Wish, *, desk: BankDesk, clock: Clock, by: str, rules: Rules | None = None
) -> Confirmed:
    """Write down what an entry is for; `entry` is its id or the beginning of it, `by` who says so.

    Raises `NotFoundError`, `AlreadyConfirmedError`, `EntryRejectedError`, `ChargeUnderWayError`, and
    `InvalidInputError` (`not_incoming`, `nothing_wanted`, `unknown_invoice`, `wrong_currency`, `not_payable`,
    `nothing_open`, `exceeds_entry`, `exceeds_open`, `invalid_amount`, `no_shortfall`, `beyond_tolerance`,
    `tenant_needed`, `unknown_tenant`, `duplicate_invoice`); nothing is written then.
    """
    now = clock.now()
    async with desk.transaction() as unit:
        found = await lock_open_entry(unit, entry)
        if found.amount < 0:
            raise _refused("not_incoming", f"{found.entry_id} is money that went out", "entry")
        if not wish.invoices and wish.rest == "open":
            raise _refused("nothing_wanted", "name an invoice, or what becomes of the money", "invoice")
        payables = await _lock_invoices(unit, wish.invoices)
        shares = _share_out(found, wish, payables, rules or Rules())
        number = len(await unit.given(found.entry_id))
        made: list[Allocation] = []
        for payable, amount, fee in shares:
            made.append(await _pay(unit, found, payable, amount, fee, _name(found, number + len(made)), wish, by, now))
        left = found.left - sum((amount for _, amount, _ in shares), _ZERO)
        if left and wish.rest != "open":
            tenant_id = await _tenant_of_rest(unit, wish, payables)
            named = _name(found, number + len(made))
            made.append(await _keep(unit, found, left, tenant_id, named, wish, by, now))
            left = _ZERO
        for allocation in made:
            await unit.add_allocation(allocation)
        await unit.decide(found.entry_id, "open" if left else "done", by, now)
    return Confirmed(found, tuple(made), left)


async def lock_open_entry(unit: BankUnit, name: str) -> BankEntry:
    """Lock and return an entry of which something is left; raises as `confirm_match` does."""
    found = await unit.lock_entry(name)
    if found is None:
        raise NotFoundError(f"no bank entry {name[:60]!r}")
    if found.status == "rejected":
        raise EntryRejectedError(f"{found.entry_id} was rejected by {found.decided_by}: {found.note}")
    if not found.left:
        raise AlreadyConfirmedError(f"{found.entry_id} was confirmed by {found.decided_by}: nothing of it is left")
    return found


async def _lock_invoices(unit: BankUnit, wanted: Sequence[Wanted]) -> list[Payable]:
    """Lock the invoices, always in the order of ids, so that two persons never wait for each other."""
    faults: list[Fault] = []
    ids: list[str] = []
    for index, one in enumerate(wanted):
        invoice_id = await unit.find_invoice(one.invoice)
        if invoice_id is None:
            faults.append(Fault("unknown_invoice", f"no invoice {one.invoice[:60]!r}", f"invoice[{index}]"))
        elif invoice_id in ids:
            faults.append(Fault("duplicate_invoice", f"{one.invoice} stands here twice", f"invoice[{index}]"))
        else:
            ids.append(invoice_id)
    if faults:
        raise InvalidInputError(faults)
    locked = {invoice_id: await unit.lock_invoice(invoice_id) for invoice_id in sorted(ids)}
    return [locked[invoice_id] for invoice_id in ids]


def _share_out(
    entry: BankEntry, wish: Wish, payables: Sequence[Payable], rules: Rules
) -> list[tuple[Payable, Decimal, Decimal]]:
    """Return how much of the entry each invoice gets, and what of its last one fees took; every fault at once."""
    faults: list[Fault] = []
    left = entry.left
    shares: list[tuple[Payable, Decimal, Decimal]] = []
    for index, (wanted, payable) in enumerate(zip(wish.invoices, payables, strict=True)):
        path = f"invoice[{index}]"
        if fault := _why_not(entry, payable, path):
            faults.append(fault)
            continue
        opened = payable.invoice.open_amount
        amount = min(left, opened) if wanted.amount is None else wanted.amount
        if wanted.amount is not None and (not is_whole_minor(amount, entry.currency) or amount <= 0):
            faults.append(Fault("invalid_amount", f"{str(amount)[:40]} is no amount of {entry.currency}", path))
        elif amount > left or not amount:
            reason = f"{left:f} {entry.currency} of the entry is left, {payable.invoice.number} would get {amount:f}"
            faults.append(Fault("exceeds_entry", reason, path))
        elif amount > opened:
            reason = f"{opened:f} {entry.currency} of {payable.invoice.number} is open, it would get {amount:f}"
            faults.append(Fault("exceeds_open", reason, path))
        else:
            shares.append((payable, amount, _ZERO))
            left -= amount
    if faults:
        raise InvalidInputError(faults)
    if wish.fees_ours:
        shares = _bear_fees(shares, left, rules, entry.currency)
    must_hold(sum((amount for _, amount, _ in shares), _ZERO) <= entry.left, "more is given out than came")
    return shares


def _why_not(entry: BankEntry, payable: Payable, path: str) -> Fault | None:
    invoice = payable.invoice
    if invoice.currency != entry.currency:
        reason = f"{invoice.number} is in {invoice.currency}, the money in {entry.currency}"
        return Fault("wrong_currency", reason, path)
    if payable.status not in (*_PAYABLE, "paid"):
        return Fault("not_payable", f"{invoice.number} is {payable.status}", path)
    if payable.charging is not None:
        raise ChargeUnderWayError(f"{invoice.number} is being charged by {payable.charging}: wait for its outcome")
    if not invoice.open_amount:
        return Fault("nothing_open", f"nothing of {invoice.number} is open", path)
    return None


def _bear_fees(
    shares: list[tuple[Payable, Decimal, Decimal]], left: Decimal, rules: Rules, currency: str
) -> list[tuple[Payable, Decimal, Decimal]]:
    short = shares[-1][0].invoice.open_amount - shares[-1][1] if shares else _ZERO
    if not short or left:
        raise _refused("no_shortfall", "the money is not short of the last invoice", "fees")
    if short > rules.fee_tolerance:
        reason = f"{short:f} {currency} is short, {rules.fee_tolerance:f} is tolerated for bank fees"
        raise _refused("beyond_tolerance", reason, "fees")
    payable, amount, _ = shares[-1]
    return [*shares[:-1], (payable, amount, short)]


async def _pay(
    unit: BankUnit,
    entry: BankEntry,
    payable: Payable,
    amount: Decimal,
    fee: Decimal,
    allocation_id: str,
    wish: Wish,
    by: str,
    now: datetime,
) -> Allocation:
    """Make the payment of an invoice and announce it; its amount is what settles, fees that we bear included."""
    invoice, cause = payable.invoice, Cause(CauseKind.REQUEST, by)
    settles = Money(amount + fee, entry.currency)
    payment = Payment(
        payment_id=payment_id_of(invoice.invoice_id, payable.attempts + 1),
        invoice_id=invoice.invoice_id,
        tenant_id=invoice.tenant_id,
        attempt=payable.attempts + 1,
        provider=WIRE,
        amount=settles,
        created_at=now,
    )
    if not await record_opening(unit.payments, payment, now, cause):
        raise ConflictError(f"another payment of {invoice.number} was opened at this very moment: try again")
    outcome = Outcome(PaymentStatus.SUCCEEDED, allocation_id, settles)
    settled = record_webhook(payment, outcome, booked_at(entry))
    must_hold(not isinstance(settled, Refusal), f"a wire payment contradicts itself: {settled}")
    assert isinstance(settled, Payment)
    await record_change(unit.payments, payment, settled, now, cause)
    if fee:
        at = booked_at(entry)
        await unit.post(of_bank_fee(allocation_id, invoice.tenant_id, entry.currency, amount=fee, at=at), now)
    return Allocation(
        allocation_id=allocation_id,
        entry_id=entry.entry_id,
        kind="invoice",
        tenant_id=invoice.tenant_id,
        amount=amount,
        fee=fee,
        payment_id=payment.payment_id,
        reasons=wish.reasons,
        confirmed_by=by,
        confirmed_at=now,
    )


async def _tenant_of_rest(unit: BankUnit, wish: Wish, payables: Sequence[Payable]) -> str:
    own = {payable.invoice.tenant_id for payable in payables}
    tenant_id = wish.tenant_id or (own.pop() if len(own) == 1 else None)
    if tenant_id is None:
        raise _refused("tenant_needed", "whose money the rest is does not follow from one invoice", "tenant")
    if not await unit.has_tenant(tenant_id):
        raise _refused("unknown_tenant", f"no tenant {tenant_id[:60]!r}", "tenant")
    return tenant_id


async def _keep(
    unit: BankUnit,
    entry: BankEntry,
    amount: Decimal,
    tenant_id: str,
    allocation_id: str,
    wish: Wish,
    by: str,
    now: datetime,
) -> Allocation:
    """Make the rest the tenant's credit, or hold it for a transfer back."""
    grant_id = None
    if wish.rest == "credit":
        grant_id = derive_id("credit", tenant_id, allocation_id)
        grant = CreditGrant(
            grant_id=grant_id,
            tenant_id=tenant_id,
            kind=CreditKind.PAID,
            amount=amount,
            currency=entry.currency,
            effective_at=now,
            granted_at=now,
            reason=OVERPAYMENT,
        )
        must_hold(await unit.credits.add_grant(grant), f"the credit of {allocation_id} is there already")
    return Allocation(
        allocation_id=allocation_id,
        entry_id=entry.entry_id,
        kind="held" if grant_id is None else "credit",
        tenant_id=tenant_id,
        amount=amount,
        grant_id=grant_id,
        reasons=wish.reasons,
        confirmed_by=by,
        confirmed_at=now,
    )


def booked_at(entry: BankEntry) -> datetime:
    """Return the instant an entry counts from: banks name a day, we take its beginning in UTC."""
    return datetime.combine(entry.booked_on, time(), UTC)


def _name(entry: BankEntry, number: int) -> str:
    return derive_id("alloc", entry.entry_id, str(number + 1))


def _refused(code: str, reason: str, path: str) -> InvalidInputError:
    return InvalidInputError([Fault(code, reason, path)])
