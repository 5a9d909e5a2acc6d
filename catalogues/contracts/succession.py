"""How a contract follows another. Pure: owns that no two overlap, and that what has begun is not rewritten.

A version that has begun may only get an earlier end, and none before now: what happened until now happened under it.
One that has not begun may be withdrawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from catalogues.contracts.ports import StoredContract
from core.errors import Fault
from core.period import format_instant
from rating.domain.contract import Contract


@dataclass(frozen=True, slots=True)
class Steps:
    """What is done to stored versions before a new one is added: ends brought forward, and versions withdrawn."""

    shorten: tuple[tuple[Contract, datetime], ...] = ()
    withdraw: tuple[Contract, ...] = ()


def follow(
    new: Contract, versions: Sequence[StoredContract], others: Iterable[StoredContract], now: datetime
) -> Steps | Fault:
    """Return what makes room for the next version of a contract, or why it cannot follow.

    `versions` are the stored ones of the same contract in their order, `others` all the tenant's that count.
    """
    standing = [one.contract for one in versions if one.withdrawn_at is None]
    steps = Steps()
    if standing:
        last = standing[-1]
        if (last.tenant_id, last.plan_id) != (new.tenant_id, new.plan_id):
            reason = (
                f"{new.contract_id} is a contract of {last.tenant_id} for {last.plan_id}: give another one another id"
            )
            return Fault("contract_of_other", reason, "contract")
        found = cut_at(new.valid_from, standing, now)
        if isinstance(found, Fault):
            reason = f"{found.reason}; an amendment begins later on"
            return Fault("amends_the_past", reason, "valid_from")
        steps = found
    withdrawn = {(one.contract_id, one.version) for one in steps.withdraw}
    ends = {(one.contract_id, one.version): until for one, until in steps.shorten}
    for stored in others:
        one = stored.contract
        key = (one.contract_id, one.version)
        if key in withdrawn:
            continue
        if replace(one, valid_until=ends.get(key, one.valid_until)).overlaps(new):
            reason = f"{one.contract_id} version {one.version} is valid {one.validity}, for the same tenant and plan"
            return Fault("contract_overlap", reason, "valid_from")
    return steps


def cut_at(instant: datetime, standing: Iterable[Contract], now: datetime) -> Steps | Fault:
    """Return how versions end at an instant: what begins then or later is withdrawn, what lasts longer is shortened.

    A fault says which version has begun and cannot be taken back.
    """
    shorten, withdraw = [], []
    for one in standing:
        if one.valid_until is not None and one.valid_until <= instant:
            continue
        if one.valid_from < instant:
            if instant < now:
                return _begun(one, f"nothing of it ends before now, and {format_instant(instant)} is past")
            shorten.append((one, instant))
        elif one.valid_from <= now:
            return _begun(one, f"it has begun at {format_instant(one.valid_from)}")
        else:
            withdraw.append(one)
    return Steps(tuple(shorten), tuple(withdraw))


def _begun(contract: Contract, why: str) -> Fault:
    return Fault("contract_begun", f"{contract.contract_id} version {contract.version} counts already: {why}", "at")
