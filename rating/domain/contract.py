"""Contracts: what a tenant negotiated for a plan, from a date until a date. Owns which contract counts when.

A contract names only what differs from the plan (`overrides`, see `rating.domain.override_plan`) and how it is billed.
Its terms never change: an amendment is the next version of the same contract, valid from later on, and the version
before it ends where the new one begins. So at any instant at most one version of one contract counts for a plan.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.errors import must_hold
from core.period import Period, format_instant


@dataclass(frozen=True, slots=True)
class Contract:
    """One version of a contract, valid in `[valid_from, valid_until)` (UTC, whole minutes), open-ended while None.

    `overrides` is in the plan's own form and lies over whatever overrides the subscription itself has. `convention` is
    a value of `rating.domain.proration.Convention`, `net_days` the days until an invoice is due; None leaves either
    as it is without a contract.
    """

    contract_id: str
    version: int
    tenant_id: str
    plan_id: str
    valid_from: datetime
    valid_until: datetime | None
    overrides: Mapping[str, Any]
    convention: str | None = None
    net_days: int | None = None

    def __post_init__(self) -> None:
        must_hold(self.version >= 1, f"contract {self.contract_id} has version {self.version}")
        must_hold(
            self.valid_until is None or self.valid_from < self.valid_until,
            f"contract {self.contract_id} v{self.version} is valid for no time: {self.validity}",
        )

    def holds_at(self, instant: datetime) -> bool:
        """Tell whether it is valid at an instant: its start belongs to it, its end does not."""
        return self.valid_from <= instant and (self.valid_until is None or instant < self.valid_until)

    def within(self, period: Period) -> Period | None:
        """Return the part of the period in which it is valid, None if that is nothing."""
        start = max(period.start, self.valid_from)
        end = period.end if self.valid_until is None else min(period.end, self.valid_until)
        return Period(start, end) if start < end else None

    def overlaps(self, other: Contract) -> bool:
        """Tell whether both are valid for the same tenant and plan at some instant."""
        return (
            (self.tenant_id, self.plan_id) == (other.tenant_id, other.plan_id)
            and (other.valid_until is None or self.valid_from < other.valid_until)
            and (self.valid_until is None or other.valid_from < self.valid_until)
        )

    @property
    def validity(self) -> str:
        """From when until when, for people: `2026-10-01T00:00:00Z/..` while it has no end."""
        return f"{format_instant(self.valid_from)}/{format_instant(self.valid_until) if self.valid_until else '..'}"


def contract_at(contracts: Iterable[Contract], instant: datetime, *, plan_id: str | None = None) -> Contract | None:
    """Return the contract of one tenant that counts at an instant, None if there is none.

    With `plan_id` only contracts for that plan are looked at; contracts for several plans must not be mixed without.
    """
    found = [one for one in contracts if one.holds_at(instant) and plan_id in (None, one.plan_id)]
    must_hold(len(found) <= 1, f"several contracts count at {instant}: {', '.join(map(_name, found))}")
    return found[0] if found else None


def contract_periods(
    contracts: Iterable[Contract], within: Period, *, plan_id: str | None = None
) -> list[tuple[Period, Contract | None]]:
    """Cut a period where another contract (or none) begins to count; the pieces, in order, are the whole period.

    `contracts` and `plan_id` as for `contract_at`; a piece without a contract has None.
    """
    asked = [one for one in contracts if plan_id in (None, one.plan_id)]
    cuts = {within.start, within.end}
    for one in asked:
        held = one.within(within)
        if held is not None:
            cuts |= {held.start, held.end}
    ordered = sorted(cuts)
    return [(Period(start, end), contract_at(asked, start)) for start, end in itertools.pairwise(ordered)]


def _name(contract: Contract) -> str:
    return f"{contract.contract_id} v{contract.version}"
