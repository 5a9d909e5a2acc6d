"""Lets a person say what an entry is for in one sentence: what is proposed, invoices, or an entry it takes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from core.clock import Clock
from core.errors import Fault, InvalidInputError, NotFoundError
from payments.bank.confirm_match import Confirmed, Wish, confirm_match, lock_open_entry, wish_of
from payments.bank.confirm_return import confirm_return
from payments.bank.domain.match import Rules
from payments.bank.ports import BankDesk
from payments.bank.propose_matches import Proposed, propose_matches

_DIGITS_MAX = 20


@dataclass(frozen=True, slots=True)
class Said:
    """What a person says: `is_proposed` takes the best proposal, `returns` names the entry that this one takes back."""

    wish: Wish = field(default_factory=Wish)
    is_proposed: bool = False
    returns: str | None = None


async def confirm_entry(
    entry: str, said: Said, *, desk: BankDesk, tolerances: Mapping[str, Decimal], clock: Clock, by: str
) -> Confirmed:
    """Write down what an entry is for; `tolerances` are what bank fees may take of a transfer by currency.

    Raises as `confirm_match` and `confirm_return`, `InvalidInputError` (`contradiction`, `invalid_amount`), and
    `NotFoundError` where nothing is proposed.
    """
    _check(said)
    wish = said.wish
    if said.returns is not None:
        only = wish.invoices[0].invoice if wish.invoices else None
        return await confirm_return(entry, said.returns, desk=desk, clock=clock, by=by, invoice=only)
    async with desk.transaction() as unit:
        found = await lock_open_entry(unit, entry)
    if said.is_proposed:
        best = (await _best(desk, tolerances, entry)).proposals[0]
        if best.returns is not None:
            return await confirm_return(entry, best.returns, desk=desk, clock=clock, by=by, reasons=best.reasons)
        wish = wish_of(best, rest=wish.rest)
    rules = Rules(tolerances.get(found.currency, Decimal(0)))
    return await confirm_match(entry, wish, desk=desk, clock=clock, by=by, rules=rules)


def _check(said: Said) -> None:
    wish = said.wish
    for wanted in wish.invoices:
        amount = wanted.amount
        if amount is not None and (not amount.is_finite() or abs(amount.adjusted()) > _DIGITS_MAX):
            raise InvalidInputError([Fault("invalid_amount", f"expected such as 12.50, got {amount}", "amount")])
    if said.returns is not None:
        has_amount = any(wanted.amount is not None for wanted in wish.invoices)
        if len(wish.invoices) > 1 or has_amount or said.is_proposed or wish.fees_ours or wish.rest != "open":
            reason = "an entry that takes another back takes at most one invoice beside"
            raise InvalidInputError([Fault("contradiction", reason, "returns")])
    if said.is_proposed and wish.invoices:
        raise InvalidInputError([Fault("contradiction", "either what is proposed or invoices", "proposed")])


async def _best(desk: BankDesk, tolerances: Mapping[str, Decimal], entry: str) -> Proposed:
    found = await propose_matches(desk=desk, tolerances=tolerances)
    own = [each for each in found if each.entry.entry_id.startswith(entry) and each.proposals]
    if len(own) != 1:
        raise NotFoundError(f"nothing is proposed for one entry that begins with {entry[:60]!r}")
    return own[0]
