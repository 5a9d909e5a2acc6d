"""Proposes for every entry that waits what it may be for, and confirms what leaves no doubt where that is allowed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from core.clock import Clock
from core.errors import ConflictError, InvalidInputError
from payments.bank.confirm_match import Confirmed, confirm_match, wish_of
from payments.bank.domain.match import Incoming, Movement, OpenInvoice, Proposal, Rules, propose, propose_returns
from payments.bank.ports import BankDesk, BankEntry, BankUnit

# Who confirms by the setting.
RULE = "rule: named and to the cent"


@dataclass(frozen=True, slots=True)
class Proposed:
    """An entry with what it may be for, best first."""

    entry: BankEntry
    proposals: tuple[Proposal, ...]


async def propose_matches(
    *, desk: BankDesk, tolerances: Mapping[str, Decimal], only: Collection[str] | None = None
) -> list[Proposed]:
    """Return the open entries, and money that went out where it may take back what came in, oldest first.

    `tolerances` are what bank fees may take of a transfer by currency; `only` limits it to these entries.
    """
    async with desk.transaction() as unit:
        waiting = await unit.entries(statuses=("open", "noted"))
        if only is not None:
            waiting = [each for each in waiting if each.entry_id in only]
        payers = await unit.payers()
        invoices: dict[str, list[OpenInvoice]] = {}
        for currency in {each.currency for each in waiting if each.amount > 0}:
            invoices[currency] = await unit.invoices(currency)
        received = await _received(unit) if any(each.amount < 0 for each in waiting) else {}
    found = []
    for entry in waiting:
        if entry.amount > 0:
            rules = Rules(tolerances.get(entry.currency, Decimal(0)))
            proposals = propose(_incoming(entry), invoices[entry.currency], payers=payers, rules=rules)
        else:
            proposals = propose_returns(_movement(entry, entry.left), received.get(entry.account_id, ()))
        if proposals or entry.status == "open":
            found.append(Proposed(entry, tuple(proposals)))
    return found


async def confirm_exact(
    *, desk: BankDesk, clock: Clock, tolerances: Mapping[str, Decimal], only: Collection[str]
) -> list[Confirmed]:
    """Confirm the entries whose payer named every invoice and paid what is open on them to the cent; return them."""
    done = []
    for proposed in await propose_matches(desk=desk, tolerances=tolerances, only=only):
        best = proposed.proposals[0] if proposed.proposals else None
        if best is None or not best.is_exact:
            continue
        try:
            wish = wish_of(best)
            done.append(await confirm_match(proposed.entry.entry_id, wish, desk=desk, clock=clock, by=RULE))
        except (ConflictError, InvalidInputError):
            # The one before, or somebody, has paid the same invoice: no longer without doubt, so it waits for a person.
            continue
    return done


async def _received(unit: BankUnit) -> dict[str, Sequence[Movement]]:
    """Return what came in and was confirmed, by account, with what of it can still be taken back."""
    found: dict[str, list[Movement]] = {}
    for entry, left in await unit.returnable():
        found.setdefault(entry.account_id, []).append(_movement(entry, left))
    return {account: tuple(movements) for account, movements in found.items()}


def _incoming(entry: BankEntry) -> Incoming:
    return Incoming(
        entry_id=entry.entry_id,
        currency=entry.currency,
        left=entry.left,
        remittance=entry.remittance,
        references=entry.reference_texts,
        counterparty=entry.counterparty,
        counterparty_account=entry.counterparty_account,
    )


def _movement(entry: BankEntry, left: Decimal) -> Movement:
    return Movement(
        entry_id=entry.entry_id,
        booked_on=entry.booked_on,
        left=left,
        bank_reference=entry.bank_reference,
        texts=(entry.remittance, *entry.reference_texts),
        counterparty=entry.counterparty,
        counterparty_account=entry.counterparty_account,
        is_reversal=entry.is_reversal,
    )
