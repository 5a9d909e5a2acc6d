"""Lets a person say that an entry is none of ours to match, and take that back."""

from __future__ import annotations

from core.clock import Clock
from core.errors import ConflictError, NotFoundError
from payments.bank.ports import BankDesk, BankEntry


class PartlyConfirmedError(ConflictError):
    """A part of the entry was confirmed: what is left stays open, or becomes credit, or is held."""

    code = "partly_confirmed"


async def reject_entry(entry: str, *, reason: str, desk: BankDesk, clock: Clock, by: str) -> BankEntry:
    """Put an entry away with a reason and return it as it was; raises `NotFoundError`, `PartlyConfirmedError`."""
    async with desk.transaction() as unit:
        found = await unit.lock_entry(entry)
        if found is None:
            raise NotFoundError(f"no bank entry {entry[:60]!r}")
        if found.allocated:
            raise PartlyConfirmedError(f"{found.allocated:f} {found.currency} of {found.entry_id} was confirmed")
        if found.status != "rejected":
            await unit.decide(found.entry_id, "rejected", by, clock.now(), reason)
    return found


async def reopen_entry(entry: str, *, desk: BankDesk, clock: Clock, by: str) -> BankEntry:
    """Take a rejection back; an entry that is not rejected is returned as it is. Raises `NotFoundError`."""
    async with desk.transaction() as unit:
        found = await unit.lock_entry(entry)
        if found is None:
            raise NotFoundError(f"no bank entry {entry[:60]!r}")
        if found.status == "rejected":
            status = "open" if found.amount > 0 or found.is_reversal else "noted"
            await unit.decide(found.entry_id, status, by, clock.now())
    return found
