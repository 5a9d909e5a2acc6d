"""What quotas need of the outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol

from core.errors import NotFoundError
from quotas.domain.access import CURRENT
from quotas.domain.entitlement import Entitlement, Feature
from quotas.domain.grant import Grant
from quotas.domain.reading import Snapshot
from quotas.domain.reservation import Reservation


class LiveView(Protocol):
    """Live totals as the quota agent keeps them in Redis."""

    async def fetch(
        self,
        tenant: str,
        keys: Sequence[tuple[str, str]],
        earlier: Sequence[tuple[str, Sequence[str]]],
        start: datetime,
    ) -> Snapshot:
        """Return the hashes of (meter, period) keys, then for each (meter, periods) of `earlier` the first that counts.

        Of the earlier periods the first counts whose level was set at `start` or before. One round trip;
        `UnavailableError` if the view does not answer.
        """
        ...

    async def check(self) -> None:
        """Return when the view answers; raises otherwise."""
        ...


@dataclass(frozen=True, slots=True)
class TenantBook:
    """All that a tenant has: entitlements and grants by feature; a meter without a feature is one by its own name.

    `account` is how the tenant stands for dunning.
    """

    entitlements: dict[str, Entitlement] = field(default_factory=dict)
    grants: dict[str, tuple[Grant, ...]] = field(default_factory=dict)
    account: str = CURRENT

    def of_feature(self, feature_id: str) -> Entitlement:
        """Return the entitlement of a feature; raises `NotFoundError`."""
        if (found := self.entitlements.get(feature_id)) is None:
            raise NotFoundError(f"no feature {feature_id[:80]!r}")
        return found

    def of_meter(self, meter_id: str) -> Entitlement:
        """Return the entitlement that limits a meter: the tenant's own before its plan's, before the plan's limit."""
        order = {"tenant": 0, "plan": 1, "limit": 2, "none": 3}
        found = [each for each in self.entitlements.values() if each.feature.meter_id == meter_id]
        if not found:
            raise NotFoundError(f"no meter {meter_id[:80]!r}")
        return min(found, key=lambda each: (order[each.origin], each.feature.feature_id))


class EntitlementBooks(Protocol):
    """Features, entitlements and grants."""

    async def of_tenant(self, tenant: str) -> TenantBook:
        """Return all that a tenant has; a few seconds old at most, and not at all if the account is not current.

        `NotFoundError`, `UnavailableError`.
        """
        ...

    async def find_feature(self, feature_id: str) -> Feature | None:
        """Return a feature that was made known."""
        ...

    async def put_feature(self, feature: Feature, created_at: datetime) -> None:
        """Add or rename a feature; `ConflictError` if it counted otherwise, `NotFoundError` without the meter."""
        ...

    async def put_entitlement(
        self, entitlement: Entitlement, *, tenant: str | None, plan: str | None, created_at: datetime
    ) -> None:
        """Give a feature to a tenant or to a plan, in place of what it had; `NotFoundError`."""
        ...

    async def add_grant(self, tenant: str, feature_id: str, grant: Grant) -> Grant:
        """Add a grant and return it; again under the same id changes nothing, `ConflictError` if it says otherwise."""
        ...

    async def void_grant(self, grant_id: str, voided_at: datetime) -> None:
        """End a grant as if it had never been; `NotFoundError`."""
        ...

    async def list_grants(self, tenant: str, feature_id: str | None) -> list[tuple[str, Grant]]:
        """Return (feature, grant) of a tenant that are not voided, oldest first."""
        ...


class UsageHistory(Protocol):
    """Usage of the past, of meters whose totals add up."""

    async def between(self, tenant: str, meter: str, cuts: Sequence[datetime]) -> list[Decimal]:
        """Return the usage between neighbouring instants (whole minutes); `UnavailableError`."""
        ...


Outcome = Literal["granted", "refused", "too_many", "committed", "taken", "gone", "released", "looked", "not_loaded"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the desk decided, with what is used and held (this one included) right after, in the meter's unit."""

    outcome: Outcome
    used: Decimal
    held: Decimal
    expires_at: datetime


class ReservationDesk(Protocol):
    """Decides about reservations, one at a time per tenant, on its own clock."""

    async def hold(
        self, reservation: Reservation, ttl_seconds: int, periods: Sequence[str], ceiling: Decimal | None
    ) -> Decision:
        """Hold if used + held + amount stays within the ceiling; `UnavailableError` while it cannot know."""
        ...

    async def commit(self, reservation: Reservation, actual: Decimal) -> Decision:
        """Keep `actual` until the event has arrived, or until the reservation's `expires_at`."""
        ...

    async def release(self, reservation: Reservation) -> None:
        """Give up what is held."""
        ...

    async def look(self, tenant: str, meter: str, periods: Sequence[str]) -> Decision:
        """Return what is used and held."""
        ...


class ReservationBooks(Protocol):
    """Reservations as they are written down, before the desk decides."""

    async def write(self, reservation: Reservation) -> Reservation:
        """Write down a hold that is to be decided; one that is there already under this id is returned as it is."""
        ...

    async def find(self, reservation_id: str) -> Reservation:
        """Return a reservation; `NotFoundError`."""
        ...

    async def extend(self, reservation_id: str, status: Literal["held", "committed"], expires_at: datetime) -> bool:
        """Let a held reservation count until then, if it still counts; returns whether it did."""
        ...

    async def close(self, reservation_id: str, status: Literal["refused", "released"]) -> None:
        """End a held or committed reservation."""
        ...

    async def reduce(self, reservation_id: str, amount: Decimal) -> None:
        """Write down what was committed of it."""
        ...

    async def open_of(self, tenant: str) -> list[Reservation]:
        """Return the tenant's reservations that count."""
        ...
