"""Quotas' ports in memory; books pass the same contract as PostgreSQL (test_books_contract.py)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

from core.clock import Clock, SystemClock
from core.errors import ConflictError, NotFoundError
from core.event_time import to_microseconds
from core.live_quota import read_parts
from core.quantity import unscale
from quotas.domain.entitlement import Entitlement, Feature
from quotas.domain.grant import Grant
from quotas.domain.reading import Snapshot
from quotas.domain.reservation import Reservation
from quotas.ports import Decision, TenantBook


class MemoryReservations:
    def __init__(self, clock: Clock | None = None) -> None:
        self.rows: dict[str, Reservation] = {}
        self._clock = clock or SystemClock()

    async def write(self, reservation: Reservation) -> Reservation:
        return self.rows.setdefault(reservation.reservation_id, reservation)

    async def find(self, reservation_id: str) -> Reservation:
        if reservation_id not in self.rows:
            raise NotFoundError(f"no reservation {reservation_id}")
        return self.rows[reservation_id]

    async def extend(self, reservation_id: str, status: Any, expires_at: datetime) -> bool:
        row = self.rows[reservation_id]
        if not self._counts(row):
            return False
        self.rows[reservation_id] = replace(row, status=status, expires_at=max(row.expires_at, expires_at))
        return True

    async def close(self, reservation_id: str, status: Any) -> None:
        row = self.rows[reservation_id]
        if row.status in ("held", "committed"):
            self.rows[reservation_id] = replace(row, status=status)

    async def reduce(self, reservation_id: str, amount: Decimal) -> None:
        row = self.rows[reservation_id]
        if row.status == "committed":
            self.rows[reservation_id] = replace(row, amount=amount)

    async def open_of(self, tenant: str) -> list[Reservation]:
        return [row for row in self.rows.values() if row.tenant_id == tenant and self._counts(row)]

    def _counts(self, row: Reservation) -> bool:
        return row.status in ("held", "committed") and row.expires_at > self._clock.now()


@dataclass
class MemoryView:
    """Hashes by (tenant, meter, period), as Redis would hold them."""

    fields: dict[tuple[str, str, str], dict[str, str]] = field(default_factory=dict)
    freshness: dict[str, int] = field(default_factory=dict)
    stale: bool = False
    failure: Exception | None = None

    async def fetch(
        self,
        tenant: str,
        keys: Sequence[tuple[str, str]],
        earlier: Sequence[tuple[str, Sequence[str]]],
        start: datetime,
    ) -> Snapshot:
        if self.failure is not None:
            raise self.failure
        hashes = [self.fields.get((tenant, *key), {}) for key in keys]
        for meter, periods in earlier:
            known = [self.fields.get((tenant, meter, period), {}) for period in periods]
            start_us = to_microseconds(start)
            hashes.append(next((f for f in known if f and all(p.at_us <= start_us for p in read_parts(f))), {}))
        return Snapshot(hashes, self.freshness, not self.stale, not self.stale)

    async def check(self) -> None:
        return None


@dataclass
class MemoryHistory:
    """Usage as (instant, quantity) by (tenant, meter)."""

    events: dict[tuple[str, str], list[tuple[datetime, int]]] = field(default_factory=dict)

    async def between(self, tenant: str, meter: str, cuts: Sequence[datetime]) -> list[Decimal]:
        events = self.events.get((tenant, meter), [])
        return [Decimal(sum(q for at, q in events if start <= at < end)) for start, end in pairwise(cuts)]


@dataclass
class MemoryEntitlements:
    """One book per tenant; meters without a feature are features by their own names."""

    meters: tuple[str, ...] = ()
    limits: dict[str, dict[str, Entitlement]] = field(default_factory=dict)
    features: dict[str, Feature] = field(default_factory=dict)
    plans: dict[str, dict[str, Entitlement]] = field(default_factory=dict)
    given: dict[str, dict[str, Entitlement]] = field(default_factory=dict)
    plan_of: dict[str, str] = field(default_factory=dict)
    grants: dict[str, tuple[str, str, Grant, bool]] = field(default_factory=dict)
    accounts: dict[str, str] = field(default_factory=dict)

    def limit(self, tenant: str, meter: str, quantity: Decimal, *, hard: bool) -> None:
        feature = Feature(meter, meter, "metered", meter)
        self.limits.setdefault(tenant, {})[meter] = Entitlement(feature, "limit", quantity, hard)

    async def of_tenant(self, tenant: str) -> TenantBook:
        found = {
            meter: self.limits.get(tenant, {}).get(meter)
            or Entitlement(Feature(meter, meter, "metered", meter), "none")
            for meter in self.meters
        }
        for name, feature in self.features.items():
            own = self.given.get(tenant, {}).get(name) or self.plans.get(self.plan_of.get(tenant, ""), {}).get(name)
            if own is None and feature.meter_id is not None:
                own = replace(found[feature.meter_id], feature=feature)
            elif own is None:
                own = Entitlement(feature, "none", value=False if feature.kind == "boolean" else None)
            found[name] = replace(own, feature=feature)
        grants: dict[str, tuple[Grant, ...]] = {}
        for name, grant in await self.list_grants(tenant, None):
            grants[name] = (*grants.get(name, ()), grant)
        return TenantBook(found, grants, self.accounts.get(tenant, "current"))

    async def find_feature(self, feature_id: str) -> Feature | None:
        return self.features.get(feature_id)

    async def put_feature(self, feature: Feature, created_at: datetime) -> None:
        if feature.meter_id is not None and feature.meter_id not in self.meters:
            raise NotFoundError("no such meter")
        known = self.features.get(feature.feature_id, feature)
        if (known.kind, known.meter_id) != (feature.kind, feature.meter_id):
            raise ConflictError("of another kind")
        self.features[feature.feature_id] = feature

    async def put_entitlement(
        self, entitlement: Entitlement, *, tenant: str | None, plan: str | None, created_at: datetime
    ) -> None:
        name = entitlement.feature.feature_id
        if name not in self.features:
            raise NotFoundError("no such feature")
        if tenant is not None:
            self.given.setdefault(tenant, {})[name] = replace(entitlement, origin="tenant")
        else:
            self.plans.setdefault(plan or "", {})[name] = replace(entitlement, origin="plan")

    async def add_grant(self, tenant: str, feature_id: str, grant: Grant) -> Grant:
        known = self.grants.setdefault(grant.grant_id, (tenant, feature_id, grant, False))
        same = known[:2] == (tenant, feature_id) and replace(known[2], created_at=grant.created_at) == grant
        if not same or known[3]:
            raise ConflictError("says otherwise")
        return known[2]

    async def void_grant(self, grant_id: str, voided_at: datetime) -> None:
        if grant_id not in self.grants:
            raise NotFoundError("no grant")
        self.grants[grant_id] = (*self.grants[grant_id][:3], True)

    async def list_grants(self, tenant: str, feature_id: str | None) -> list[tuple[str, Grant]]:
        rows: Iterable[Any] = self.grants.values()
        rows = [r for r in rows if r[0] == tenant and not r[3] and feature_id in (None, r[1])]
        return [(row[1], row[2]) for row in sorted(rows, key=lambda row: (row[2].created_at, row[2].grant_id))]


@dataclass
class MemoryDesk:
    """Decides beside a memory view; nothing expires."""

    view: MemoryView
    clock: Clock
    held: dict[str, Reservation] = field(default_factory=dict)
    failure: Exception | None = None

    async def hold(
        self, reservation: Reservation, ttl_seconds: int, periods: Sequence[str], ceiling: Decimal | None
    ) -> Decision:
        used, held = self._sums(reservation.tenant_id, reservation.meter_id, periods)
        ends = self.clock.now() + timedelta(seconds=ttl_seconds)
        if reservation.reservation_id in self.held:
            return Decision("granted", used, held, ends)
        if ceiling is not None and used + held + reservation.amount > ceiling:
            return Decision("refused", used, held, ends)
        self.held[reservation.reservation_id] = reservation
        return Decision("granted", used, held + reservation.amount, ends)

    async def commit(self, reservation: Reservation, actual: Decimal) -> Decision:
        self.held[reservation.reservation_id] = replace(reservation, amount=actual)
        return Decision("committed", Decimal(0), actual, reservation.expires_at)

    async def release(self, reservation: Reservation) -> None:
        self.held.pop(reservation.reservation_id, None)

    async def look(self, tenant: str, meter: str, periods: Sequence[str]) -> Decision:
        if self.failure is not None:
            raise self.failure
        return Decision("looked", *self._sums(tenant, meter, periods), self.clock.now())

    def _sums(self, tenant: str, meter: str, periods: Sequence[str]) -> tuple[Decimal, Decimal]:
        hashes = [self.view.fields.get((tenant, meter, period), {}) for period in periods]
        used = unscale(sum(part.quantity for fields in hashes for part in read_parts(fields)))
        held = [r.amount for r in self.held.values() if (r.tenant_id, r.meter_id) == (tenant, meter)]
        return used, sum(held, Decimal(0))
