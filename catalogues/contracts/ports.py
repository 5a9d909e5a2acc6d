"""What contracts need from a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from core.meters import Meter
from rating.domain.contract import Contract


@dataclass(frozen=True, slots=True)
class StoredContract:
    """A contract's version with the document it was read from, and that document's digest (SHA-256).

    `withdrawn_at` is set when it was taken back before it began: it counts for nothing. `time_zone` is the tenant's, in
    which people read its dates.
    """

    contract: Contract
    document: Mapping[str, Any]
    digest: str
    created_at: datetime
    shortened_at: datetime | None = None
    withdrawn_at: datetime | None = None
    time_zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class HeldTerms:
    """A version of the contract's plan that the tenant holds or will hold, with the subscription's own overrides."""

    plan_version: int
    document: Mapping[str, Any]
    overrides: Mapping[str, Any]


class ContractStore(Protocol):
    """Contracts, and what they are checked against, within one transaction."""

    async def lock_tenant(self, tenant_id: str) -> str | None:
        """Keep others from changing the tenant's contracts until the end; return its time zone, None if unknown."""
        ...

    async def meters(self) -> dict[str, Meter]:
        """Return all meters by id."""
        ...

    async def newest_plan(self, plan_id: str) -> HeldTerms | None:
        """Return the newest version of a plan, None if unknown."""
        ...

    async def held_terms(self, tenant_id: str, plan_id: str) -> Sequence[HeldTerms]:
        """Return the versions of the plan that the tenant's subscriptions hold at any time, each once."""
        ...

    async def versions(self, contract_id: str) -> list[StoredContract]:
        """Return all versions of a contract in their order, withdrawn ones too."""
        ...

    async def contracts(self, tenant_id: str | None = None) -> list[StoredContract]:
        """Return the contracts of a tenant, or of all, by tenant, plan and start, without those that were withdrawn."""
        ...

    async def add(self, contract: StoredContract) -> None:
        """Store a version; its terms never change again."""
        ...

    async def shorten(self, contract_id: str, version: int, until: datetime, now: datetime) -> None:
        """Bring a version's end forward."""
        ...

    async def withdraw(self, contract_id: str, version: int, now: datetime) -> None:
        """Take a version back that has not begun."""
        ...
